"""The table of labels: what stands in it, in which order, and that it is all or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.bring.tables import rows, write
from vsa_core import __version__
from vsa_core.bring import labels
from vsa_core.bring.labels import column_names, labels_of, write_labels
from vsa_core.bring.predictions import Predictions, read_predictions
from vsa_core.errors import UsageError
from vsa_core.fusion.strategies import Fused, Known, fuse

NAMES = ["negative", "neutral", "positive"]


@pytest.fixture
def read(tmp_path: Path) -> Predictions:
    table = rows()
    table[1] |= {"status": "absent", "probs": None, "embedding": None}
    table[2] |= {"probs": [0.4, 0.3, 0.3]}
    for i in (4, 5):
        table[i] |= {"status": "absent", "probs": None, "embedding": None}
    order = np.random.default_rng(5).permutation(len(table))
    return read_predictions(write(tmp_path / "p.parquet", [table[i] for i in order]), NAMES)


def labelled(read: Predictions, path: Path, known: Known | None = None, **wanted: Any) -> Fused:
    fused = fuse(read.views, "late-mean")
    decided = labels_of(read.views, fused, known=known, **wanted)
    write_labels(path, read.views, fused, decided, order=read.order, settings={"seed": 0})
    return fused


def test_a_row_per_segment_in_the_order_of_the_predictions(
    read: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "_BATCH_ROWS", 7)
    fused = labelled(read, tmp_path / "l.parquet")
    table = pq.read_table(tmp_path / "l.parquet")
    found = table.to_pylist()
    given = pq.read_table(tmp_path / "p.parquet").to_pylist()
    assert [r["segment_id"] for r in found] == list(dict.fromkeys(r["segment_id"] for r in given))
    said = {(r["segment_id"], r["modality"]): r for r in given}
    mean = fused.opinion.probs["label"]
    for row in found:
        text, face = (said[row["segment_id"], m] for m in ("text", "face"))
        number = int(row["segment_id"][1:])
        assert row["video_id"] == text["video_id"]
        for modality, one in (("text", text), ("face", face)):
            top = None if one["probs"] is None else max(one["probs"])
            vote = None if top is None or top < 0.5 else NAMES[one["probs"].index(top)]
            assert row[f"{modality}_vote"] == vote
        if text["probs"] is None:
            assert row["label"] is row["probs"] is row["confidence"] is None
            assert (row["agreement"], row["origin"]) == ("absent", "none")
            assert row["text_attention"] is row["face_attention"] is None
            continue
        assert row["probs"] == pytest.approx(mean[number])
        assert row["label"] == NAMES[int(np.argmax(mean[number]))]
        assert row["confidence"] == pytest.approx(mean[number].max())
        if face["probs"] is None:
            assert (row["agreement"], row["origin"]) == ("single", "single")
            assert (row["text_attention"], row["face_attention"]) == (1, None)
        elif None in (row["text_vote"], row["face_vote"]):
            assert (row["agreement"], row["origin"]) == ("uncertain", "fusion")
        else:
            alike = row["text_vote"] == row["face_vote"]
            assert row["agreement"] == ("agree" if alike else "disagree")
            assert row["origin"] == ("consensus" if alike else "fusion")
            assert row["text_attention"] == row["face_attention"] == 0.5
    assert {row["agreement"] for row in found} == {
        "agree", "disagree", "single", "uncertain", "absent",
    }  # fmt: skip


def test_the_file_says_how_it_was_made(read: Predictions, tmp_path: Path) -> None:
    labelled(read, tmp_path / "l.parquet")
    schema = pq.read_schema(tmp_path / "l.parquet")
    facts = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert json.loads(facts["vsa.classes"]) == NAMES
    assert facts["vsa.strategy"] == "late-mean"
    assert facts["vsa.version"] == __version__
    assert json.loads(facts["vsa.settings"]) == {"seed": 0}
    assert schema.names == [
        "segment_id", "video_id", "label", "probs", "confidence", "agreement", "origin",
        "text_vote", "face_vote", "text_attention", "face_attention",
    ]  # fmt: skip


def test_a_label_less_probable_than_asked_for_is_not_given(
    read: Predictions, tmp_path: Path
) -> None:
    fused = labelled(read, tmp_path / "l.parquet", min_confidence=0.7)
    top = np.nan_to_num(fused.opinion.probs["label"]).max(axis=1)
    found = {r["segment_id"]: r for r in pq.read_table(tmp_path / "l.parquet").to_pylist()}
    given = [found[f"s{i:03d}"]["label"] is not None for i in range(60)]
    assert given == (top >= 0.7).tolist()
    assert 0 < sum(given) < 59
    assert found["s001"]["agreement"] == "uncertain"


def test_what_a_human_said_stands(read: Predictions, tmp_path: Path) -> None:
    known = Known("label", np.array([2, 3]), np.array([2, 1]))
    labelled(read, tmp_path / "plain.parquet")
    fused = labelled(read, tmp_path / "l.parquet", known, min_confidence=0.9)
    found = {r["segment_id"]: r for r in pq.read_table(tmp_path / "l.parquet").to_pylist()}
    for segment, label in (("s002", "positive"), ("s003", "neutral")):
        assert found[segment]["label"] == label
        assert found[segment]["origin"] == "human"
        assert found[segment]["confidence"] is None
    assert found["s002"]["probs"] is None  # no model saw it
    assert found["s003"]["probs"] == pytest.approx(fused.opinion.probs["label"][3])
    assert sum(row["origin"] == "human" for row in found.values()) == 2


@pytest.mark.parametrize(
    ("modalities", "columns"),
    [
        (("text", "face"), ("text", "face")),
        (("a-b", "a b", "A_B"), ("a_b", "a_b_2", "A_B_3")),
        (("3d", "größe", "x.y"), ("_3d", "größe", "x_y")),
        (("a_2", "a-2", "a"), ("a_2", "a_2_2", "a")),
    ],
)
def test_modalities_as_columns(modalities: tuple[str, ...], columns: tuple[str, ...]) -> None:
    assert column_names(modalities) == columns


def test_a_file_is_replaced_whole_or_not_at_all(
    read: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out" / "l.parquet"
    path.parent.mkdir()
    path.write_text("old")
    fused = fuse(read.views, "late-mean")
    decided = labels_of(read.views, fused)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vsa_core.whole_files.os.fsync", full)
        with pytest.raises(UsageError) as caught:
            write_labels(path, read.views, fused, decided)
    assert str(caught.value) == f"{path} cannot be written: No space left on device"
    assert path.read_text() == "old"
    write_labels(path, read.views, fused, decided)
    assert pq.read_table(path)["segment_id"].to_pylist() == [f"s{i:03d}" for i in range(60)]
    assert list(path.parent.iterdir()) == [path]
