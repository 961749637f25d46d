"""MELD's test utterances with made predictions, as files and as arrays."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.truths import CLASSES


@dataclass(frozen=True)
class Meld:
    """n utterances: ids, dialogues, texts, and by target the index of the class."""

    ids: list[str]
    dialogues: list[str]
    texts: list[str]
    truth: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Made:
    """What a made system says of each: by target classes (-1 abstains) and confidences."""

    said: dict[str, NDArray[np.int64]]
    sure: dict[str, NDArray[np.float64]]


def read_meld(shared: Path) -> Meld:
    """The test part."""
    with (shared / "meld" / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    dialogues = [f"meld-test-dia{row['Dialogue_ID']}" for row in rows]
    return Meld(
        [f"{d}-utt{row['Utterance_ID']}" for d, row in zip(dialogues, rows, strict=True)],
        dialogues,
        [row["Utterance"] for row in rows],
        {t: np.array([CLASSES[t].index(row[t.title()]) for row in rows]) for t in CLASSES},
    )


def made(meld: Meld, *, skill: float, seed: int, floor: float = 0.4) -> Made:
    """A system that is right more often the more skill it has, and silent below a confidence."""
    rng = np.random.default_rng(seed)
    said, sure = {}, {}
    for target, truth in meld.truth.items():
        score = rng.normal(0, 1, (len(truth), len(CLASSES[target])))
        score[np.arange(len(truth)), truth] += skill
        probs = np.exp(score) / np.exp(score).sum(axis=1, keepdims=True)
        sure[target] = probs.max(axis=1)
        said[target] = np.where(sure[target] >= floor, probs.argmax(axis=1), -1)
    return Made(said, sure)


def truth_file(path: Path, meld: Meld) -> Path:
    """As `vsa_core.truths` reads it."""
    rows = zip(meld.ids, *_named(meld.truth), strict=True)
    return written(path, ["segment_id", *CLASSES], rows)


def predictions_file(path: Path, meld: Meld, system: Made, rows: Sequence[int]) -> Path:
    """Some of the rows."""
    columns = ["segment_id", *CLASSES, "confidence", "emotion_confidence", "text"]
    values = list(
        zip(meld.ids, *_named(system.said), *system.sure.values(), meld.texts, strict=True)
    )
    return written(path, columns, [values[row] for row in rows])


def written(path: Path, columns: Sequence[str], rows: Any) -> Path:
    """A CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def _named(labels: dict[str, NDArray[np.int64]]) -> list[list[str]]:
    return [["" if c < 0 else CLASSES[t][c] for c in said] for t, said in labels.items()]
