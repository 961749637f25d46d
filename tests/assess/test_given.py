"""Predictions of files and stores, held against what is known of the same segments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from tests.assess.meld import Meld, made, predictions_file, truth_file, written
from tests.assess.test_reviewed import Labelled
from tests.small_s3 import small_s3
from tests.small_store import segment_id, small_store
from vsa_core.assess import Assessment, assess
from vsa_core.assess.given import predictions_of, read_known, read_predictions, video_of
from vsa_core.errors import StoreError, UsageError
from vsa_core.labels import SENTIMENTS
from vsa_core.schemas import table_from_rows


def assessed(predictions: Path | str, truth: Path | str, **more: object) -> Assessment:
    given = read_predictions(predictions)
    known, notes = read_known(truth, given)
    return assess(given, known, notes=notes, **more)  # type: ignore[arg-type]


class TestAFile:
    def test_rows_that_are_missing_are_not_covered(self, meld: Meld, tmp_path: Path) -> None:
        system = made(meld, skill=1.5, seed=1)
        rows = list(range(0, 2610, 3))
        path = predictions_file(tmp_path / "p.csv", meld, system, rows)
        found = assessed(path, truth_file(tmp_path / "t.csv", meld))
        assert found.notes == (
            f"1740 of 2610 segments in {tmp_path / 't.csv'} are not in {path}: they count as not "
            "covered",
        )
        for target, about in found.targets.items():
            said, truth = system.said[target][rows], meld.truth[target][rows]
            kept = said >= 0
            assert (about.n, about.videos) == (2610, 280)
            assert about.coverage.value == pytest.approx(kept.sum() / 2610)
            assert about.accuracy.value == pytest.approx((said == truth)[kept].mean())
            assert sum(row[-1] for row in about.confusion) == 2610 - kept.sum()

    def test_rows_in_another_order_are_matched_and_strangers_passed_over(
        self, tmp_path: Path
    ) -> None:
        truth = written(
            tmp_path / "t.csv",
            ["segment_id", "sentiment"],
            [("v-0-9", "positive"), ("v-9-19", "negative"), ("w-0-5", "neutral")],
        )
        said = written(
            tmp_path / "p.csv",
            ["sentiment", "segment_id"],
            [("neutral", "w-0-5"), ("positive", "x-0-1"), ("", "v-9-19"), ("positive", "v-0-9")],
        )
        found = assessed(said, truth)
        about = found.targets["sentiment"]
        assert (about.coverage.value, about.accuracy.value) == (pytest.approx(2 / 3), 1.0)
        assert (about.videos, about.ece, about.by_length) == (2, None, ())
        assert found.notes == (
            f"1 of 4 segments in {said} are not in {truth}: they are passed over",
            f"{truth} says no segment's emotion",
        )

    def test_parquet_of_other_types_gives_the_same_as_csv(self, tmp_path: Path) -> None:
        table = pa.table(
            {
                "segment_id": ["a", "b", "c"],
                "video_id": pa.array([1, 1, 2], pa.int64()),
                "sentiment": pa.array(["positive", None, "negative"]).dictionary_encode(),
                "confidence": pa.array([0.5, None, 0.75], pa.float32()),
                "start_ms": pa.array([0, 1000, 0], pa.int32()),
                "end_ms": pa.array([1000, 3000, 4000], pa.int64()),
                "text": ["one, two", "three", None],
                "face_vote": ["positive", None, None],
                "other": [[1], [2], [3]],
            }
        )
        pq.write_table(table, tmp_path / "p.parquet")
        rows = [
            ("a", 1, "positive", 0.5, 0, 1000, "one, two", "positive"),
            ("b", 1, "", "", 1000, 3000, "three", ""),
            ("c", 2, "negative", " 0.75 ", 0, 4000, "", ""),
        ]
        written(tmp_path / "p.csv", [c for c in table.column_names if c != "other"], rows)
        one, two = (read_predictions(tmp_path / f"p.{kind}") for kind in ("parquet", "csv"))
        assert one.table.equals(two.table)
        assert one.targets == two.targets == ("sentiment",)
        assert one.table["end_ms"].to_pylist() == [1000, 3000, 4000]

    def test_the_worst_is_the_most_confident_wrong_one_with_all_that_is_known(
        self, tmp_path: Path
    ) -> None:
        columns = ["segment_id", "sentiment", "confidence", "start_ms", "end_ms", "text",
                   "text_vote"]  # fmt: skip
        rows = [
            ("v-0-1", "positive", 0.6, 0, 1000, "so\nso", "positive"),
            ("v-1-2", "positive", 0.9, 1000, 2500, 'he said "no"', ""),
            ("v-2-3", "negative", 0.99, 2000, 3000, "right", "negative"),
        ]
        truth = [(row[0], "negative") for row in rows]
        found = assessed(
            written(tmp_path / "p.csv", columns, rows),
            written(tmp_path / "t.csv", ["segment_id", "sentiment"], truth),
        )
        worst, other = found.mistakes["sentiment"]
        assert (worst.segment_id, worst.video_id, worst.text) == ("v-1-2", "v", 'he said "no"')
        assert (worst.start_ms, worst.end_ms, worst.confidence) == (1000, 2500, 0.9)
        assert (worst.truth, worst.said) == ("negative", "positive")
        assert other.text == "so\nso"
        assert other.votes == {"text": "positive", "face": None, "audio": None}
        assert [p.name for p in found.targets["sentiment"].by_length][-1] == "1.5 s"

    def test_decided_without_a_confidence_counts_but_is_not_calibrated(
        self, tmp_path: Path
    ) -> None:
        columns = ["segment_id", "sentiment", "confidence"]
        rows = [("a", "positive", 0.8), ("b", "positive", ""), ("c", "negative", 0.7)]
        path = written(tmp_path / "p.csv", columns, rows)
        truth = [(i, "positive") for i in "abc"]
        found = assessed(path, written(tmp_path / "t.csv", columns[:2], truth))
        about = found.targets["sentiment"]
        assert about.accuracy.value == pytest.approx(2 / 3)
        assert about.unsure == 1
        assert about.ece == pytest.approx((0.2 + 0.7) / 2)
        assert about.kept[0].accuracy is None
        assert found.notes[0] == (
            f"1 sentiment labels of {path} have no confidence: calibration and risk by coverage "
            "are without them"
        )

    def test_lengths_are_words_where_there_are_no_times(self, tmp_path: Path) -> None:
        rows = [("a", "positive", "one"), ("b", "positive", "one two three")]
        path = written(tmp_path / "p.csv", ["segment_id", "sentiment", "text"], rows)
        truth = written(
            tmp_path / "t.csv", ["segment_id", "sentiment"], [(i, "positive") for i in "ab"]
        )
        lengths = assessed(path, truth).targets["sentiment"].by_length
        assert [p.name for p in lengths] == ["1 words", "3 words"]

    def test_against_others_every_known_row_counts(self, meld: Meld, tmp_path: Path) -> None:
        first, second = made(meld, skill=2.0, seed=1), made(meld, skill=1.0, seed=2)
        paths = [
            predictions_file(tmp_path / name, meld, system, range(start, 2610))
            for name, system, start in (("a.csv", first, 100), ("b.csv", second, 0))
        ]
        found = assessed(
            paths[0],
            truth_file(tmp_path / "t.csv", meld),
            against=read_predictions(paths[1]),
        )
        assert list(found.targets) == list(found.others) == list(found.comparisons)
        every = found.comparisons["emotion"].all
        right = first.said["emotion"] == meld.truth["emotion"]
        assert every.n == 2610
        assert every.accuracy[0] == pytest.approx(right[100:].sum() / 2610)


def test_the_shipped_truth_is_read_by_video_and_time(sample_dir: Path, tmp_path: Path) -> None:
    shipped = sample_dir / "truth.csv"
    lines = pacsv.read_csv(shipped)
    said = {
        "segment_id": [str(n) for n in range(lines.num_rows)],
        "video_id": lines["video"],
        "start_ms": pc.add(lines["start_ms"], 300),  # half a word late
        "end_ms": lines["end_ms"],
        "sentiment": lines["sentiment"],
        "emotion": lines["emotion"],
    }
    pq.write_table(pa.table(said).slice(3), tmp_path / "p.parquet")
    for about in assessed(tmp_path / "p.parquet", shipped).targets.values():
        assert (about.n, about.videos) == (lines.num_rows, 15)
        assert about.coverage.value == pytest.approx(1 - 3 / lines.num_rows)
        assert about.accuracy.value == 1


def test_a_segment_must_cover_half_of_what_is_known(tmp_path: Path) -> None:
    columns = ["segment_id", "video_id", "start_ms", "end_ms", "sentiment"]
    rows = [("a", "v", 0, 1000, "positive"), ("b", "v", 1000, 1900, "negative")]
    path = written(tmp_path / "p.csv", columns, rows)
    places = [("v", 600, 1500, "negative"), ("v", 0, 2100, "neutral"), ("v", 1400, 2500, "neutral")]
    truth = written(tmp_path / "t.csv", ["video", *columns[2:]], places)
    about = assessed(path, truth).targets["sentiment"]
    assert about.coverage.value == pytest.approx(1 / 3)
    assert about.accuracy.value == 1


def test_what_a_spreadsheet_made_of_it_is_the_same(shared: Path) -> None:
    found = shared / "faults" / "predictions"
    for truth in ("t_control.csv", "t_utf16.csv", "label_utf16.csv", "truth.csv"):
        about = assessed(found / "t_utf16.csv", found / truth).targets["sentiment"]
        assert (about.n, about.coverage.value, about.accuracy.value) == (300, 1, 1)


@pytest.mark.parametrize(
    ("names", "noted"), [("0012", True), (["glad"] * 4, False), ([""] * 4, False)]
)
def test_classes_that_are_named_apart_are_said(
    tmp_path: Path, names: Sequence[str], noted: bool
) -> None:
    columns = ["segment_id", "label"]
    path = written(tmp_path / "p.csv", columns, list(zip("abcd", names, strict=True)))
    truth = [(i, name) for i, name in zip("abcd", ("glad", "glad", "calm", "sad"), strict=True)]
    found = assessed(path, written(tmp_path / "t.csv", columns, truth))
    assert [note for note in found.notes if "no class is both" in note] == [
        f"no class is both in {path} (0, 1, 2) and in {tmp_path / 't.csv'} (calm, glad, sad): "
        "if they mean the same, name them alike, as `vsa label --classes` does"
    ] * noted


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "is not there"),
        ("", "no CSV that can be read"),
        ("segment_id,sentiment\na,b,c\n", "no CSV that can be read"),
        ("id,sentiment\na,positive\n", "lacks the column segment_id"),
        ("segment_id,mood\na,positive\n", "lacks the column sentiment or emotion"),
        ("segment_id,label\na,glad\n", "has no column sentiment: it is not assessed"),
        ("segment_id,sentiment,sentiment\na,positive,neutral\n", "two columns sentiment"),
        ("segment_id,sentiment\n", "has no rows"),
        ("segment_id,sentiment\n,positive\n", "1 rows have no segment_id"),
        ("segment_id,sentiment\na,positive\na,\n", "'a' more than once"),
        ("segment_id,sentiment\na,happy\n", "'happy' is no sentiment: write one of negative"),
        ("segment_id,emotion\na,positive\n", "'positive' is no emotion"),
        ("segment_id,sentiment,confidence\na,positive,high\n", "confidence is not all numbers"),
        ("segment_id,sentiment,confidence\na,positive,1.2\n", "confidence 1.2 is no probability"),
        ("segment_id,sentiment,confidence\na,positive,nan\n", "confidence has nan or inf"),
        ("segment_id,sentiment,start_ms\na,positive,0:01\n", "start_ms is not all numbers"),
        ("segment_id,sentiment\nz,positive\n", "none of the 1 segments in"),
        ("segment_id,emotion\na,joy\n", "has no column sentiment: it is not assessed"),
    ],
)
def test_what_are_no_predictions_is_refused_in_one_line(
    tmp_path: Path, text: str | None, complaint: str
) -> None:
    path = tmp_path / "p.csv"
    if text is not None:
        path.write_text(text)
    truth = written(tmp_path / "t.csv", ["segment_id", "sentiment"], [("a", "positive")])
    with pytest.raises(UsageError, match=complaint) as refused:
        assessed(path, truth, targets=("sentiment",))
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_parquet_and_no_store_either(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(b"no")
    with pytest.raises(UsageError, match="not Parquet"):
        read_predictions(tmp_path / "p.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no store at"):
        read_predictions(tmp_path / "empty")


def test_a_truth_without_ids_is_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"segment_id": ["a", None], "sentiment": ["positive"] * 2}), tmp_path / "t.parquet"
    )
    path = written(tmp_path / "p.csv", ["segment_id", "sentiment"], [("a", "positive")])
    with pytest.raises(UsageError, match="1 rows have no segment_id"):
        assessed(path, tmp_path / "t.parquet")


def test_the_video_of_an_id() -> None:
    ids = ["v01-0-3000", "dQw-w9-0-3000", "meld-test-dia3-utt12", "alone", "-x"]
    expected = ["v01", "dQw-w9", "meld-test-dia3", "alone", "-x"]
    assert video_of(pa.array(ids)).to_pylist() == expected


def test_columns_in_memory(meld: Meld) -> None:
    table = pa.table({"segment_id": meld.ids[:2], "sentiment": ["positive", None]})
    given = predictions_of(table, "a model")
    assert given.table["video_id"].to_pylist() == meld.dialogues[:2]
    with pytest.raises(UsageError, match=r"a model: column text is list<.*: make it a string"):
        predictions_of(table.append_column("text", [[["a"], ["b"]]]), "a model")


class TestAStore:
    def test_current_labels_and_one_that_is_missing(self, tmp_path: Path) -> None:
        small_store(tmp_path / "store")
        rows = [
            (segment_id("v01", 0), "positive"),
            (segment_id("v01", 4_000), "negative"),
            (segment_id("v01", 65_000), "negative"),
            (segment_id("v03", 0), "neutral"),
            ("v99-0-3000", "neutral"),
        ]
        truth = written(tmp_path / "t.csv", ["segment_id", "sentiment"], rows)
        about = assessed(tmp_path / "store", truth).targets["sentiment"]
        assert about.accuracy.value == pytest.approx(2 / 3)
        # Confidences .8 and .75 of what is right, .6 of what is not.
        assert about.ece == pytest.approx((0.2 + 0.6 + 0.25) / 3)
        assert (about.n, about.coverage.value) == (5, 0.6)
        [mistake] = assessed(tmp_path / "store", truth).mistakes["sentiment"]
        assert (mistake.text, mistake.start_ms, mistake.end_ms) == ("it is a phone", 4_000, 7_000)
        assert mistake.votes == {"text": "neutral", "face": "positive", "audio": None}
        assert mistake.confidence == pytest.approx(0.6)

    def test_a_name_that_two_videos_have_is_nobodys(self, tmp_path: Path) -> None:
        store = small_store(tmp_path / "store")
        columns = ["video", "start_ms", "end_ms", "sentiment"]
        rows = [("Video 1", 0, 3000, "positive"), ("v02.mp4", 1000, 4000, "negative")]
        truth = written(tmp_path / "t.csv", columns, rows)
        about = assessed(tmp_path / "store", truth).targets["sentiment"]
        assert (about.coverage.value, about.accuracy.value) == (1, 1)
        other = store.read(store.find("videos", "v01")).to_pylist()[0] | {"video_id": "v05"}
        store.commit("videos", "v05", table_from_rows("videos", [other]), "f")
        assert assessed(tmp_path / "store", truth).targets["sentiment"].coverage.value == 0.5

    def test_against_the_reviews_of_the_store_and_of_another(self, tmp_path: Path) -> None:
        small_store(tmp_path / "store")
        found = assessed(tmp_path / "store", tmp_path / "store")
        # The model said neutral and joy, people negative and fear.
        for target in ("sentiment", "emotion"):
            about = found.targets[target]
            assert (about.n, about.coverage.value, about.accuracy.value) == (1, 1, 0)
        path = written(
            tmp_path / "p.csv",
            ["segment_id", "sentiment"],
            [(segment_id("v01", 4_000), "negative")],
        )
        assert assessed(path, tmp_path / "store").targets["sentiment"].accuracy.value == 1

    def test_in_a_bucket(self) -> None:
        with small_s3() as bucket:
            url = bucket.url("labelled")
            small_store(url)  # type: ignore[arg-type]
            found = assessed(url, url)
            assert found.targets["sentiment"].n == 1
            assert found.truth == "reviews"
            with pytest.raises(StoreError, match="no store at"):
                read_predictions(bucket.url("empty"))

    def test_reviews_that_the_labels_learned_from_do_not_count(self, tmp_path: Path) -> None:
        labelled = Labelled(tmp_path / "store")
        before, after = list(range(0, 200, 4)), list(range(1, 200, 4))
        labelled.review(before, labelled.noon - timedelta(hours=1), "before")
        labelled.run("r1")
        with pytest.raises(UsageError, match=r"no other reviews: 50 reviews .* count not"):
            assessed(tmp_path / "store", tmp_path / "store")
        labelled.review(after, labelled.noon + timedelta(hours=1), "after")
        found = assessed(tmp_path / "store", tmp_path / "store")
        assert found.targets["sentiment"].n == len(after)
        assert found.notes[0] == "50 reviews that the labels may have learned from count not"
        # What the labels learned from is a test of others.
        names = [str(s) for s in SENTIMENTS]
        others = predictions_of(
            pa.table(
                {
                    "segment_id": labelled.made.segment_ids,
                    "sentiment": [names[c] for c in np.asarray(labelled.made.truth)],
                }
            ),
            "the truth",
        )
        known, notes = read_known(tmp_path / "store", others)
        assert assess(others, known).targets["sentiment"].n == len(before) + len(after)
        assert notes == ()
