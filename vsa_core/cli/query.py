"""`vsa query`: questions in SQL, answered on the screen or in a file."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK, opened_store
from vsa_core.cli.screen import cell, write_table
from vsa_core.errors import UsageError

if TYPE_CHECKING:
    from vsa_core.query import Answer
    from vsa_core.store import Store

# By what a parameter's name begins with: what its value may be.
_NAMES = {
    "video": "[video_id, title]) AS name FROM videos",
    "channel": "[channel_id, channel]) AS name FROM videos",
    "segment": "[segment_id]) AS name FROM segments",
}
# A screen is read, not processed: whoever wants a million rows asks for a file.
_SCREEN_ROWS = 1_000


def run(args: argparse.Namespace) -> int:
    """Answer the query, or list the shipped ones."""
    if args.list:
        _list(sys.stdout)
        return OK
    if not args.sql:
        raise UsageError("what is asked? Give a SELECT, or @NAME of one in `vsa query --list`")
    from vsa_core.table_files import check_table_file, write_rows, write_table_file

    if args.output:
        if args.format == "table":
            raise UsageError("a table is for the screen: leave out --format, or -o")
        check_table_file(args.output, format=args.format)
    elif args.format == "parquet":
        raise UsageError("Parquet is not for a screen: say where with -o FILE.parquet")

    from vsa_core.query import ask

    sql, params = _asked(args.sql, args.param)
    store = opened_store(args.store)
    answer = _with_rows(ask(store, sql, params), store, args.param)
    if args.output:
        rows = answer.rows()
        write_table_file(args.output, answer.schema, answer.batches, format=args.format, rows=rows)
    elif args.format in (None, "table"):
        _write_table(answer, sys.stdout)
    else:
        write_rows(sys.stdout, answer.schema.names, answer.rows(), args.format)
    return OK


def _list(out: TextIO) -> None:
    from vsa_core.query import shipped

    for query in shipped():
        out.write(f"@{query.name}\n    {query.description}\n")
        for name, (default, meaning) in query.params.items():
            out.write(f"    --param {name}={default or '…'}  {meaning}\n")


def _asked(sql: str, given: list[str]) -> tuple[str, dict[str, str | None]]:
    """The SQL, and a value for each of its parameters."""
    params: dict[str, str | None] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--param {pair!r} is not NAME=VALUE")
        params[name] = value
    if not sql.startswith("@"):
        return sql, params

    from vsa_core.query import shipped_query

    query = shipped_query(sql.removeprefix("@"))
    return query.sql, {**query.defaults, **params}


def _with_rows(answer: Answer, store: Store, given: list[str]) -> Answer:
    """The answer; one without a row may be the answer to a name that is not in the store.

    Raises:
        UsageError: so it is.
    """
    first = next((batch for batch in answer.batches if len(batch)), None)
    if first is not None:
        return replace(answer, batches=itertools.chain([first], answer.batches))
    for pair in given:
        name, _, value = pair.partition("=")
        of = name.partition("_")[0]
        if of in _NAMES and "%" not in value and (hint := _not_there(store, of, value)) is not None:
            raise UsageError(f"--param {pair}: {store.location} holds no such {of}{hint}")
    return replace(answer, batches=iter(()))


def _not_there(store: Store, of: str, value: str) -> str | None:
    """None where the store has that name; else a hint at the nearest of its own."""
    from vsa_core.query import ask

    sql = f"""
        SELECT name, name = $value AS same FROM (SELECT unnest({_NAMES[of]})
        WHERE name IS NOT NULL
        ORDER BY same DESC, jaro_winkler_similarity(lower(name), lower($value)) DESC, name LIMIT 1
    """
    for row in ask(store, sql, {"value": value}).rows():
        return None if row["same"] else f"; the nearest is {cell(row['name'])}"
    return ""


def _write_table(answer: Answer, out: TextIO) -> None:
    rows: Iterator[list[Any]] = (list(row.values()) for row in answer.rows())
    if not out.isatty():
        write_table(out, answer.schema.names, rows)
        return
    write_table(out, answer.schema.names, itertools.islice(rows, _SCREEN_ROWS))
    if next(rows, None) is not None:
        sys.stderr.write(f"vsa: only {_SCREEN_ROWS} rows are shown: -o FILE.csv gets all\n")
