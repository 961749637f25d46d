"""The model card: what a network was trained on, how it does on held-out videos, its limits."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.config import Settings
from vsa_core.errors import StoreError
from vsa_core.evaluate import compare_to_truth
from vsa_core.fusion import CARD_FILE
from vsa_core.fusion.data import Consensus, Views, in_order
from vsa_core.labels import EMOTIONS, SENTIMENTS, Modality
from vsa_core.store import Store

# Labels are asked of harder segments than the agreeing ones the temperature is fitted on, so it
# never sharpens.
_TEMPERATURES = np.geomspace(1.0, 10.0, 93)
# What using a stored model takes.
_NEEDED = {
    "views", "epochs", "weights_sha256", "folds", "metrics", "combined", "settings", "refused",
}  # fmt: skip
_LIMITS = (
    "It was trained on the segments whose models agree, with what they agree on as truth: it "
    "repeats every error those models share, and agreement cannot show one.",
    "The held-out figures are of the network alone, compared with that agreement on agreeing "
    "segments, which are easier than those it labels: they are no accuracy against human labels.",
    "A label is decided by the network and the views' own probabilities together (`combined`): an "
    "error a view is sure of can outweigh the network.",
    "The network's confidence is calibrated on agreeing segments, and the combination is held to "
    "the same mean on those it labels: too high where the models err systematically, too low "
    "where their errors are independent.",
)


def read_card(store: Store, model_id: str) -> dict[str, Any]:
    """The card of a stored model.

    Raises:
        StoreError: no such model, or its card does not read.
    """
    path = store.root / "models" / model_id / CARD_FILE
    again = f"remove {path.parent} and run the same command again"
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"model card {path} does not read ({error}): {again}") from error
    if not isinstance(card, dict) or card.get("model_id") != model_id or _NEEDED - card.keys():
        raise StoreError(f"model card {path} is not that of {model_id}: {again}")
    return card


def make_card(
    model_id: str,
    backends: Mapping[Modality, str],
    views: Views,
    consensus: Consensus,
    settings: Settings,
    sentiment: NDArray[np.float32],
    emotion: NDArray[np.float32],
) -> dict[str, Any]:
    """What can be said of a network from its logits on videos its members never saw.

    Args:
        model_id: its folder.
        backends: modality → backend id.
        views: the run's segments.
        consensus: the c of them that agree.
        settings: of the run.
        sentiment, emotion: (c, 3) and (c, 7) out-of-fold logits.

    Returns:
        JSON-able. `refused` says why the network must not decide, None where it may;
        `metrics.emotion` is None where there was too little to learn emotions from.
    """
    few = max(settings.fusion.min_per_class, 1)
    sentiments = np.bincount(consensus.sentiment, minlength=len(SENTIMENTS))
    named = np.flatnonzero(consensus.has_emotion)
    emotions = np.bincount(consensus.emotion[named], minlength=len(EMOTIONS))
    notes = [
        f"{name} is agreed on {count} times, too rarely to be learned (fusion.min_per_class)"
        for name, count in zip(SENTIMENTS, sentiments, strict=True)
        if count < few
    ]
    knows_emotions = int((emotions >= few).sum()) >= 2
    if not knows_emotions:
        notes.append("too few segments agree on an emotion: the mean of the views stands for it")
    return {
        "model_id": model_id,
        "kind": "attention fusion network, one member per fold of whole videos",
        "limits": list(_LIMITS),
        "backends": {m.value: backend for m, backend in in_order(backends).items()},
        "data": {
            "videos": len(np.unique(views.video_ids)),
            "segments": len(views),
            "present": {
                m.value: int(views.present[:, i].sum()) for i, m in enumerate(views.modalities)
            },
            "consensus": len(consensus),
            "sentiments": dict(zip(map(str, SENTIMENTS), sentiments.tolist(), strict=True)),
            "emotions": dict(zip(map(str, EMOTIONS), emotions.tolist(), strict=True)),
        },
        "metrics": {
            "sentiment": _held_out(SENTIMENTS, sentiment, consensus.sentiment, len(views)),
            "emotion": (
                _held_out(EMOTIONS, emotion[named], consensus.emotion[named], len(views))
                if knows_emotions
                else None
            ),
        },
        "settings": {
            "fusion": settings.fusion.model_dump(mode="json"),
            "agree": settings.agree.model_dump(mode="json"),
        },
        "notes": [*notes, *views.notes],
        "refused": _refused(sentiment, consensus.sentiment, few),
        "folds": consensus.fold_of,
    }


def softmax(logits: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Probabilities over the last axis of logits divided by a temperature."""
    z = logits.astype(np.float64) / temperature
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    probs: NDArray[np.float64] = z / z.sum(axis=-1, keepdims=True)
    return probs


def _temperature(logits: NDArray[np.float32], labels: NDArray[np.intp]) -> float:
    """The temperature of least cross-entropy, at least 1 (Guo et al. 2017)."""
    rows = np.arange(len(labels))
    losses = [
        -np.log(np.maximum(softmax(logits, t)[rows, labels], 1e-12)).mean() for t in _TEMPERATURES
    ]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def _held_out(
    names: Sequence[str], logits: NDArray[np.float32], labels: NDArray[np.intp], segments: int
) -> dict[str, Any]:
    """Scores on videos the deciding member never saw, against what their views agree on."""
    truth = [str(names[i]) for i in labels]
    said = [str(names[i]) for i in logits.argmax(axis=1)]
    temperature = _temperature(logits, labels)
    before, after = compare_to_truth(
        truth,
        {"before": said, "after": said},
        confidences={
            "before": softmax(logits, 1.0).max(axis=1).tolist(),
            "after": softmax(logits, temperature).max(axis=1).tolist(),
        },
    )
    return {
        "rows": after.rows,
        "coverage": after.rows / segments,
        "accuracy": after.accuracy,
        "macro_f1": after.macro_f1,
        "temperature": temperature,
        "ece_before": before.ece,
        "ece": after.ece,
    }


def _refused(logits: NDArray[np.float32], labels: NDArray[np.intp], few: int) -> str | None:
    """Why the network must not decide: on videos it never saw it does no better than chance.

    Its recall, averaged over the sentiments that are not too rare, has to stand two standard
    errors above guessing.
    """
    counts = np.bincount(labels, minlength=len(SENTIMENTS))
    classes = np.flatnonzero(counts >= few)
    right = logits.argmax(axis=1) == labels
    recall = float(np.mean([right[labels == c].mean() for c in classes]))
    chance = 1 / len(classes)
    error = math.sqrt((chance * (1 - chance) / counts[classes]).sum()) / len(classes)
    if recall > chance + 2 * error:
        return None
    return (
        f"on videos it never saw the network finds {recall:.0%} of what the views agree on, "
        f"which guessing would too ({chance:.0%} ± {2 * error:.0%})"
    )
