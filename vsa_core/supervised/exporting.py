"""A trained model for other runtimes and smaller: ONNX, int8, pruned, and what each of them costs

ONNX has the encoders and the fusion in one graph: batch, length of the text and length of the sound
may be any, frames are as many and as large as the recipe's. What comes before it (tokens, frames,
spectrogram) is `dataset`'s.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vsa_core.errors import BackendError
from vsa_core.supervised.batch import Batch
from vsa_core.supervised.dataset import CROP_PX
from vsa_core.supervised.encoders import PACKAGE_CARD
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.package import packaged_recipe, read_card, write_card, write_settings
from vsa_core.supervised.recipe import Recipe

ONNX_FORMAT, ONNX_FILE = "vsa-supervised-onnx", "model.onnx"
OPSET = 18
# How far a logit of ONNX may be from torch's.
TOLERANCE = 1e-4
RUNS, _WARM_UP = 30, 5
# Sizes of the inputs that the graph is traced with and held against torch: rows, tokens and
# hundredths of a second of sound.
_TRACED = (2, 13, 117)
_HELD_AGAINST = ((1, 5, 60), (3, 21, 203), (4, 9, 88))

Forward = Callable[[Batch], Mapping[str, Tensor]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a form of a model costs, and what is lost by it.

    Attributes:
        name: of the form.
        megabytes: of its weights on the disk, 10⁶ bytes.
        p50_ms, p95_ms: from a batch of one clip to logits, on the CPU.
        logit_change: largest distance of a logit on that clip from the model as it was trained.
        f1: weighted F1, mean of the targets; None without labelled utterances.
    """

    name: str
    megabytes: float
    p50_ms: float
    p95_ms: float
    logit_change: float
    f1: float | None


# --- ONNX ---------------------------------------------------------------------------------


class _Flat(nn.Module):
    """The network as a function of tensors alone."""

    def __init__(self, net: MultimodalNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, inputs: dict[str, Tensor], present: dict[str, Tensor]) -> tuple[Tensor, ...]:
        nothing = next(iter(present.values()))
        logits = self.net(Batch(inputs, present, {}, nothing, nothing))
        return tuple(logits.values())


class OnnxModel:
    """An exported model, ready to be run; it may be used from several threads.

    Args:
        folder: that `export_onnx` wrote.
        threads: of one run; None for as many as there are cores.

    Attributes:
        recipe: of the model, its checkpoints being the folders of the export.
        card: of the export.

    Raises:
        BackendError: no such export, one that was altered, or onnxruntime is not installed.
    """

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        self.card = read_card(folder, ONNX_FORMAT)
        self.recipe = packaged_recipe(folder)
        self._session = _session(folder / ONNX_FILE, threads)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Logits (B, K) by target."""
        return _run(self._session, batch)


def _session(file: Path, threads: int | None = None) -> Any:
    onnxruntime = _package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception of its own for each fault
        reason = " ".join(str(error).split())[:200]
        raise BackendError(f"{file} cannot be loaded: {reason}: export it again") from error


def _run(session: Any, batch: Batch) -> dict[str, Tensor]:
    tensors = named_inputs(batch)
    fed = {one.name: tensors[one.name].numpy() for one in session.get_inputs()}
    targets = [one.name.removesuffix("_logits") for one in session.get_outputs()]
    logits = session.run(None, fed)
    return {t: torch.from_numpy(x) for t, x in zip(targets, logits, strict=True)}


def named_inputs(batch: Batch) -> dict[str, Tensor]:
    """A batch's tensors by the names ONNX knows: as in `Batch`, and `present_<modality>`."""
    return {**batch.inputs, **{f"present_{name}": x for name, x in batch.present.items()}}


def export_onnx(
    folder: Path,
    net: MultimodalNet,
    recipe: Recipe,
    about: Mapping[str, Any],
    tokenizer: Path | None = None,
) -> dict[str, Any]:
    """Write `model.onnx` with what is needed around it, and hold it against torch.

    Args:
        folder, net, recipe, about, tokenizer: as `package.save_package` has them; the network lies
            on the CPU, in float32.

    Returns:
        The card; `parity` is the largest distance of a logit from torch's that was seen.

    Raises:
        BackendError: a package is missing, the graph says something else than torch, or the folder
            cannot be written.
    """
    _package("onnxscript")
    net.eval()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / PACKAGE_CARD).unlink(missing_ok=True)
        for old in folder.glob(f"{ONNX_FILE}*"):
            old.unlink()
        _graph(net, recipe).save(str(folder / ONNX_FILE))
        files = [file.name for file in sorted(folder.glob(f"{ONNX_FILE}*"))]
        files += write_settings(folder, net, recipe, tokenizer)
        parity = _parity(_session(folder / ONNX_FILE), net, recipe)
        return write_card(
            folder, ONNX_FORMAT, net, recipe, about, files, opset=OPSET, parity=parity
        )
    except OSError as error:
        raise BackendError(
            f"{folder} cannot be written: {error.strerror or error}: choose another folder"
        ) from error


def _graph(net: MultimodalNet, recipe: Recipe) -> Any:
    """torch's ONNXProgram of the network."""
    batch = made_batch(net, recipe, *_TRACED)
    free = torch.export.Dim.DYNAMIC
    shapes: dict[str, dict[str, dict[int, Any]]] = {"inputs": {}, "present": {}}
    for name, x in batch.inputs.items():
        lengths = {} if name.startswith("video") or x.ndim < 2 else {1: free}
        shapes["inputs"][name] = {0: free} | lengths
    shapes["present"] = {name: {0: free} for name in batch.present}
    every_row, net.every_row = net.every_row, True
    try:
        # With gradients, torch's own transformer layers are traced step by step, not as the one
        # fused operation that ONNX does not have.
        with _quiet(), torch.enable_grad():
            program = torch.onnx.export(
                _Flat(net).eval(),
                (),
                kwargs={"inputs": dict(batch.inputs), "present": dict(batch.present)},
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(named_inputs(batch)),
                output_names=[f"{target}_logits" for target in recipe.targets],
                opset_version=OPSET,
                verbose=False,
            )
    except Exception as error:  # torch raises whatever its three steps do
        reason = " ".join(str(error).split())[-300:]
        raise BackendError(f"the network cannot be written as ONNX: …{reason}") from error
    finally:
        net.every_row = every_row
    return program


def _parity(session: Any, net: MultimodalNet, recipe: Recipe) -> float:
    """The largest distance of a logit over batches with padding and missing modalities."""
    worst = 0.0
    for seed, sizes in enumerate(_HELD_AGAINST, 1):
        batch = made_batch(net, recipe, *sizes, seed=seed)
        with torch.inference_mode():
            worst = max(worst, _distance(_run(session, batch), net(batch)))
    if not worst <= TOLERANCE:
        raise BackendError(
            f"ONNX gives logits {worst:.2g} from torch's, more than {TOLERANCE:g}: the model was "
            "not exported"
        )
    return worst


def made_batch(
    net: MultimodalNet, recipe: Recipe, rows: int, tokens: int, sound: int, seed: int = 0
) -> Batch:
    """Random utterances, each but the first one shorter than the one before it.

    The second row lacks its first modality, the third one its last, the fourth one has none.

    Args:
        net: of the recipe; says how many tokens there are.
        recipe: says which tensors there are.
        rows, tokens: B and L.
        sound: hundredths of a second, M; at least 30.
        seed: of what is drawn.
    """
    random = torch.Generator().manual_seed(seed)
    there = torch.ones(rows, len(net.modalities), dtype=torch.bool)
    there[1:2, 0] = False
    there[2:3, -1] = False
    there[3:4] = False
    present = {name: there[:, at] for at, name in enumerate(net.modalities)}
    inputs: dict[str, Tensor] = {}
    encoders = recipe.encoders
    if encoders.text is not None:
        words: int = net.encoders["text"].backbone.config.vocab_size  # type: ignore[union-attr,assignment]
        mask = _lengths(rows, tokens) & (there[:, :1] | (torch.arange(tokens) == 0))
        own = mask & (torch.arange(tokens) >= tokens // 3)
        inputs["text_tokens"] = torch.randint(words, (rows, tokens), generator=random) * mask
        inputs["text_mask"], inputs["text_own"] = mask, own | (mask & ~own.any(1, keepdim=True))
    if encoders.video is not None:
        size = (rows, encoders.video.frames, 3, CROP_PX, CROP_PX)
        inputs["video_frames"] = torch.rand(size, generator=random)
        inputs["video_mask"] = present["video"][:, None].expand(rows, size[1]).clone()
    if encoders.audio is not None:
        count, name = sound, "audio_mel"
        bands: tuple[int, ...] = (encoders.audio.mels,)
        if encoders.audio.network == "wav2vec2":
            count, name, bands = 160 * sound, "audio_wave", ()
        mask = _lengths(rows, count)
        heard = torch.randn((rows, count, *bands), generator=random)
        inputs[name] = heard * (mask if not bands else mask[..., None])
        inputs["audio_mask"] = mask & present["audio"][:, None]
    return Batch(inputs, present, {}, torch.ones(rows), torch.arange(rows))


def _lengths(rows: int, longest: int) -> Tensor:
    """(B, L) bool, each row an eighth shorter than the one before it."""
    ends = (longest * (1 - torch.arange(rows) / 8).clamp(min=1 / 8)).ceil()
    return torch.arange(longest) < ends[:, None]


# --- smaller ------------------------------------------------------------------------------


def prune(net: MultimodalNet, sparsity: float) -> float:
    """Set the smallest weights of all linear layers and convolutions but the heads' to 0, in place.

    Args:
        net: in float32.
        sparsity: share of these weights, over all layers together.

    Returns:
        The share of all parameters that is 0 now.
    """
    from torch.nn.utils import prune as torch_prune

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    heads = set(net.heads.modules())
    layers = [
        (module, "weight")
        for module in net.modules()
        # A weight that is made of others, as wav2vec 2.0 has one, cannot be.
        if isinstance(module, kinds) and module not in heads and "weight" in module._parameters
    ]
    torch_prune.global_unstructured(
        layers, pruning_method=torch_prune.L1Unstructured, amount=sparsity
    )
    for module, name in layers:
        torch_prune.remove(module, name)
    zeros = sum(int((p == 0).sum()) for p in net.parameters())
    return zeros / sum(p.numel() for p in net.parameters())


# --- what it costs ------------------------------------------------------------------------


def cost(
    name: str,
    weights: Path,
    forward: Forward,
    reference: Forward,
    clip: Batch,
    evaluate: Callable[[Forward], float] | None = None,
) -> Cost:
    """Size, speed and loss of one form of a model.

    Args:
        name: of the form.
        weights: its file.
        forward: the form, run with as many threads as its rivals.
        reference: the model as it was trained.
        clip: a batch of one.
        evaluate: gives the weighted F1; None where nothing is labelled.
    """
    with torch.inference_mode():
        change = _distance(forward(clip), reference(clip))
        for _ in range(_WARM_UP):
            forward(clip)
        taken = []
        for _ in range(RUNS):
            begun = time.perf_counter()
            forward(clip)
            taken.append(1000 * (time.perf_counter() - begun))
        f1 = None if evaluate is None else evaluate(forward)
    p50, p95 = np.percentile(taken, [50, 95]).tolist()
    size = sum(file.stat().st_size for file in weights.parent.glob(f"{weights.name}*"))
    return Cost(name, size / 1e6, p50, p95, change, f1)


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    each = [float((one[target] - other[target]).abs().max()) for target in other]
    return math.nan if any(map(math.isnan, each)) else max(each)


def _package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendError(f"ONNX needs {name}: pip install 'vsa[onnx]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on torchvision and on torch's own deprecations."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        log.setLevel(level)
