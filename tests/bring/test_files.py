"""Tables of somebody else's in every form they come in, and what they are refused for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsa_core.bring.files import batches, columns_of, number_lists, table_parts
from vsa_core.errors import UsageError

ROWS = [
    ("007", "positive", 0.75, "née, 😀"),
    ("s;2", "negative", None, 'a "b"\nc'),
    ("3", "", 1, ""),
]
NAMES = ["segment_id", "sentiment", "confidence", "text"]


def lines(mark: str, comma: str = ".", end: str = "\n") -> str:
    """The rows as a spreadsheet writes them, every cell with quotes."""

    def cell(value: object) -> str:
        text = "" if value is None else str(value)
        if isinstance(value, float):
            text = text.replace(".", comma)
        return '"' + text.replace('"', '""') + '"'

    return end.join(mark.join(map(cell, row)) for row in [NAMES, *ROWS]) + end


def objects() -> list[dict[str, object]]:
    return [dict(zip(NAMES, row, strict=True)) for row in ROWS]


def parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(objects()), path)


FORMS: dict[str, str | bytes | Callable[[Path], None]] = {
    "a.csv": lines(","),
    "bom.csv": "\ufeff" + lines(","),
    "dos.csv": lines(",", end="\r\n"),
    "mac.csv": lines(",", end="\r"),
    "semicolon.csv": lines(";", ","),
    "sep.csv": "sep=;\r\n" + lines(";", ",", "\r\n"),
    "rows_of_nothing.csv": lines(";", ",") + ";;;\n;;;\n",
    "a.TSV": lines("\t"),
    "tabs.csv": lines("\t", ","),
    "unicode_text.txt": lines("\t", ",").encode("utf-16"),
    "utf16.csv": lines(";", ",").encode("utf-16"),
    "big_endian.csv": b"\xfe\xff" + lines(",").encode("utf-16-be"),
    "utf16_without_mark.csv": lines(",").encode("utf-16-le"),
    "spaced.csv": lines(",").replace('"segment_id"', '" segment_id "').replace('"007"', '" 007 "'),
    "a.json": json.dumps(objects()),
    "a.jsonl": "".join(f"{json.dumps(row)}\n" for row in objects()) + "\n",
    "a.ndjson": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects()),
    "a.parquet": parquet,
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_says_the_same(tmp_path: Path, name: str) -> None:
    path, form = tmp_path / name, FORMS[name]
    if callable(form):
        form(path)
    elif isinstance(form, bytes):
        path.write_bytes(form)
    else:
        path.write_bytes(form.encode())
    found = columns_of(path, ("segment_id", "sentiment", "text", "not there"), ("confidence",))
    assert {column: values.to_pylist() for column, values in found.items()} == {
        "segment_id": ["007", "s;2", "3"],
        "sentiment": ["positive", "negative", None],
        "confidence": [0.75, None, 1],
        "text": ["née, 😀", 'a "b"\nc', None],
    }


def test_western_windows_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("segment_id;text\n1;née\n".encode("cp1252"))
    assert columns_of(tmp_path / "a.csv", ("text",))["text"].to_pylist() == ["née"]


def test_ids_of_several_types_are_words(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n{"id": "b2", "more": [1]}\n{"id": null}\n')
    assert columns_of(tmp_path / "a.jsonl", ("id",))["id"].to_pylist() == ["1", "b2", None]
    # Whole numbers that a column with gaps made floats, as pandas does.
    pq.write_table(pa.table({"id": [1.0, None, 30.0]}), tmp_path / "a.parquet")
    assert columns_of(tmp_path / "a.parquet", ("id",))["id"].to_pylist() == ["1", None, "30"]
    pq.write_table(pa.table({"id": [1.5, 2.0]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="column id is double: make it a string"):
        columns_of(tmp_path / "a.parquet", ("id",))


def test_what_folders_are_named_is_a_column(tmp_path: Path) -> None:
    for modality in ("text", "face%20left", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "run=3" / f"modality={modality}"
        folder.mkdir(parents=True)
        pq.write_table(
            pa.table({"segment_id": ["a", "b"], "run": ["own"] * 2}), folder / "x.parquet"
        )
    pq.write_table(pa.table({"no": [1]}), folder / "_metadata.parquet")
    found = columns_of(tmp_path, ("segment_id", "modality", "run"))
    assert found["segment_id"].to_pylist() == ["a", "b"] * 3
    assert found["modality"].to_pylist() == [*[None] * 2, *["face left"] * 2, *["text"] * 2]
    assert found["run"].to_pylist() == ["own"] * 6  # what a file says itself counts
    parts = table_parts(tmp_path)
    assert [(start, b.num_rows) for start, b in batches(parts, ["modality"])] == [
        (0, 2), (2, 2), (4, 2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("a.csv", b"", "a.csv is no CSV that can be read: it is empty"),
        ("a.csv", b"segment_id,label\n", "a.csv has no rows"),
        ("a.csv", b"segment_id;label\n;\n", "a.csv has no rows"),
        ("a.csv", b"segment_id,label\na,b,c\n", "a.csv is no CSV that can be read"),
        ("a.csv", b"segment_id,segment_id\na,b\n", "a.csv has two columns segment_id"),
        ("a.csv", b"segment_id,x\na,many\n", "column x is not all numbers"),
        ("a.csv", b"segment_id,x\na,nan\n", "column x has nan or inf"),
        ("a.csv", b'segment_id,x\na,"1,000.5"\n', "column x is not all numbers"),
        ("a.json", b"{", "a.json is no JSON that can be read"),
        ("a.json", b"[1, 2]", "a row is no object"),
        ("a.jsonl", b"[]", "a.jsonl has no rows"),
        ("a.parquet", b"segment_id\na\n", "a.parquet is not Parquet, or is torn"),
        (
            "a.xlsx",
            b"PK\x03\x04 a spreadsheet's own",
            "a.xlsx is a workbook: save its sheet as CSV",
        ),
        (
            "a.csv.gz",
            gzip.compress(b"segment_id\na\n", mtime=0),
            "a.csv.gz is not Parquet, or is torn",
        ),
        ("b.csv", None, "is not there: give a file (CSV"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(
    tmp_path: Path, name: str, data: bytes | None, complaint: str
) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError) as refused:
        columns_of(path, ("segment_id", "label"), ("x",))
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[0.1, 0.9]", [0.1, 0.9]),
        ("0.1 0.9", [0.1, 0.9]),
        ("0,1;0,9", [0.1, 0.9]),
        ("(0.1,0.9)", [0.1, 0.9]),
        ("[0.1 \n 0.9]", [0.1, 0.9]),  # as NumPy prints it
        ("[]", None),
        ("", None),
    ],
)
def test_lists_of_numbers_as_text(text: str, numbers: list[float] | None) -> None:
    assert number_lists(pa.array([text, None]), "x").to_pylist() == [numbers, None]


def test_what_is_no_list_is_refused() -> None:
    with pytest.raises(UsageError, match=r"x: '\[0.1 ... 0.9\]' is no list of numbers"):
        number_lists(pa.array(["[0.1 ... 0.9]"]), "x")
