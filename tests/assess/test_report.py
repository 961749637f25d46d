"""The report's folder: whole, self-contained, and harmless whatever a text says."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.assess.meld import Meld, made, predictions_file, truth_file
from vsa_core.assess import Assessment, assess
from vsa_core.assess.given import predictions_of, read_known, read_predictions
from vsa_core.assess.report import check_place, write_report
from vsa_core.errors import UsageError
from vsa_core.truths import Truth

PICTURES = {
    f"{target}-{name}.png"
    for target in ("sentiment", "emotion")
    for name in ("confusion", "reliability", "risk-coverage")
}
EVIL = (
    "<script>alert(1)</script><img src=http://a.example/x onerror=alert(2)>\" ' &amp; "
    "|cell| `code` ![p](http://a.example/p.png) [l](http://a.example) **b** $x^2$ \u202etxt\x1b[31m"
)


class Page(HTMLParser):
    """Tags, attributes and text of a page; every tag must be closed in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.fixture(scope="module")
def meld_assessed(meld: Meld, tmp_path_factory: pytest.TempPathFactory) -> Assessment:
    folder = tmp_path_factory.mktemp("meld")
    first, second = (
        read_predictions(
            predictions_file(folder / f"{seed}.csv", meld, made(meld, skill=2, seed=seed), rows)
        )
        for seed, rows in ((1, range(2500)), (2, range(2610)))
    )
    known, _ = read_known(truth_file(folder / "t.csv", meld), first)
    return assess(first, known, against=second)


@pytest.fixture(scope="module")
def report(meld_assessed: Assessment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new" / "report"
    files = write_report(meld_assessed, folder)
    assert {path.name for path in files} == {path.name for path in folder.iterdir()}
    return folder


def hostile(name: str = "a.csv") -> Assessment:
    table = pa.table(
        {
            "segment_id": ["<b>s</b>-0-1", "t-0-1"],
            "video_id": [EVIL, "t"],
            "sentiment": ["positive", "negative"],
            "text": [EVIL, "x" * 1000],
            "face_vote": ["<i>joy</i>", None],
        }
    )
    labels = pa.array(["negative", "positive"])
    truth = Truth("t.csv", table["segment_id"].combine_chunks(), {"sentiment": labels})
    return assess(predictions_of(table, name), truth, targets=("sentiment",))


def test_what_is_in_it(report: Path, meld_assessed: Assessment) -> None:
    names = {path.name for path in report.iterdir()}
    assert names == {"report.md", "report.html", "metrics.json"} | PICTURES
    assert list(report.parent.iterdir()) == [report]
    held = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    assert held == json.loads(json.dumps(meld_assessed.as_dict(), allow_nan=False))
    sentiment = held["targets"]["sentiment"]
    assert sentiment["n"] == 2610
    assert len(sentiment["by_video"]) == 100
    assert len(sentiment["curve"]["risk"]) == len(sentiment["curve"]["coverage"]) == 100
    assert len(sentiment["mistakes"]) == 50
    assert held["comparisons"]["emotion"]["all"]["mcnemar"]["method"] == "chi2"


def test_both_texts_say_the_figures(report: Path, meld_assessed: Assessment) -> None:
    about = meld_assessed.targets["sentiment"]
    accuracy = f"{about.accuracy.value:.3f} ({about.accuracy.low:.3f} to {about.accuracy.high:.3f})"
    markdown = (report / "report.md").read_text(encoding="utf-8")
    page = Page((report / "report.html").read_text(encoding="utf-8"))
    for text in (markdown, page.words):
        assert accuracy in text
        assert "they count as not covered" in text
        assert "only the first is right" in text
        assert "McNemar's test takes segments for independent" in text
    assert set(re.findall(r"\]\((.*?)\)", markdown)) == PICTURES
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    # A cell more or less would break a table.
    widths = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    starts = [i for i, row in enumerate(rows) if set(row) == {"|", "-"}]
    ends = [*(i - 1 for i in starts[1:]), len(rows)]
    for start, end in zip(starts, ends, strict=True):
        assert len(set(widths[start - 1 : end])) == 1


def test_the_page_needs_nothing_else(report: Path) -> None:
    source = (report / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == len(PICTURES)
    for value in sources:
        kind, _, data = str(value).partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) in [p.read_bytes() for p in report.glob("*.png")]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in source
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)
    assert page.tags.count("h1") == 1
    assert all(value for name, value in page.attributes if name == "alt")


def test_pictures_are_pictures_and_tell_figures_apart(report: Path) -> None:
    for name in PICTURES:
        pixels = np.asarray(Image.open(report / name).convert("L"), np.float64)
        assert min(pixels.shape) > 400
        assert pixels.std() > 10, f"{name} is empty"


def test_the_same_figures_give_the_same_bytes(tmp_path: Path) -> None:
    one, two = (
        {p.name: p.read_bytes() for p in write_report(hostile(), tmp_path / n)} for n in "ab"
    )
    assert one == two


def test_a_hostile_text_stays_text(tmp_path: Path) -> None:
    write_report(hostile(EVIL), tmp_path / "r")
    source = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    page = Page(source)
    assert "script" not in page.tags
    assert page.tags.count("img") == 1  # the confusion
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in page.words  # told, not done
    assert "\u202e" not in source
    assert "\x1b" not in source
    markdown = (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown
    assert re.findall(r"(?<!\\)!\[.*?\]\((.*?)\)", markdown) == ["sentiment-confusion.png"]
    assert not re.findall(r"(?<!\\)\]\(http", markdown)
    assert "http://" not in markdown  # which would become a link
    assert "x" * 301 not in markdown


def test_an_older_report_gives_way_and_nothing_else_does(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write_report(hostile(), folder)
    (folder / "emotion-confusion.png").write_bytes(b"of an older report")
    write_report(hostile("other.csv"), folder)
    assert not (folder / "emotion-confusion.png").exists()
    assert "other.csv" in (folder / "report.md").read_text(encoding="utf-8")
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"r holds 'thesis.tex'"):
        write_report(hostile(), folder)
    assert (folder / "thesis.tex").read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [folder]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file: give the name of a folder"):
        check_place(tmp_path / "file")
    with pytest.raises(UsageError, match=r"--report .*file/r: .*take another folder"):
        write_report(hostile(), tmp_path / "file" / "r")


def test_one_that_cannot_be_written_leaves_the_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    write_report(hostile(), folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    broken = hostile()
    object.__setattr__(broken, "notes", (float("nan"),))  # JSON has no such number
    with pytest.raises((ValueError, TypeError)):
        write_report(broken, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]
