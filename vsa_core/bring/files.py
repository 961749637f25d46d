"""Parquet files of somebody else's: found, opened, and read a few rows at a time."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vsa_core.errors import UsageError

# Read through a small buffer, a row group of any size is decoded page by page.
_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 8192


@dataclass(frozen=True, slots=True)
class ParquetPart:
    """One of the files a table consists of.

    Attributes:
        path: where it is.
        schema: of its columns.
        groups: rows of each row group.
        start: how many rows the files before it have.
        values: column → how many values it has, those inside lists counted one by one.
    """

    path: Path
    schema: pa.Schema
    groups: tuple[int, ...]
    start: int
    values: Mapping[str, int]

    @property
    def rows(self) -> int:
        """Of all row groups."""
        return sum(self.groups)


def parquet_parts(where: str | Path) -> tuple[ParquetPart, ...]:
    """The files a table consists of, in the order of their names, opened but not read.

    Args:
        where: a Parquet file, a folder (with its folders) of them, or a pattern with `*`.

    Raises:
        UsageError: nothing there, not Parquet, or no rows.
    """
    parts: list[ParquetPart] = []
    start = 0
    for path in _found(where):
        with _opened(path) as file:
            groups = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
            values: Counter[str] = Counter()
            for group in groups:
                for column in map(group.column, range(group.num_columns)):
                    values[column.path_in_schema.split(".")[0]] += column.num_values
            rows = tuple(group.num_rows for group in groups)
            parts.append(ParquetPart(path, file.schema_arrow, rows, start, values))
        start += parts[-1].rows
    if not start:
        raise UsageError(f"{where} has no rows: there is nothing to label")
    return tuple(parts)


def batches(
    parts: Sequence[ParquetPart], columns: Sequence[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of some columns, a batch at a time, each with the number of its first row.

    Args:
        parts: the files; one that has none of the columns is passed over.
        columns: those to read, where a file has them.

    Raises:
        UsageError: a file is torn, or is another one than it was.
    """
    for part in parts:
        names = [name for name in columns if name in part.schema.names]
        if not names:
            continue
        with _opened(part.path) as file:
            if file.metadata.num_rows != part.rows:
                raise UsageError(f"{part.path} changed while it was read: run the command again")
            at = part.start
            for group in range(len(part.groups)):
                for batch in file.iter_batches(_BATCH_ROWS, [group], names):
                    yield at, batch
                    at += batch.num_rows


def column_at(parts: Sequence[ParquetPart], row: int, column: str) -> str:
    """Where a row's value stands, for a complaint: the file and the column."""
    part = next(part for part in reversed(parts) if part.start <= row)
    return f"{part.path}: column {column}"


def text_column(values: pa.Array, what: str) -> pa.Array:
    """Words or whole numbers as words; null stays null.

    Args:
        values: of any type.
        what: file and column, for the complaint.

    Raises:
        UsageError: they are neither.
    """
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    names = (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_null(kind)
    )
    if not names:
        raise UsageError(f"{what} is {values.type}: make it a string")
    return pc.cast(pc.cast(values, kind), pa.string())


def _found(where: str | Path) -> list[Path]:
    path = Path(where)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*.parquet") if p.is_file())
        if not found:
            raise UsageError(f"{where} is a folder without a .parquet file")
        return found
    if path.exists():
        return [path]
    matching = sorted(Path(p) for p in glob.glob(str(where), recursive=True))  # noqa: PTH207
    found = [p for p in matching if p.is_file()]
    if not found:
        raise UsageError(f"{where} is not there: give a Parquet file, a folder or a pattern")
    return found


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not Parquet, or is torn ({error}): write it anew") from error
