"""`vsa query`: questions in SQL, answered as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime, time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO

from vsa_core.cli import OK, opened_store
from vsa_core.cli.arguments import QUERY_FORMATS
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
    ending = args.output.suffix.removeprefix(".").lower() if args.output else ""
    wanted = args.format or (ending if ending in QUERY_FORMATS else "table")
    if wanted == "parquet" and not args.output:
        raise UsageError("Parquet is not for a screen: say where with -o FILE.parquet")

    from vsa_core.query import ask

    sql, params = _asked(args.sql, args.param)
    store = opened_store(args.store)
    answer = _with_rows(ask(store, sql, params), store, args.param)
    if args.output:
        with _replacing(args.output) as file:
            if wanted == "parquet":
                _write_parquet(answer, file)
            else:
                with open(file.fileno(), "w", encoding="utf-8", newline="", closefd=False) as text:
                    _WRITERS[wanted](answer, text)
    else:
        _WRITERS[wanted](answer, sys.stdout)
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


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that takes the place of `path` when the block ends well."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no plain file: give the name of one with -o")
    tmp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tmp.open("xb") as file:
            yield file
        tmp.replace(path)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        tmp.unlink(missing_ok=True)


def _write_table(answer: Answer, out: TextIO) -> None:
    rows: Iterator[list[Any]] = (list(row.values()) for row in answer.rows())
    if not out.isatty():
        write_table(out, answer.schema.names, rows)
        return
    write_table(out, answer.schema.names, itertools.islice(rows, _SCREEN_ROWS))
    if next(rows, None) is not None:
        sys.stderr.write(f"vsa: only {_SCREEN_ROWS} rows are shown: -o FILE.csv gets all\n")


def _write_csv(answer: Answer, out: TextIO) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.schema.names)
    for row in answer.rows():
        writer.writerow(_csv_value(value) for value in row.values())


def _write_json(answer: Answer, out: TextIO) -> None:
    """One array, a row on each line."""
    separator = "[\n"
    for row in answer.rows():
        out.write(separator + _json(row))
        separator = ",\n"
    out.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_parquet(answer: Answer, out: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetWriter(out, answer.schema, compression="zstd") as writer:
            for batch in answer.batches:
                writer.write_batch(batch)
    except pa.ArrowNotImplementedError as error:
        raise UsageError(f"Parquet cannot hold this: {error}; cast the column in SQL") from error


_WRITERS = {"table": _write_table, "csv": _write_csv, "json": _write_json}


def _csv_value(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple, dict)):
        return _json(value)
    plain = _plain(value)
    return value if plain is None else plain


def _json(value: Any) -> str:
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    """A value as JSON has it: ISO times, null for what is no number, hexadecimal bytes."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value)
