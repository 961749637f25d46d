"""Other forms of a model say what the trained one says, and what they cost is measured."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2Model

from tests.small_supervised import network, wave
from vsa_core.cli import export
from vsa_core.errors import BackendError, UsageError
from vsa_core.supervised import exporting
from vsa_core.supervised.exporting import OnnxModel, export_onnx, made_batch, prune
from vsa_core.supervised.package import load_package, save_package
from vsa_core.supervised.predictor import Predictor
from vsa_core.supervised.recipe import Audio

FORMS = ["safetensors", "onnx", "int8", "pruned"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packaged model whose checkpoint is gone; its fusion is late and attention in one."""
    folder = tmp_path_factory.mktemp("model")
    net, recipe = network(folder / "checkpoint", "hybrid")
    save_package(folder / "model", net, recipe, {"data": "a test"})
    (folder / "checkpoint").rename(folder / "gone")
    return folder / "model"


@pytest.fixture(scope="module")
def told(model: Path, shared: Path) -> dict[str, dict[str, Any]]:
    """What `vsa export --json` says of every form, by its name, on lines of MELD's test split."""
    lines = (shared / "meld" / "test.csv").read_bytes().splitlines(keepends=True)
    few = model.parent / "meld"
    few.mkdir()
    (few / "test.csv").write_bytes(b"".join(lines[:25]))
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr(exporting, "RUNS", 5)  # enough for times that nobody looks at
        assert export.run(_args(model, truth_from=few, json=True)) == 0
    found = json.loads(said.getvalue())
    assert found["threads"] == 2
    return {form["name"]: form for form in found["forms"]}


def _args(model: Path, **changed: Any) -> argparse.Namespace:
    given = {
        "model": model,
        "out": model.parent / "out",
        "formats": ",".join(FORMS),
        "sparsity": 0.5,
        "truth_from": None,
        "features": model.parent / "features",
        "split": "test",
        "json": False,
    }
    return argparse.Namespace(**given | changed)


def test_every_form_is_measured_in_one_run(told: dict[str, dict[str, Any]]) -> None:
    assert list(told) == ["trained", *FORMS]
    for form in told.values():
        assert 0 < form["p50_ms"] <= form["p95_ms"]
        assert 0 <= form["f1"] <= 1
    trained = told["trained"]
    assert told["safetensors"] == trained | {
        key: told["safetensors"][key] for key in ("name", "p50_ms", "p95_ms")
    }
    assert told["onnx"]["f1"] == trained["f1"]
    assert told["onnx"]["logit_change"] < 1e-4
    assert told["int8"]["logit_change"] > 0
    assert told["pruned"]["logit_change"] > 0
    assert told["int8"]["megabytes"] < trained["megabytes"]
    assert told["pruned"]["megabytes"] < 0.6 * trained["megabytes"]


@pytest.mark.usefixtures("told")
def test_onnx_takes_any_batch_and_length_and_is_said_what_is_missing(model: Path) -> None:
    net, recipe, _ = load_package(model)
    exported = OnnxModel(model.parent / "out" / "onnx")
    assert exported.card["opset"] == exporting.OPSET
    assert exported.card["parity"] <= exporting.TOLERANCE
    for sizes in ((1, 2, 30), (5, 40, 301)):
        batch = made_batch(net, recipe, *sizes, seed=9)
        with torch.inference_mode():
            wanted = net(batch)
        said = exported(batch)
        assert list(said) == ["sentiment", "emotion"]
        for target, logits in wanted.items():
            torch.testing.assert_close(said[target], logits, atol=1e-4, rtol=0)
        if sizes[0] == 5:  # rows differ, so that agreeing means something
            assert float(wanted["sentiment"].std(dim=0).min()) > 1e-2


@pytest.mark.usefixtures("told")
def test_the_graph_names_its_tensors_as_a_batch_does(model: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model.parent / "out" / "onnx" / "model.onnx"))
    shapes = {one.name: one.shape for one in session.get_inputs()}
    assert list(shapes) == [
        "text_tokens", "text_mask", "text_own", "video_frames", "video_mask", "audio_mel",
        "audio_mask", "present_text", "present_video", "present_audio",
    ]  # fmt: skip
    assert shapes["video_frames"][1:] == [2, 3, 112, 112]
    free = [shapes["text_tokens"][0], shapes["text_tokens"][1], shapes["audio_mel"][1]]
    assert all(isinstance(size, str) for size in free)
    outputs = [one.name for one in session.get_outputs()]
    assert outputs == ["sentiment_logits", "emotion_logits"]


@pytest.mark.usefixtures("told")
def test_a_predictor_says_of_the_graph_what_it_says_of_the_model(
    model: Path, sample_dir: Path
) -> None:
    clip = sorted((sample_dir / "clips").glob("*.mp4"))[0]
    for text in ("what a lovely day", None):
        one, other = (
            Predictor.load(folder, device="cpu").predict(clip, text, 0, 1500)
            for folder in (model, model.parent / "out" / "onnx")
        )
        assert one.present == other.present
        assert one.probs is not None
        assert other.probs is not None
        for target, probs in one.probs.items():
            assert other.probs[target] == pytest.approx(probs, abs=1e-4)


@pytest.mark.usefixtures("told")
def test_an_altered_graph_is_refused(model: Path, tmp_path: Path) -> None:
    source = model.parent / "out" / "onnx"
    (tmp_path / "card.json").write_bytes((source / "card.json").read_bytes())
    (tmp_path / "model.onnx").write_bytes((source / "model.onnx").read_bytes()[:-1])
    with pytest.raises(BackendError, match=r"model.onnx is not the file"):
        OnnxModel(tmp_path)


@pytest.mark.parametrize("norm", ["layer", "group"])
def test_wav2vec2_exports_too(norm: str, tmp_path: Path) -> None:
    Wav2Vec2Model(wave(norm)).save_pretrained(tmp_path / "voice")
    audio = Audio(network="wav2vec2", checkpoint=str(tmp_path / "voice"))
    net, recipe = network(tmp_path / "checkpoint", "late", text=None, video=None, audio=audio)
    card = export_onnx(tmp_path / "out", net, recipe, {})
    assert card["parity"] <= exporting.TOLERANCE


def test_early_fusion_exports_too(tmp_path: Path) -> None:
    net, recipe = network(tmp_path / "checkpoint", "early", text=None, video=None)
    card = export_onnx(tmp_path / "out", net, recipe, {})
    assert card["parity"] <= exporting.TOLERANCE
    assert not net.every_row  # as it was


@pytest.mark.usefixtures("told")
def test_a_graph_that_says_something_else_is_noticed(model: Path) -> None:
    net, recipe, _ = load_package(model)
    session = exporting._session(model.parent / "out" / "onnx" / "model.onnx")
    assert exporting._parity(session, net, recipe) <= exporting.TOLERANCE
    prune(net, 0.1)
    with pytest.raises(BackendError, match="was not exported"):
        exporting._parity(session, net, recipe)


def test_pruning_takes_the_smallest_and_leaves_the_heads(tmp_path: Path) -> None:
    net, _ = network(tmp_path / "checkpoint", "late", video=None)
    before = {name: x.clone() for name, x in net.named_parameters()}
    prune(net, 0.3)
    kept = [w[p != 0].abs().min() for w, p in _pruned(before, net)]
    gone = [w[p == 0].abs().max() for w, p in _pruned(before, net) if (p == 0).any()]
    assert max(gone) <= min(kept)
    after = dict(net.named_parameters())
    for name in (n for n in before if n.startswith("heads.") or "embeddings" in n):
        assert torch.equal(after[name], before[name])


def _pruned(before: dict[str, torch.Tensor], net: torch.nn.Module) -> list[Any]:
    changed = [n for n, p in net.named_parameters() if not torch.equal(before[n], p)]
    after = dict(net.named_parameters())
    return [(before[n], after[n]) for n in changed]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"formats": "onnx,tflite"}, "tflite"),
        ({"formats": ""}, "nothing"),
        ({"sparsity": 1.5}, "between 0 and 1"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        export.run(_args(tmp_path / "model", **changed))
