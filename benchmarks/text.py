"""Text: `text-roberta` against transformers' own pipeline, and what 8 bits change."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.material import clips
from benchmarks.measure import Spent, scratch, timed

# The shape of roberta-base; the weights are drawn at random, which costs the same time.
ROBERTA_BASE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


def text(every: int = 1, layers: int = 12) -> None:
    """MELD dev, or every n-th line, through the pipeline with default settings and through ours."""
    import torch

    from tests.small_checkpoints import roberta

    rows = meld_dev()[::every]
    lines = [row["Utterance"] for row in rows]
    with scratch() as folder:
        model = roberta(
            folder / "roberta-base", clips().parent / "roberta_bpe", merges=None, spread=0.05,
            **ROBERTA_BASE | {"num_hidden_layers": layers},
        )  # fmt: skip
        usual = torch.get_num_threads()
        for threads in dict.fromkeys((usual, 1)):
            torch.set_num_threads(threads)
            theirs, slow = piped(model, lines)
            ours, fast = read(model, lines, "float32")
            less, faster = read(model, lines, "int8")
            agree = float((ours.argmax(axis=1) == less.argmax(axis=1)).mean())
            print(
                f"text: {len(lines)} lines of MELD dev, roberta-base's size with random weights, "
                f"{threads} thread{'s'[: threads > 1]}: pipeline() {slow.wall:.1f} s, text-roberta "
                f"{fast.wall:.1f} s = {slow.wall / fast.wall:.1f}× ({slow.cpu / fast.cpu:.1f}× of "
                f"processor time), probabilities within {np.abs(theirs - ours).max():.0e}; int8 "
                f"{faster.wall:.1f} s = {fast.wall / faster.wall:.1f}× float32, "
                f"{agree:.1%} of its labels, probabilities within {np.abs(ours - less).max():.2f}"
            )
        torch.set_num_threads(usual)
    print(f"  int8 with trained weights, text-minilm's: {eight_bits(rows)}")


def meld_dev() -> list[dict[str, str]]:
    """Its 1,109 rows."""
    with (clips().parent / "meld" / "dev.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def piped(model: Path, lines: list[str]) -> tuple[NDArray[np.float32], Spent]:
    """(B, 3) probabilities of transformers' pipeline with its default settings."""
    from transformers import pipeline

    from vsa_core.backends.checkpoints import quiet_transformers
    from vsa_core.backends.text_lines import read_text
    from vsa_core.labels import SENTIMENTS

    with quiet_transformers():
        classify = pipeline("text-classification", str(model), top_k=None, device="cpu")
    texts = [read_text(line, "en", None, "") or "" for line in lines]
    classify(texts[:2])
    found, spent = timed(lambda: classify(texts))
    rows = [{one["label"]: one["score"] for one in row} for row in found]
    return np.array([[row[label] for label in SENTIMENTS] for row in rows], np.float32), spent


def read(model: Path, lines: list[str], precision: str) -> tuple[NDArray[np.float32], Spent]:
    """(B, 3) probabilities of `text-roberta`, read and batched as a run does."""
    from vsa_core.backends import Clip
    from vsa_core.backends.text_hf import load_roberta
    from vsa_core.predict import look

    backend = load_roberta(str(model), None, device="cpu", precision=precision)
    clips = [Clip(str(row), 0, 1000, line, "en") for row, line in enumerate(lines)]
    look(backend, clips[:2])
    seen, spent = timed(lambda: look(backend, clips))
    backend.unload()
    return np.array([one.sentiment_probs for one in seen], np.float32), spent


def eight_bits(rows: list[dict[str, str]]) -> str:
    """What int8 does to a trained network: labels kept, weighted F1 before and after."""
    from sklearn.metrics import f1_score

    from vsa_core.backends.int8 import quantise
    from vsa_core.backends.text_lines import cleaned
    from vsa_core.backends.text_minilm import load
    from vsa_core.labels import SENTIMENTS

    truth = [list(SENTIMENTS).index(row["Sentiment"]) for row in rows]
    backend = load()
    samples: list[Any] = [cleaned(row["Utterance"]) for row in rows]
    backend.predict(samples[:2])
    before, whole = timed(lambda: backend.predict(samples))
    quantise(backend._encoder._loaded[1])  # type: ignore[index]
    after, less = timed(lambda: backend.predict(samples))
    parts = []
    for name in ("sentiment_probs", "emotion_probs"):
        one, other = (getattr(found, name).argmax(axis=1) for found in (before, after))
        parts.append(f"{(one == other).mean():.1%} of the {name.split('_')[0]} labels")
    scores = [
        f1_score(truth, found.sentiment_probs.argmax(axis=1), average="weighted")
        for found in (before, after)
    ]
    return (
        f"{', '.join(parts)} kept, sentiment F1 {scores[0]:.3f} → {scores[1]:.3f}, "
        f"{whole.wall / less.wall:.1f}× as fast"
    )
