"""What a supervised model learns from: utterances with their text, place in a video and labels"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vsa_core.labels import EMOTIONS, SENTIMENTS

TARGETS = {"sentiment": tuple(map(str, SENTIMENTS)), "emotion": tuple(map(str, EMOTIONS))}
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Utterance:
    """One utterance.

    Attributes:
        id: of the segment, or `meld-train-dia0-utt0`.
        group: dialogue or video; all utterances of one stay on one side of a split.
        text: what is said; None where nothing is known.
        speaker: who says it; None where that is not known.
        before: (speaker, text) of what was said before it in the same dialogue, the latest last.
        media: the file it is in; None where there is none.
        start_ms, end_ms: its place in the file.
        labels: by target the index of its class; a target that is not known is left out.
        weight: of its loss.
    """

    id: str
    group: str
    text: str | None = None
    speaker: str | None = None
    before: tuple[tuple[str | None, str], ...] = ()
    media: Path | None = None
    start_ms: int = 0
    end_ms: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    weight: float = 1.0


def groups_in_folds(utterances: Sequence[Utterance], folds: int, seed: int) -> list[list[int]]:
    """Rows of each fold; a group is in one fold only, and classes are spread evenly.

    Args:
        utterances: n of them.
        folds: K.
        seed: of the shuffle.

    Returns:
        K lists of row numbers, each row in one.

    Raises:
        ValueError: there are fewer groups than folds.
    """
    import numpy as np
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [utterance.group for utterance in utterances]
    if len(set(groups)) < folds:
        raise ValueError(f"{len(set(groups))} groups cannot be cut into {folds} folds")
    classes = [u.labels.get("sentiment", u.labels.get("emotion", UNKNOWN)) for u in utterances]
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    rows = np.zeros((len(groups), 1))
    return [held.tolist() for _, held in cut.split(rows, classes, groups)]
