"""`vsa query`: formats, files, parameters, and what a terminal shows."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

from tests.small_store import SEGMENTS, small_store
from vsa_core.cli import main
from vsa_core.cli.screen import write_table

_ODD = SEGMENTS["v02"][0][1]  # quotes, a line break, an emoji, a leading "terrible, =1+1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_store(tmp_path_factory.mktemp("store")).root


@pytest.fixture
def ask(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `vsa query` and return what it printed; it must end well."""

    def asked(*words: str) -> str:
        code = main(["query", *words, "--store", str(root)])
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    return asked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(
    monkeypatch: pytest.MonkeyPatch, width: int, columns: list[str], rows: list[list[Any]]
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    write_table(out, columns, rows)
    return re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines()


def test_a_table_in_a_pipe_is_plain_and_whole(ask: Any) -> None:
    sql = "SELECT video_id, start_ms, confidence, text FROM labels ORDER BY segment_id"
    lines = ask(sql).splitlines()
    assert lines[0] == "video_id  start_ms  confidence  text"
    assert lines[1] == "v01              0         0.8  I love it"
    assert lines[4].endswith(" ".join(_ODD.split()))
    assert len(lines) == 6


def test_csv(ask: Any) -> None:
    out = ask("FROM labels WHERE video_id = 'v02'", "--format", "csv")
    [row] = csv.DictReader(io.StringIO(out))
    assert row["text"] == _ODD
    assert row["face_vote"] == ""
    assert json.loads(row["sentiment_probs"]) == [0.75, 0.15, 0.1]
    assert row["published_at"] == "2026-01-02T12:00:00+00:00"


def test_json(ask: Any) -> None:
    [row] = json.loads(ask("FROM labels WHERE video_id = 'v02'", "--format", "json"))
    assert row["text"] == _ODD
    assert row["face_vote"] is None
    assert row["confidence"] == 0.75
    assert row["sentiment_probs"] == [0.75, 0.15, 0.1]
    assert row["published_at"] == "2026-01-02T12:00:00+00:00"
    assert json.loads(ask("FROM labels WHERE false", "--format", "json")) == []


def test_json_of_values_it_has_no_word_for(ask: Any) -> None:
    sql = (
        "SELECT 'nan'::FLOAT AS a, ['inf'::DOUBLE] AS b, sum(1) AS c, 1.5 AS d, '\\x01'::BLOB AS e,"
        " DATE '2026-01-02' AS f, {'x': 'nan'::DOUBLE} AS g, INTERVAL 3 DAY AS h, 2 AS a"
    )
    [row] = json.loads(ask(sql, "--format", "json"))
    assert row["a"] is None
    assert row["b"] == [None]
    assert (row["c"], row["d"], row["e"], row["f"]) == (1, 1.5, "01", "2026-01-02")
    assert row["g"] == {"x": None}
    assert row["a_1"] == 2


def test_parquet(ask: Any, tmp_path: Path) -> None:
    target = tmp_path / "labels.parquet"
    assert ask("FROM labels ORDER BY segment_id", "-o", str(target)) == ""
    found = pq.read_table(target)
    assert found.num_rows == 5
    assert found["sentiment_probs"].to_pylist()[0] == pytest.approx([0.05, 0.15, 0.8])


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("a.csv", "n,list"),
        ("a.TSV", "n\tlist"),
        ("a.json", "["),
        ("a.jsonl", '{"n": 1, "list": [2]}'),
    ],
)
def test_a_file_is_written_in_the_format_of_its_ending(
    ask: Any, tmp_path: Path, name: str, first: str
) -> None:
    target = tmp_path / name
    target.write_text("old")
    ask("SELECT 1 AS n, [2] AS list", "-o", str(target))
    assert target.read_text().splitlines()[0] == first
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["-o", "a.xlsx"],
            "its ending says the format: give .csv, .tsv, .json, .jsonl or .parquet",
        ),
        (["-o", "a.txt"], "its ending says the format"),
        (["-o", "a.csv", "--format", "parquet"], "ends in .csv, but parquet is asked for"),
        (["-o", "a.csv", "--format", "table"], "a table is for the screen"),
    ],
)
def test_what_no_ending_says_is_refused_before_anything_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    words[1] = str(tmp_path / words[1])
    assert main(["query", "SELECT", *words, "--store", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_query_that_fails_leaves_the_old_file_and_no_other(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.csv"
    target.write_text("old")
    # The first batches are fine; the division fails behind them.
    sql = "SELECT 1 // (range - 500_000) FROM range(1_000_000)"
    assert main(["query", sql, "-o", str(target), "--store", str(root)]) == 2
    assert "Division by zero" in capsys.readouterr().err
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("name", ["", "no/such/folder/a.csv"])
def test_a_file_that_cannot_be_written(
    root: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", "SELECT 1", "-o", str(tmp_path / name), "--store", str(root)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_sql_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT nope FROM labels", "--store", str(root)]) == 2
    err = capsys.readouterr().err
    assert "nope" in err
    assert "label_history" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("most_negative", "did you mean @most_negative?"),
        ("most_negativ", "did you mean @most_negative?"),
        ("lables", "did you mean labels?"),
        ("@most_negativ", "did you mean most_negative?"),
        ("SELECT sentimet FROM labels", "did you mean sentiment?"),
        ("SELECT l.sentimen FROM labels AS l", "did you mean sentiment?"),
        ("FROM lables", "did you mean labels?"),
        ("SELECT cout(*) FROM labels", "did you mean count?"),
        ("FROM labels WHERE sentiment = negative", "in single quotes, 'negative'"),
        ("SELECT $vidoe, $limit", "the query needs a value for $limit, $vidoe: --param limit="),
    ],
)
def test_wrong_sql_names_the_nearest_right(
    root: Path, sql: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", sql, "--store", str(root)]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("sql", "param", "said"),
    [
        ("@sentiment_over_time", "video=video 2", "no such video; the nearest is Video 2"),
        ("FROM labels WHERE video_id = $video_id", "video_id=v0", "such video; the nearest is v0"),
        ("FROM labels WHERE segment_id = $segment", "segment=v02", "such segment; the nearest is"),
        ("FROM videos WHERE channel_id = $channel", "channel=nosuch", "no such channel"),
        ("@most_negative", "limt=3", "no parameter $limt; it has $limit; did you mean limit?"),
        ("@coverage", "video=v02", "no parameter $video; it has none"),
    ],
)
def test_a_value_that_the_store_does_not_know_is_no_empty_answer(
    root: Path, sql: str, param: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", sql, "--param", param, "--store", str(root)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_an_empty_answer_about_what_is_there_is_one(ask: Any) -> None:
    sql = "SELECT text FROM labels WHERE video_id = $video AND text = 'not said'"
    assert ask(sql, "--param", "video=v02").splitlines() == ["text"]
    like = "SELECT text FROM labels WHERE title LIKE $video"
    assert ask(like, "--param", "video=nothing%").splitlines() == ["text"]


def test_list_names_every_shipped_query(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "--list"]) == 0
    out = capsys.readouterr().out
    assert "@most_negative\n    The most negative moments" in out
    assert "--param limit=20" in out


def test_shipped_queries_by_name_with_parameters(ask: Any) -> None:
    assert len(ask("@most_negative").splitlines()) == 4
    assert len(ask("@most_negative", "--param", "limit=1").splitlines()) == 2
    found = json.loads(ask("@sentiment_over_time", "--param", "video=Video 2", "--format", "json"))
    assert [row["text"] for row in found] == [_ODD]


def test_unknown_parameters_and_names_are_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["query", "@coverage", "--param", "x=1", "--store", str(root)]) == 2
    assert "$x" in capsys.readouterr().err
    assert main(["query", "@nope", "--store", str(root)]) == 2
    assert "coverage" in capsys.readouterr().err


def test_a_terminal_cuts_the_long_columns_only(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = on_terminal(monkeypatch, 50, ["n", "text", "mood"], [[1.25, "long " * 30, "😀 glad"]])
    assert all(cell_len(line) <= 50 for line in lines)
    assert lines[0].split() == ["n", "text", "mood"]
    assert lines[2].startswith("1.25  long long")
    assert "…" in lines[2]
    assert lines[2].rstrip().endswith("😀 glad")


def test_a_terminal_shows_wide_rows_line_by_line(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [f"column_{n}" for n in range(12)]
    rows = [[f"value {n} " * 9 for n in range(12)], ["x"] * 12]
    lines = on_terminal(monkeypatch, 60, columns, rows)
    assert len(lines) == 2 * 13
    assert lines[1].startswith("column_0   value 0 ")
    assert all(cell_len(line) <= 60 for line in lines)


def test_what_strangers_wrote_cannot_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "\x1b[2Jtitle\r\n[red]not markup[/red]\u202e\x9b1m"
    lines = on_terminal(monkeypatch, 60, ["title"], [[hostile]])
    assert lines[2].strip() == "[2Jtitle [red]not markup[/red] 1m"


def test_a_pipe_does_not_wait_for_the_last_row() -> None:
    """The widths are those of the first rows; the rest follows as it comes."""
    out = io.StringIO()

    def rows() -> Any:
        yield from ([n] for n in range(1_000))
        yield ["long value"]
        assert out.getvalue().startswith("  n\n  0\n")
        yield [None]

    write_table(out, ["n"], rows())
    assert out.getvalue().splitlines()[-2:] == ["long value", ""]
