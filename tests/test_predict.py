"""One backend over a video's segments: what is absent, broken or odd costs only itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vsa_core.backends import Clip, Prediction
from vsa_core.labels import Modality, Status
from vsa_core.predict import look


class Scripted:
    """A backend whose answer is told by the clip's text."""

    id = "scripted@0"
    modality = Modality.TEXT
    dim = 2

    def __init__(self, batch_size: int = 4) -> None:
        self.batch_size = batch_size
        self.batches: list[list[str]] = []

    def read(self, clip: Clip) -> str | None:
        if clip.text == "unreadable":
            raise OSError("decoder said no")
        return None if clip.text == "nothing" else clip.text

    def predict(self, samples: Sequence[Any]) -> Prediction:
        self.batches.append(list(samples))
        if "breaks" in samples:
            raise RuntimeError("shape mismatch")
        n = len(samples)
        sentiment = np.tile(np.array([0.2, 0.3, 0.5], np.float32), (n, 1))
        embedding = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
        for row, text in enumerate(samples):
            if text == "abstains":
                sentiment[row] = np.nan
            if text == "half nan":
                sentiment[row, 0] = np.nan
            if text == "sums to two":
                sentiment[row] *= 2
            if text == "infinite":
                embedding[row, 0] = np.inf
        return Prediction(sentiment, None, embedding)


def clips(*texts: str) -> list[Clip]:
    return [Clip(f"v-{i}", i * 1000, i * 1000 + 900, text) for i, text in enumerate(texts)]


def test_absent_is_absent_and_the_rest_is_in_order() -> None:
    seen = look(Scripted(), clips("a", "nothing", "b"))
    assert [s.status for s in seen] == [Status.OK, Status.ABSENT, Status.OK]
    assert seen[1].sentiment_probs is None
    assert seen[1].embedding is None
    assert seen[2].embedding.tolist() == [2.0, 3.0]


@pytest.mark.parametrize(
    ("bad", "note"),
    [
        ("unreadable", "OSError: decoder said no"),
        ("breaks", "RuntimeError: shape mismatch"),
        ("infinite", "the embedding is not finite"),
        ("half nan", "not probabilities"),
        ("sums to two", "not probabilities"),
    ],
)
def test_a_bad_sample_costs_only_itself(bad: str, note: str) -> None:
    seen = look(Scripted(), clips("a", bad, "b", "c"))
    assert [s.status for s in seen] == [Status.OK, Status.ERROR, Status.OK, Status.OK]
    assert note in seen[1].note
    assert seen[1].sentiment_probs is None
    assert seen[1].embedding is None


def test_a_vote_may_abstain_and_keep_its_embedding() -> None:
    (seen,) = look(Scripted(), clips("abstains"))
    assert seen.status == Status.OK
    assert seen.sentiment_probs is None
    assert seen.embedding is not None


def test_batches_are_never_larger_than_the_backend_asks() -> None:
    backend = Scripted(batch_size=3)
    look(backend, clips(*"abcdefgh"))
    assert [len(batch) for batch in backend.batches] == [3, 3, 2]


def test_no_clips_no_rows() -> None:
    assert look(Scripted(), []) == []
