"""Labels that somebody knows: read from Parquet and CSV, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bring.tables import rows, truth, write
from vsa_core.bring.predictions import read_predictions
from vsa_core.bring.truth import other_order, read_said
from vsa_core.errors import UsageError
from vsa_core.fusion.views import Views

NAMES = ["negative", "neutral", "positive"]


@pytest.fixture
def views(tmp_path: Path) -> Views:
    return read_predictions(write(tmp_path / "p.parquet", rows()), NAMES).views


def test_parquet_and_csv_say_the_same(views: Views, tmp_path: Path) -> None:
    parquet = truth(tmp_path / "t.parquet", names=NAMES)
    lines = [f'"s{i:03d}",{NAMES[i % 3]},why not' for i in range(59, -1, -1)]
    (tmp_path / "t.CSV").write_text("\n".join(["\ufeffsegment_id,label,why", *lines]))
    for path in (parquet, tmp_path / "t.CSV"):
        said = read_said(path, views)
        known = said.known
        assert said.notes == ()
        assert known.target == "label"
        assert known.rows.tolist() == list(range(60))
        assert known.labels.tolist() == [i % 3 for i in range(60)]


def test_a_truth_of_vsa_evaluate_will_do_and_capitals_make_no_difference(
    views: Views, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    said = "segment_id;emotion;sentiment\ns003;joy; Positive\ns001;;NEUTRAL\n"
    path.write_bytes(said.encode("utf-16"))
    known = read_said(path, views).known
    assert (known.rows.tolist(), known.labels.tolist()) == ([1, 3], [1, 2])


def test_another_order_of_the_classes_is_seen() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    said = np.where(rng.random(200) < 0.8, truth, rng.integers(0, 3, 200))
    assert other_order(truth, said, NAMES) is None
    turned = other_order(truth, np.array([2, 0, 1])[said], NAMES)
    assert turned is not None
    assert "if its probs are in the order neutral, positive, negative" in turned
    assert other_order(truth, rng.integers(0, 3, 200), NAMES) is None
    assert other_order(truth[:20], np.array([2, 0, 1])[said[:20]], NAMES) is None
    assert other_order(np.full(9, -1), np.zeros(9, int), NAMES) is None


def test_numbers_are_names_of_classes_too(tmp_path: Path) -> None:
    views = read_predictions(write(tmp_path / "p.parquet", rows())).views
    pq.write_table(pa.table({"segment_id": ["s001"], "label": [2]}), tmp_path / "t.parquet")
    known = read_said(tmp_path / "t.parquet", views).known
    assert (known.rows.tolist(), known.labels.tolist()) == ([1], [2])


def test_what_does_not_count_is_noted(views: Views, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("segment_id,label\ns003,positive\nx,neutral\ns001,\ns003,positive\ny,neutral\n")
    said = read_said(path, views)
    assert (said.known.rows.tolist(), said.known.labels.tolist()) == ([3], [2])
    assert said.elsewhere.tolist() == [1, 1]
    assert said.notes == (
        f"{path}: 1 row has no label: passed over",
        f"{path}: 2 of 4 segments are not among the predictions, 'x' for one",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "segment_id,label\ns001,great\n",
            "PATH: label 'great' of segment 's001' is none of the classes (negative, neutral, "
            "positive): correct it, or name the classes with --classes",
        ),
        (
            "segment_id,label\ns001,neutral\ns001,positive\n",
            "PATH: segment 's001' is neutral and positive: keep one label for it",
        ),
        (
            "segment_id,label\nx,neutral\ny,neutral\n",
            "PATH: none of its 2 segments is among the predictions, 'x' for one: give the labels "
            "of these segments",
        ),
        (
            "segment_id,label\ns001,\n",
            "PATH: no row has a label: write what each segment is",
        ),
        (
            "id,label\ns001,neutral\n",
            "PATH lacks the column segment_id: it needs segment_id and label; there are id, label",
        ),
        ("segment_id,label\n", "PATH has no rows: write one for each segment"),
    ],
)
def test_what_makes_no_sense_is_refused(
    views: Views, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_said(path, views)
    assert str(caught.value) == message.replace("PATH", str(path))


def test_files_that_do_not_read(views: Views, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"t\.csv is not there: give a file"):
        read_said(tmp_path / "t.csv", views)
    (tmp_path / "t.csv").write_text("segment_id,label\ns1,a,b\n")
    with pytest.raises(UsageError, match=r"t\.csv is no CSV that can be read: "):
        read_said(tmp_path / "t.csv", views)
    (tmp_path / "t.parquet").write_text("segment_id,label\n")
    with pytest.raises(UsageError, match=r"t\.parquet is not Parquet, or is torn"):
        read_said(tmp_path / "t.parquet", views)


@pytest.mark.parametrize(
    ("k", "names", "hint"),
    [
        (3, NAMES, "such as --classes negative,neutral,positive"),
        (3, ["sad", "glad", "mad"], "such as --classes glad,mad,sad"),
        (3, ["sad", "glad", "sad"], "name them in the order of probs with --classes"),
        (2, ["no", "yes"], "such as --classes no,yes"),
    ],
)
def test_names_for_numbered_classes_are_asked_for(
    tmp_path: Path, k: int, names: list[str], hint: str
) -> None:
    views = read_predictions(write(tmp_path / "p.parquet", rows(k=k))).views
    with pytest.raises(UsageError) as caught:
        read_said(truth(tmp_path / "t.parquet", k=k, names=names), views)
    assert str(caught.value) == (
        f"{tmp_path / 't.parquet'}: label '{names[0]}' of segment 's000' is none of the classes "
        f"({', '.join(map(str, range(k)))}): "
        + ("" if hint.startswith("name") else "name them in the order of probs with --classes, ")
        + hint
    )


def test_reviews_may_say_how_probable_they_were(views: Views, tmp_path: Path) -> None:
    lines = "s004,v4,0.25,positive\ns009,v3,1,\ns001,v1,1,neutral\n"
    (tmp_path / "r.csv").write_text(f"segment_id,video_id,inclusion,label\n{lines}")
    pq.write_table(
        pa.table(
            {
                "segment_id": ["s004", "s009", "s001"],
                "inclusion": pa.array([0.25, 1, 1], pa.float32()),
                "label": ["positive", None, "neutral"],
            }
        ),
        tmp_path / "r.parquet",
    )
    for name in ("r.csv", "r.parquet"):
        said = read_said(tmp_path / name, views)
        assert said.known.rows.tolist() == [1, 4]
        assert said.inclusion is not None
        assert said.inclusion.tolist() == [1, 0.25]
        assert len(said.notes) == 1
    truth(tmp_path / "t.parquet", names=NAMES)
    assert read_said(tmp_path / "t.parquet", views).inclusion is None


@pytest.mark.parametrize("said", ["0", "1.5", "", "often", "nan"])
def test_a_chance_that_is_none_is_refused(views: Views, tmp_path: Path, said: str) -> None:
    (tmp_path / "r.csv").write_text(f"segment_id,label,inclusion\ns004,positive,{said}\n")
    with pytest.raises(
        UsageError, match=r"r.csv: .*inclusion.* (take it out|all numbers|nan or inf)"
    ):
        read_said(tmp_path / "r.csv", views)
