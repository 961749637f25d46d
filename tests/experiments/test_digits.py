"""The digits experiment: what it hands to the strategies; the scoring is tested with the others."""

from __future__ import annotations

import numpy as np
import pytest

from vsa_core.experiments import digits
from vsa_core.experiments.real import Scores, Setting


class _SeenError(Exception):
    """Stops the experiment once its first setting is seen."""


def test_views_are_halves_of_other_digits_than_the_heads_were_fitted_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Setting] = []

    def look(_scores: Scores, setting: Setting, _seed: int) -> None:
        seen.append(setting)
        if len(seen) == 2:
            raise _SeenError

    monkeypatch.setattr(digits, "score_setting", look)
    with pytest.raises(_SeenError):
        digits.run([3])
    two, three = seen
    assert two.views.names == ("left", "right")
    assert three.views.names == ("left", "right", "spectrum")
    assert len(two.views) == len(two.truth) == 1797 - 60
    assert [e.width for e in three.views.embeddings] == [32, 32, 40]
    assert len(two.views.videos) == 30
    said = two.views.probs["label"]
    assert np.allclose(said.sum(axis=2), 1)
    right = (said.argmax(axis=2) == two.truth[:, None]).mean(axis=0)
    assert ((right > 0.5) & (right < 0.9)).all()
