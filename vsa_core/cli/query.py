"""`vsa query`: questions in SQL, answered on the screen or in a file."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK, opened_store
from vsa_core.cli.screen import write_table
from vsa_core.errors import UsageError

if TYPE_CHECKING:
    from vsa_core.query import Answer

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
    answer = ask(opened_store(args.store), sql, params)
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


def _write_table(answer: Answer, out: TextIO) -> None:
    rows: Iterator[list[Any]] = (list(row.values()) for row in answer.rows())
    if not out.isatty():
        write_table(out, answer.schema.names, rows)
        return
    write_table(out, answer.schema.names, itertools.islice(rows, _SCREEN_ROWS))
    if next(rows, None) is not None:
        sys.stderr.write(f"vsa: only {_SCREEN_ROWS} rows are shown: -o FILE.csv gets all\n")
