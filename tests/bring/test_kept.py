"""A model kept in a folder: the same labels again, new ones, drift, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.bring.tables import Row, rows, write
from vsa_core import __version__, config
from vsa_core.bring.kept import Kept, check_free, keep, read_kept
from vsa_core.bring.labels import labels_of
from vsa_core.bring.predictions import read_predictions
from vsa_core.errors import StoreError, UsageError
from vsa_core.fusion.strategies import Fused, Known, fuse
from vsa_core.fusion.views import Views

NAMES = ("calm", "angry", "glad")
QUICK = config.Fusion(max_epochs=4, folds=2)


def table(n: int = 300, seed: int = 0, prefix: str = "", shift: float = 0.0) -> list[Row]:
    """Videos of 30 segments of all classes; embeddings moved by `shift` standard deviations."""
    made = rows(n, seed=seed)
    for row in made:
        row["video_id"] = f"{prefix}v{int(row['segment_id'][1:]) // 30}"
        row["segment_id"] = prefix + row["segment_id"]
    for modality in ("text", "face"):
        ours = [row for row in made if row["modality"] == modality]
        x = np.array([row["embedding"] for row in ours])
        for row, vector in zip(ours, x + shift * x.std(axis=0), strict=True):
            row["embedding"] = vector.tolist()
    return made


def views_of(tmp_path: Path, made: list[Row], classes: tuple[str, ...] = NAMES) -> Views:
    return read_predictions(write(tmp_path / "some.parquet", made), classes).views


def kept_of(folder: Path, views: Views, strategy: str = "crossview") -> tuple[Fused, Kept]:
    fused = fuse(views, strategy, settings=QUICK)
    keep(folder, views, fused, settings={"seed": 0})
    return fused, read_kept(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    kept_of(folder / "m", views_of(folder, table()))
    return folder / "m"


@pytest.mark.parametrize(
    "strategy", ["late-product", "vote", "tf-mvsa", "crossview", "crossview-attention"]
)
def test_the_same_segments_get_the_same_labels_to_the_bit(tmp_path: Path, strategy: str) -> None:
    views = views_of(tmp_path, table())
    fused, kept = kept_of(tmp_path / "m", views, strategy)
    again = kept.label(views)
    first, second = labels_of(views, fused), labels_of(views, again)
    assert (first.label >= 0).mean() > 0.5
    assert np.array_equal(first.label, second.label)
    assert first.confidence.tobytes() == second.confidence.tobytes()
    assert fused.opinion.attention.tobytes() == again.opinion.attention.tobytes()
    assert again.report["strategy"] == strategy
    assert again.report["drift"] == []
    trained = strategy not in ("late-product", "vote")
    assert again.report["known_videos"] == (10 if trained else 0)


def test_new_segments_are_labelled(model: Path, tmp_path: Path) -> None:
    views = views_of(tmp_path, table(240, seed=1, prefix="new-"))
    fused = read_kept(model).label(views)
    label = labels_of(views, fused).label
    truth = np.array([int(name[5:]) % 3 for name in views.segment_ids.to_pylist()])
    # Embeddings of `rows` make the mistakes of their votes: there is nothing to win on them.
    assert (label == truth).mean() > 0.7
    assert fused.report["known_videos"] == 0


def test_drift_is_told_of_moved_embeddings_and_shares_alone(model: Path, tmp_path: Path) -> None:
    kept = read_kept(model)

    def drift(made: list[Row]) -> list[str]:
        found: list[str] = kept.label(views_of(tmp_path, made)).report["drift"]
        return found

    for seed in range(1, 6):
        assert drift(table(240, seed=seed, prefix="new-")) == []
    moved = " ".join(drift(table(240, seed=1, shift=3.0)))
    told = re.findall(r"(\w+) embeddings lie ([\d.]+) standard deviations", moved)
    assert [name for name, _ in told] == ["text", "face"]
    assert all(2.5 < float(far) < 3.5 for _, far in told)
    one_sided = [row for row in table(seed=1) if int(row["segment_id"][1:]) % 3 != 2]
    assert any(line.startswith("glad went from") for line in drift(one_sided))


def test_a_modality_that_has_nothing_to_say_today(model: Path, tmp_path: Path) -> None:
    made = table(60, seed=1)
    for row in made:
        if row["modality"] == "face":
            row |= {"status": "absent", "probs": None, "embedding": None}
    views = views_of(tmp_path, made)
    label = labels_of(views, read_kept(model).label(views)).label
    assert (label >= 0).all()


def test_the_card(tmp_path: Path) -> None:
    views = views_of(tmp_path, table())
    known = Known("label", np.array([3, 5]), np.array([0, 2]))
    fused = fuse(views, "crossview", known=known)
    folder = tmp_path / "m"
    folder.mkdir()  # an empty one will do
    keep(folder, views, fused, settings={"seed": 4}, known=known, warnings=["few"])
    card = json.loads((folder / "card.json").read_text())
    assert card["views"] == [{"name": "text", "width": 4}, {"name": "face", "width": 3}]
    assert (card["strategy"], card["classes"]) == ("crossview", list(NAMES))
    assert (card["version"], card["settings"]) == (__version__, {"seed": 4})
    assert (card["segments"], card["videos"]) == (300, 10)
    assert card["report"]["targets"]["label"]["decides"] in ("experts", "votes", "taught")
    assert {*card["files"], "card.json"} == {path.name for path in folder.iterdir()}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    kept = read_kept(folder)
    assert (kept.warnings, kept.reviewed) == (("few",), {"s003", "s005"})
    with pytest.raises(UsageError, match=r"r\.csv: .*learned from 1 of .* such as 's005': give"):
        kept.check_reviews(views, Known("label", np.array([5, 6]), np.array([0, 0])), "r.csv")
    kept.check_reviews(views, Known("label", np.array([6]), np.array([0])), "r.csv")


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path: Path) -> None:
    views = views_of(tmp_path, table(60))
    fused = fuse(views, "vote")
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    for path, message in (
        (folder, "m is not empty: give a new folder with --save-model"),
        (folder / "mine", "mine is no folder"),
        (tmp_path / "no" / "m", "folder that is not there"),
    ):
        with pytest.raises(UsageError, match=message):
            check_free(path)
        with pytest.raises(UsageError, match=message):
            keep(path, views, fused, settings={})
    assert [path.name for path in folder.iterdir()] == ["mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "some.parquet"]


def test_a_disk_that_fills_up_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = views_of(tmp_path, table(60))
    fused = fuse(views, "vote")
    real = os.fsync
    left = [3]

    def fsync(handle: int) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(UsageError, match="cannot be written: No space left"):
        keep(tmp_path / "m", views, fused, settings={})
    assert [path.name for path in tmp_path.iterdir()] == ["some.parquet"]


def test_nobody_names_the_classes(model: Path, tmp_path: Path) -> None:
    kept = read_kept(model)
    path = write(tmp_path / "p.parquet", table(60))
    views = read_predictions(path, unnamed=kept.classes).views
    assert views.notes == ("probs are taken to be of calm, angry, glad, in this order",)
    kept.check(views)
    theirs = write(path, table(60), metadata={"vsa.classes": '["a", "b", "c"]'})
    with pytest.raises(UsageError, match="these segments have a, b, c"):
        kept.check(read_predictions(theirs, unnamed=kept.classes).views)
    two = read_predictions(write(path, rows(k=2)), unnamed=kept.classes).views
    with pytest.raises(UsageError, match="these segments have 0, 1: give probs of the same"):
        kept.check(two)


def test_other_segments_than_it_knows_are_refused(model: Path, tmp_path: Path) -> None:
    kept = read_kept(model)
    renamed = [{**r, "modality": r["modality"].replace("face", "eyes")} for r in table(60)]
    with pytest.raises(UsageError, match=r"learned from text, face, these .* have text, eyes: "):
        kept.label(views_of(tmp_path, renamed))
    other = views_of(tmp_path, table(60), ("angry", "calm", "glad"))
    with pytest.raises(UsageError, match=r"knows the classes calm, angry, glad, these .* angry, c"):
        kept.label(other)
    wide = [{**r, "embedding": [*r["embedding"], 0.0]} for r in table(60)]
    with pytest.raises(UsageError, match="takes text embeddings 4 wide, these are 5: give those"):
        kept.label(views_of(tmp_path, wide))


@pytest.mark.parametrize("name", ["crossview.safetensors", "memory.safetensors", "fusion.json"])
@pytest.mark.parametrize("damage", ["flipped", "gone"])
def test_an_altered_model_is_refused(model: Path, tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    path = folder / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 0x40
    path.unlink() if damage == "gone" else path.write_bytes(content)
    said = "does not read" if damage == "gone" else "is not the file its card was written for"
    with pytest.raises(StoreError, match=f"{name} {said}.*: learn it again with --save-model"):
        read_kept(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ["angry", "calm", "glad"]}, "is not about the files beside it"),
        ({"strategy": "vote"}, "is not about the files beside it"),
        ({"views": [{"name": "text", "width": 4}]}, "is not about the files beside it"),
        ({"views": ["text"]}, "was altered"),
        ({"files": {}}, "does not read"),
        ({"files": None}, "was altered"),
        ({"format": 2}, "is not a card that vsa .* knows"),
    ],
)
def test_a_card_that_was_altered_is_refused(
    model: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(model, folder)
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | change))
    with pytest.raises(StoreError, match=said) as error:
        read_kept(folder)
    assert "\n" not in str(error.value)
    (folder / "card.json").write_text("{")
    with pytest.raises(StoreError, match="does not read"):
        read_kept(folder)


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere is no folder: give one that --save-model"):
        read_kept(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"has no card\.json: give a folder that --save-model"):
        read_kept(tmp_path)


def test_views_without_embeddings(tmp_path: Path) -> None:
    bare = [{**row, "embedding": None} for row in table()]
    views = views_of(tmp_path, bare)
    fused, kept = kept_of(tmp_path / "m", views)
    assert kept.widths == {"text": 0, "face": 0}
    assert np.array_equal(kept.label(views).opinion.probs["label"], fused.opinion.probs["label"])
    # Embeddings that it never saw are passed over.
    more = replace(views, embeddings=views_of(tmp_path, table()).embeddings)
    assert np.array_equal(kept.label(more).opinion.probs["label"], fused.opinion.probs["label"])
