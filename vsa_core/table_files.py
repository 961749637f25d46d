"""A table as a file, whole or not at all, in the format that the ending of its name says."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from vsa_core.errors import UsageError
from vsa_core.whole_files import flush, whole_file

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")
_ENDINGS = f".{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}"


def check_table_file(path: Path, option: str = "-o", format: str | None = None) -> str:
    """The format of a file that is to be written, before any work is done.

    Args:
        path: where it is to go.
        option: that named it, for a complaint.
        format: asked for; None takes what the name ends in.

    Raises:
        UsageError: the name ends in none, is no plain file's, or its folder is not there.
    """
    ending = path.suffix.removeprefix(".").lower()
    wanted = format or ending
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no plain file: give the name of one with {option}")
    if ending in FORMATS and ending != wanted:
        raise UsageError(f"{path} ends in .{ending}, but {wanted} is asked for: give one of them")
    if wanted not in FORMATS:
        raise UsageError(f"{option} {path}: its ending says the format: give {_ENDINGS}")
    if not path.absolute().parent.is_dir():
        raise UsageError(
            f"{path} would be in a folder that is not there: make it, or change {option}"
        )
    return wanted


def write_table_file(
    path: Path,
    schema: pa.Schema,
    batches: Iterable[pa.RecordBatch],
    *,
    format: str | None = None,
    rows: Iterable[Mapping[str, Any]] | None = None,
) -> None:
    """Write a table, or leave what stands there as it is.

    Args:
        path: the file to write or replace.
        schema: of the columns; its metadata only Parquet keeps.
        batches: the rows.
        format: one of `FORMATS`; None takes what the name ends in.
        rows: the same rows as Python values, which all but Parquet takes; None makes them.

    Raises:
        UsageError: it cannot be written, or the format cannot hold a column.
    """
    wanted = check_table_file(path, format=format)
    with replacing(path) as file:
        if wanted == "parquet":
            _write_parquet(file, schema, batches)
            return
        if rows is None:
            rows = (row for batch in batches for row in batch.to_pylist())
        with open(file.fileno(), "w", encoding="utf-8", newline="", closefd=False) as text:
            write_rows(text, schema.names, rows, wanted)


def write_rows(
    out: TextIO, names: Sequence[str], rows: Iterable[Mapping[str, Any]], format: str
) -> None:
    """Write rows as text: an array of objects, an object a line, or lines of columns.

    Args:
        out: where to.
        names: of the columns.
        rows: values by column.
        format: json, jsonl, csv or tsv; lists stand as JSON in the last two.
    """
    if format == "jsonl":
        out.writelines(f"{_json(row)}\n" for row in rows)
    elif format == "json":
        separator = "[\n"
        for row in rows:
            out.write(separator + _json(row))
            separator = ",\n"
        out.write("[]\n" if separator == "[\n" else "\n]\n")
    else:
        lines = csv.writer(out, lineterminator="\n", delimiter="\t" if format == "tsv" else ",")
        lines.writerow(names)
        lines.writerows(map(_cell, row.values()) for row in rows)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A temporary file that takes the place of `path`, flushed to the disk, if all goes well.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        with whole_file(path) as file:
            yield file
        flush(path.parent)
    except BrokenPipeError:  # of what the rows come from
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_parquet(file: BinaryIO, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    try:
        with pq.ParquetWriter(file, schema, compression="zstd") as out:
            for batch in batches:
                out.write_batch(batch)
    except pa.ArrowNotImplementedError as error:
        raise UsageError(f"Parquet cannot hold this: {error}; cast the column in SQL") from error


def _cell(value: Any) -> Any:
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
