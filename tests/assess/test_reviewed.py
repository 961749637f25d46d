"""Labels against reviews that they did not learn from, and against files of truths."""

from __future__ import annotations

import json
import runpy
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.evaluate import evaluated
from tests.conftest import REPO
from tests.fusion.made import BACKENDS, Made, planted, put, settings
from tests.small_store import SEGMENTS, run_row, segment_id, small_store
from vsa_core.assess import Assessment, assess_files
from vsa_core.cli import main
from vsa_core.errors import UsageError
from vsa_core.fusion import FusionModel
from vsa_core.fusion.resolve import resolve
from vsa_core.fusion.train import train_fusion
from vsa_core.labels import SENTIMENTS
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store
from vsa_core.truths import read_truth

NAMES = [str(s) for s in SENTIMENTS]


def said(store: Store, run_id: str) -> dict[str, str | None]:
    """The sentiment of each segment that a run's labels give."""
    return {
        row["segment_id"]: row["sentiment"]
        for table in store.scan("labels", part=run_id)
        for row in table.to_pylist()
    }


def written(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("segment_id,sentiment\n" + "".join(f"{i},{s}\n" for i, s in rows))
    return path


class TestAFile:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return small_store(tmp_path / "store")

    def test_figures_worked_out_by_hand(self, store: Store, tmp_path: Path) -> None:
        # Run r2 says positive, neutral, negative | negative | nothing; the last one it never saw.
        truth = ["positive", "negative", "negative", "negative", "neutral", "neutral"]
        ids = [segment_id(v, span[0]) for v, spans in SEGMENTS.items() for span in spans]
        rows = list(zip([*ids, "v99-0-3000"], truth, strict=True))
        found = assess_files(store.location, written(tmp_path / "t.csv", rows))
        assert list(found.targets) == ["sentiment"]
        about = found.targets["sentiment"]
        assert (about.n, about.videos, about.coverage.value) == (6, 4, pytest.approx(4 / 6))
        assert about.accuracy.value == 0.75
        # positive 1; negative 2 of 3 found: 4/5; neutral never right.
        assert about.macro_f1.value == pytest.approx((1 + 0.8 + 0) / 3)
        assert about.weighted_f1.value == pytest.approx((1 * 1 + 3 * 0.8) / 4)
        assert about.confusion == ((2, 1, 0, 0), (0, 0, 0, 2), (0, 0, 1, 0))
        origins = {part.name: (part.n, part.accuracy) for part in about.by_kind["origin"]}
        assert origins == {
            "-": (1, None),
            "consensus": (1, 1),
            "fusion": (2, 0.5),
            "none": (1, None),
            "single": (1, 1),
        }
        assert {p.name: p.n for p in about.by_kind["channel_id"]} == {"-": 2, "c1": 4}
        for figure in (about.accuracy, about.macro_f1, about.weighted_f1):
            assert 0 <= figure.low <= figure.value <= figure.high <= 1  # type: ignore[operator]

    def test_the_flow_the_command_and_the_demo_give_the_same_figures(
        self, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        truth = tmp_path / "truth.csv"
        truth.write_text(
            "video,index,start_ms,end_ms,sentiment,emotion\n"
            "v01,0,100,2900,positive,joy\n"  # most of it lies in one segment
            "v01,1,4000,7000,negative,\n"
            "v01,2,30000,33000,negative,joy\n"  # where nothing was heard
            "v02,0,1000,4000,negative,joy\n"
            "v09,0,0,3000,neutral,neutral\n"  # a video that is not there
        )
        assert main(["evaluate", store.location, str(truth), "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        flow, shown = evaluated.fn(store.location, str(truth), None)
        assert said == flow == json.loads(json.dumps(flow, allow_nan=False))
        assert [row["coverage"].split()[0] for row in shown] == ["0.600", "0.500"]
        demo = runpy.run_path(str(REPO / "scripts" / "score_sample.py"))
        by_demo = demo["scores"](store, truth)["final labels"]
        for about in (flow["targets"]["sentiment"], asdict(by_demo)):
            assert about["n"] == 5
            assert about["coverage"]["value"] == 0.6
            assert about["accuracy"]["value"] == pytest.approx(2 / 3)
        assert flow["notes"][0].startswith("2 of 5 segments in")

    def test_the_model_is_scored_not_what_a_review_made_of_it(
        self, store: Store, tmp_path: Path
    ) -> None:
        reviewed = segment_id("v01", 4_000)  # the model says neutral, people negative
        found = assess_files(store.location, written(tmp_path / "t.csv", [(reviewed, "negative")]))
        assert found.targets["sentiment"].accuracy.value == 0

    def test_one_run(self, store: Store, tmp_path: Path) -> None:
        first = segment_id("v01", 0)
        path = written(tmp_path / "t.csv", [(first, "positive")])
        scores = {
            run: assess_files(store.location, path, run_id=run).targets["sentiment"]
            for run in ("r1", "r2")
        }
        assert [s.accuracy.value for s in scores.values()] == [0, 1]
        for run in ("r3", "r9"):  # one that did not finish, and none
            with pytest.raises(UsageError, match=f"no finished run '{run}'"):
                assess_files(store.location, path, run_id=run)

    def test_parquet_with_both_targets_and_gaps(self, store: Store, tmp_path: Path) -> None:
        ids = [segment_id("v01", 0), segment_id("v01", 4_000), segment_id("v02", 1_000), "x-0-1"]
        table = pa.table(
            {
                "segment_id": ids,
                "emotion": ["joy", None, "anger", "joy"],
                "sentiment": ["positive", "neutral", None, None],
                "other": [1, 2, 3, 4],
            }
        )
        pq.write_table(table, tmp_path / "t.parquet")
        found = assess_files(store.location, tmp_path / "t.parquet")
        assert found.notes[0].startswith(f"1 of 4 segments in {tmp_path / 't.parquet'} are not in")
        assert found.targets["sentiment"].n == 2
        emotion = found.targets["emotion"]
        assert (emotion.n, emotion.accuracy.value) == (3, 0.5)
        assert emotion.coverage.value == pytest.approx(2 / 3)
        assert emotion.ece == pytest.approx(0.5)  # by the emotion's own confidence, which is 1

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("segment,sentiment\na,positive\n", "lacks the column segment_id"),
            ("segment_id,mood\na,positive\n", "lacks the column sentiment or emotion"),
            ("video,start_ms,end_ms,emotion\na,1,,joy\n", "1 rows lack their video, start_ms or"),
            ("segment_id,sentiment\n", "has no rows"),
            ("", "no CSV that can be read: it is empty"),
            ("segment_id,sentiment\na,happy\n", "'happy' is no sentiment: write one of negative"),
            ("segment_id,emotion\na,positive\n", "'positive' is no emotion"),
            ("segment_id,sentiment\na,positive\na,negative\n", "'a' more than once"),
            ("segment_id,sentiment,sentiment\na,positive,neutral\n", "two columns sentiment"),
            ("segment_id,sentiment\na,positive\n", "none of the 1 segments in"),
            ("segment_id,sentiment\nv01-0-3000,\n", "says no segment's sentiment"),
            ("segment_id,sentiment\na,b,c\n", "no CSV that can be read"),
            (None, "is not there"),
        ],
    )
    def test_what_is_no_truth_is_refused(
        self, store: Store, tmp_path: Path, text: str | None, complaint: str
    ) -> None:
        path = tmp_path / "t.csv"
        if text is not None:
            path.write_text(text)
        with pytest.raises(UsageError, match=complaint) as refused:
            assess_files(store.location, path)
        assert str(path) in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_no_parquet_either(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "t.parquet").write_bytes(b"no")
        with pytest.raises(UsageError, match="not Parquet"):
            assess_files(store.location, tmp_path / "t.parquet")


class Labelled:
    """A store labelled by a run that finished at noon of 5 January."""

    noon = datetime(2026, 1, 5, 12, tzinfo=UTC)

    def __init__(self, root: Path) -> None:
        self.made: Made = planted(200, 5)
        self.store = put(root, self.made)

    def review(self, rows: list[int], at: datetime, name: str) -> None:
        given = [
            {
                "review_id": f"{name}-{i}",
                "video_id": self.made.videos[i],
                "segment_id": self.made.segment_ids[i],
                "sentiment": NAMES[self.made.truth[i]],
                "emotion": None,
                "reviewer": "a test",
                "reviewed_at": at,
                "reason": None,
            }
            for i in rows
        ]
        self.store.commit("reviews", name, table_from_rows("reviews", given), name)

    def run(self, name: str, **changed: Any) -> FusionModel:
        model = train_fusion(self.store, self.made.video_ids, BACKENDS, settings(**changed))
        given = settings(**changed)
        resolve(self.store, name, 0, self.made.video_ids, BACKENDS, model, given)
        row = run_row(
            name,
            5,
            model_id=model.model_id,
            model_card=f"models/{model.model_id}/card.json" if model.card else None,
        )
        self.store.commit("runs", name, table_from_rows("runs", [row]), name)
        return model


def by_reviews(labelled: Labelled, run_id: str | None = None) -> Assessment:
    place = labelled.store.location
    return assess_files(place, place, run_id=run_id)


class TestReviews:
    @pytest.fixture
    def labelled(self, tmp_path: Path) -> Labelled:
        return Labelled(tmp_path / "store")

    def test_only_those_that_the_labels_did_not_learn_from(self, labelled: Labelled) -> None:
        before, after = list(range(0, 200, 4)), list(range(1, 200, 4))
        labelled.review(before, labelled.noon - timedelta(hours=1), "before")
        model = labelled.run("r1")
        assert model.card is not None
        assert model.card["data"]["reviewed"] == len(before)
        labelled.review(after, labelled.noon + timedelta(hours=1), "after")
        # A second look at what was learned from makes it no test.
        labelled.review(before[:5], labelled.noon + timedelta(hours=2), "again")
        found = by_reviews(labelled)
        about = found.targets["sentiment"]
        assert about.n == len(after)
        assert found.notes[0] == (
            f"{len(before)} reviews that the labels may have learned from count not"
        )
        labels = said(labelled.store, "r1")
        right = [
            labels[labelled.made.segment_ids[i]] == NAMES[labelled.made.truth[i]] for i in after
        ]
        assert about.accuracy.value == pytest.approx(np.mean(right))
        assert about.accuracy.low < about.accuracy.value < about.accuracy.high  # type: ignore[operator]
        assert found.truth == "reviews"

    def test_all_where_the_model_learned_from_none(self, labelled: Labelled) -> None:
        model = labelled.run("r1")
        assert model.card is not None
        labelled.review([0, 50, 100], labelled.noon - timedelta(hours=1), "before")
        assert by_reviews(labelled).targets["sentiment"].n == 3

    def test_all_where_the_strategy_learns_nothing(self, labelled: Labelled) -> None:
        labelled.review([0, 50, 100], labelled.noon - timedelta(hours=1), "before")
        labelled.run("r1", strategy="late-mean")
        assert by_reviews(labelled).targets["sentiment"].n == 3

    def test_none_of_a_model_whose_card_is_gone(self, labelled: Labelled) -> None:
        labelled.review([0, 50, 100], labelled.noon - timedelta(hours=1), "before")
        model = labelled.run("r1")
        labelled.store.remove_folder("models", model.model_id)
        with pytest.raises(UsageError, match="3 reviews that the labels may have learned from"):
            by_reviews(labelled, "r1")

    def test_without_a_review(self, labelled: Labelled) -> None:
        labelled.run("r1")
        with pytest.raises(UsageError, match="has no reviews: give a file"):
            by_reviews(labelled)


def test_a_store_without_a_run(tmp_path: Path) -> None:
    made = planted(20, 2)
    store = put(tmp_path / "store", made)
    path = written(tmp_path / "t.csv", [(made.segment_ids[0], "positive")])
    with pytest.raises(UsageError, match="has no labels of a finished run"):
        assess_files(store.location, path)


def test_what_is_said_beside_a_truth_may_go_over_lines(tmp_path: Path) -> None:
    # Larger than one of the blocks that Arrow cuts a CSV into.
    rows = [f'v-{n}-0,"one line,\nanother ""{"x" * 400}""",positive\n' for n in range(4_000)]
    path = tmp_path / "truth.csv"
    path.write_text("segment_id,text,sentiment\n" + "".join(rows))
    assert len(read_truth(path).ids) == 4_000
