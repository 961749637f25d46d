"""Tables of somebody else's: Parquet, CSV in any dialect, or JSON; read a few rows at a time."""

from __future__ import annotations

import codecs
import csv
import functools
import glob
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from vsa_core.errors import UsageError

# Read through a small buffer, a row group of any size is decoded page by page.
_BUFFER_BYTES = 1 << 20
_BATCH_ROWS = 8192
_TEXT, _JSON = {".csv", ".tsv", ".tab", ".txt"}, {".json", ".jsonl", ".ndjson"}
_WORKBOOKS = {".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers"}
_FORMS = "CSV, TSV, JSON, JSON Lines or Parquet"
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?\n')
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class TablePart:
    """One of the files a table consists of.

    Attributes:
        path: where it is.
        names: of its columns, those that its folders name among them.
        groups: rows of each row group.
        start: how many rows the files before it have.
        values: column → how many values it has, those inside lists counted one by one.
        metadata: of a Parquet file.
        fixed: column → its value in every row, from folders named `column=value`.
        held: the rows of a file of text; None for Parquet, which is read when it is needed.
    """

    path: Path
    names: tuple[str, ...]
    groups: tuple[int, ...]
    start: int
    values: Mapping[str, int]
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)
    fixed: Mapping[str, str | None] = field(default_factory=dict)
    held: pa.Table | None = None

    @property
    def rows(self) -> int:
        """Of all row groups."""
        return sum(self.groups)


def table_parts(where: str | Path) -> tuple[TablePart, ...]:
    """The files a table consists of, in the order of their names; Parquet is not read yet.

    Args:
        where: a file (CSV, TSV, JSON, JSON Lines, else Parquet), a folder (with its folders, which
            may be named `column=value`) of Parquet files, or a pattern with `*`.

    Raises:
        UsageError: nothing there, not what its name says, or no rows.
    """
    parts: list[TablePart] = []
    start = 0
    for path in _found(where):
        parts.append(_part(path, start))
        start += parts[-1].rows
    if not start:
        raise UsageError(f"{where} has no rows: write one for each segment")
    return tuple(parts)


def batches(
    parts: Sequence[TablePart], columns: Sequence[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of some columns, a batch at a time, each with the number of its first row.

    Args:
        parts: the files; one that has none of the columns is passed over.
        columns: those to read, where a file has them.

    Raises:
        UsageError: a file is torn, or is another one than it was.
    """
    for part in parts:
        names = [name for name in columns if name in part.names]
        if not names:
            continue
        at = part.start
        for batch in _batches(part, [name for name in names if name not in part.fixed]):
            found = {
                name: pa.repeat(pa.scalar(part.fixed[name], pa.string()), batch.num_rows)
                if name in part.fixed
                else batch.column(name)
                for name in names
            }
            yield at, pa.RecordBatch.from_pydict(found)
            at += batch.num_rows


def columns_of(
    where: str | Path, words: Sequence[str], numbers: Sequence[str] = ()
) -> dict[str, pa.Array]:
    """The columns of a small table, those that it has.

    Args:
        where: as `table_parts`.
        words: columns of words, which come as strings, null where empty.
        numbers: columns of numbers, which come as float64, null where empty.

    Raises:
        UsageError: as `table_parts`; a column that comes twice, or holds something else.
    """
    parts = table_parts(where)
    for part in parts:
        for name in (*words, *numbers):
            if part.names.count(name) > 1:
                raise UsageError(f"{part.path} has two columns {name}: keep one of them")
    names = [n for n in (*words, *numbers) if all(n in part.names for part in parts)]
    held: dict[str, list[pa.Array]] = {name: [] for name in names}
    for start, batch in batches(parts, names):
        for name in names:
            read = text_column if name in words else number_column
            held[name].append(read(batch.column(name), column_at(parts, start, name)))
    return {name: pa.concat_arrays(found) for name, found in held.items()}


def column_at(parts: Sequence[TablePart], row: int, column: str) -> str:
    """Where a row's value stands, for a complaint: the file and the column."""
    part = next(part for part in reversed(parts) if part.start <= row)
    return f"{part.path}: column {column}"


def text_column(values: pa.Array, what: str) -> pa.Array:
    """Words or whole numbers as words, without spaces around; null where empty.

    Args:
        values: of any type; also whole numbers that became floats on their way.
        what: file and column, for the complaint.

    Raises:
        UsageError: they are neither.
    """
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    values = pc.cast(values, kind)
    whole = pa.types.is_floating(kind) and pc.equal(pc.floor(values), values)
    if whole and pc.all(whole, min_count=0).as_py():
        kind = pa.int64()
        values = pc.cast(values, kind, safe=False)
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise UsageError(f"{what} is {values.type}: make it a string")
    found = pc.utf8_trim_whitespace(pc.cast(values, pa.string()))
    return pc.if_else(pc.equal(found, ""), pa.scalar(None, pa.string()), found)


def number_column(values: pa.Array, what: str) -> pa.Array:
    """Numbers, also those written as words, with a decimal comma too; null where empty.

    Args:
        values: of any type.
        what: file and column, for the complaint.

    Raises:
        UsageError: not all are finite numbers.
    """
    if _is_text(values.type):
        values = text_column(values, what)
        # 0,75 as a spreadsheet of half the world writes it; 1,000.5 stays what it is, no number.
        values = pc.replace_substring_regex(values, r"^([-+]?\d*),(\d+)$", r"\1.\2")
    try:
        numbers = pc.cast(values, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UsageError(f"{what} is not all numbers: {error}") from error
    if not pc.all(pc.fill_null(pc.is_finite(numbers), True)).as_py():
        raise UsageError(f"{what} has nan or inf: leave it empty where not known")
    return numbers


def number_lists(values: pa.Array, what: str) -> pa.Array:
    """Lists of numbers, also those written as text: `[0.1, 0.9]`, `0.1 0.9` or `0,1;0,9`.

    Raises:
        UsageError: text that is no list of numbers.
    """
    if not _is_text(values.type):
        return values
    return pa.array(
        [_numbers_in(text, what) for text in values.to_pylist()], pa.list_(pa.float64())
    )


def _numbers_in(text: str | None, what: str) -> list[float] | None:
    if text is None or not text.strip(" []()"):
        return None
    plain = text.replace(",", ".").replace(";", " ") if ";" in text else text.replace(",", " ")
    try:
        return [float(word) for word in plain.replace("null", "nan").strip(" []()").split()]
    except ValueError as error:
        shown = text if len(text) < 40 else f"{text[:39]}…"
        raise UsageError(f"{what}: {shown!r} is no list of numbers: write [0.1, 0.9]") from error


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _found(where: str | Path) -> list[Path]:
    path = Path(where)
    if path.is_dir():
        # Spark and others leave files of their own beside, whose names begin so.
        found = sorted(
            p for p in path.rglob("*.parquet") if p.is_file() and not p.name.startswith((".", "_"))
        )
        if not found:
            raise UsageError(f"{where} is a folder without a .parquet file")
        return found
    if path.exists():
        return [path]
    matching = sorted(Path(p) for p in glob.glob(str(where), recursive=True))  # noqa: PTH207
    found = [p for p in matching if p.is_file()]
    if not found:
        raise UsageError(f"{where} is not there: give a file ({_FORMS}), a folder or a pattern")
    return found


def _part(path: Path, start: int) -> TablePart:
    fixed = {
        name: None if value == _NO_PARTITION else unquote(value)
        for name, equals, value in (folder.partition("=") for folder in path.parts[:-1])
        if equals
    }
    values: Counter[str] = Counter()
    metadata: Mapping[bytes, bytes] = {}
    ending, held = path.suffix.lower(), None
    if ending in _TEXT | _JSON:
        held = _json_rows(path) if ending in _JSON else _csv_rows(path)
        for name, column in zip(held.column_names, held.columns, strict=True):
            values[name] += len(
                pc.list_flatten(column) if pa.types.is_list(column.type) else column
            )
        names, groups = held.column_names, (held.num_rows,)
    else:
        with _opened(path) as file:
            rows = [file.metadata.row_group(g) for g in range(file.num_row_groups)]
            for group in rows:
                for column in map(group.column, range(group.num_columns)):
                    values[column.path_in_schema.split(".")[0]] += column.num_values
            names, groups = file.schema_arrow.names, tuple(group.num_rows for group in rows)
            metadata = file.schema_arrow.metadata or {}
    fixed = {name: value for name, value in fixed.items() if name not in names}
    return TablePart(path, (*names, *fixed), groups, start, values, metadata, fixed, held)


def _batches(part: TablePart, names: list[str]) -> Iterator[pa.RecordBatch]:
    names = names or [part.names[0]]  # where folders name all, another says how many rows there are
    if part.held is not None:
        yield from part.held.select(names).to_batches(_BATCH_ROWS)
        return
    with _opened(part.path) as file:
        if file.metadata.num_rows != part.rows:
            raise UsageError(f"{part.path} changed while it was read: run the command again")
        for group in range(len(part.groups)):
            yield from file.iter_batches(_BATCH_ROWS, [group], names)


def _text(path: Path) -> str:
    """What a file says, in whatever Unicode it is written; else as Western Windows has it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    said = next((codec for bom, codec in _BOMS.items() if data.startswith(bom)), "utf-8")
    if said == "utf-8" and b"\0" in data[:200]:  # every second byte of plain words in UTF-16
        said = "utf-16-le" if data[1:2] == b"\0" else "utf-16-be"
    for codec in (said, "cp1252"):
        try:
            return data.decode(codec)
        except UnicodeDecodeError:
            continue
    raise UsageError(f"{path} is no text: give {_FORMS}")


def _csv_rows(path: Path) -> pa.Table:
    """The rows of a CSV file, all of words; what parts its columns is looked up."""
    text = re.sub("\r\n?", "\n", _text(path)).lstrip("\n")
    said = _SEPARATOR_LINE.match(text)  # as spreadsheets write it
    if said:
        text = text[said.end() :]
    head = text.partition("\n")[0]
    parted = said[1] if said else max(",;\t|", key=head.count)
    try:
        names = next(csv.reader([head], delimiter=parted), [])
        table = pa.csv.read_csv(
            io.BytesIO(text.encode()),
            # Another column, such as what is said, may hold lines of its own.
            parse_options=pa.csv.ParseOptions(delimiter=parted, newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowException as error:
        why = "it is empty" if not text.strip() else " ".join(str(error).split())
        raise UsageError(f"{path} is no CSV that can be read: {why}") from error
    table = table.rename_columns([name.strip() for name in table.column_names])
    if table.num_rows and table.num_columns:
        # A spreadsheet's empty rows.
        filled = [pc.not_equal(column, "") for column in table.columns]
        table = table.filter(functools.reduce(pc.or_, filled))
    return table


def _json_rows(path: Path) -> pa.Table:
    """The rows of an array of objects, or of one object a line."""
    text = _text(path)
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else _lines(text)
    except ValueError as error:
        raise UsageError(f"{path} is no JSON that can be read: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: a row is no object: give an array of them, or one a line")
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _json_column([row.get(name) for row in rows]) for name in names})


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _json_column(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types, such as ids 1 and "b2"
        return pa.array([None if value is None else str(value) for value in values], pa.string())


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
            yield file
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        if path.suffix.lower() in _WORKBOOKS:
            raise UsageError(f"{path} is a workbook: save its sheet as CSV first") from None
        raise UsageError(
            f"{path} is not Parquet, or is torn ({error}): write it anew, or as {_FORMS} with an "
            "ending that says so"
        ) from error
