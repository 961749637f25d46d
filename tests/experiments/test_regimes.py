"""Synthetic segments are what their regime says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vsa_core.experiments.regimes import REGIMES, Regime, draw
from vsa_core.fusion.views import Held


def votes(regime: Regime, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Likeliest classes (n, V), -1 where a view is absent, and the truth (n,)."""
    drawn = draw(regime, seed)
    probs = drawn.views.probs["sentiment"]
    top = np.where(np.isfinite(probs).all(axis=2), np.nan_to_num(probs).argmax(axis=2), -1)
    return top, drawn.truth


def vectors(embedding: object) -> np.ndarray:
    assert isinstance(embedding, Held)
    return embedding.vectors


WHOLE = [n for n, r in REGIMES.items() if not r.unusable + r.absent and n != "bayes"]


@pytest.mark.parametrize("name", WHOLE)
def test_views_are_as_right_as_asked(name: str) -> None:
    regime = REGIMES[name]
    asked = np.array(regime.accuracy) * (1 - regime.collude)
    top, truth = votes(regime)
    right = (top == truth[:, None]).mean(axis=0)
    # A head cannot be better than the embedding allows, which the nuisance decides.
    room = 0.08 if regime.errors == "head" else 0.03
    assert right == pytest.approx(asked, abs=room)
    if regime.errors == "head" and not regime.collude:
        assert (right <= np.array(regime.accuracy) + 0.001).all()


@pytest.mark.parametrize("name", REGIMES)
def test_probabilities_sum_to_one_and_a_seed_gives_the_same(name: str) -> None:
    regime = replace(REGIMES[name], segments=90, videos=6)
    one, same, other = (draw(regime, seed) for seed in (3, 3, 4))
    probs = one.views.probs["sentiment"]
    there = np.isfinite(probs).all(axis=2)
    assert np.array_equal(there, one.views.present)
    assert probs[there].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(one.truth, same.truth)
    assert not np.array_equal(one.truth, other.truth)
    for a, b in zip(one.views.embeddings, same.views.embeddings, strict=True):
        assert np.array_equal(vectors(a), vectors(b))
    assert np.array_equal(probs, same.views.probs["sentiment"], equal_nan=True)


def test_prototypes_are_two_apart_and_noise_is_as_asked() -> None:
    drawn = draw(Regime((0.65, 0.55), sigma=(0.5, 2.0), segments=12_000, videos=600), 1)
    for embedding, sigma in zip(drawn.views.embeddings, (0.5, 2.0), strict=True):
        x = vectors(embedding)
        means = np.stack([x[drawn.truth == k].mean(axis=0) for k in range(3)])
        gaps = np.linalg.norm(means[[0, 0, 1]] - means[[1, 2, 2]], axis=1)
        assert gaps == pytest.approx(2, abs=0.25)
        # The nuisance lies in 4 dimensions; the smallest variances are those of the noise alone.
        spread = np.linalg.eigvalsh(np.cov((x - means[drawn.truth]).T))
        assert np.sqrt(spread[: len(spread) // 2].mean()) == pytest.approx(sigma, rel=0.1)


def test_views_are_absent_as_often_as_asked_and_never_all() -> None:
    present = draw(REGIMES["missing"], 0).views.present
    # Where both would be absent (4 %) text stays.
    assert (~present).mean(axis=0) == pytest.approx([0.06, 0.4], abs=0.02)
    assert present.any(axis=1).all()


def test_colluding_views_say_the_same_wrong_class_and_are_marked() -> None:
    drawn = draw(REGIMES["collude"], 0)
    top = drawn.views.probs["sentiment"].argmax(axis=2)
    same_wrong = (top[:, 0] == top[:, 1]) & (top[:, 0] != drawn.truth)
    honest = draw(REGIMES["shifted"], 0)
    other = honest.views.probs["sentiment"].argmax(axis=2)
    by_chance = ((other[:, 0] == other[:, 1]) & (other[:, 0] != honest.truth)).mean()
    assert same_wrong.mean() == pytest.approx(by_chance * 0.85 + 0.15, abs=0.03)
    for embedding in drawn.views.embeddings:
        x = vectors(embedding)
        # The mark shifts the colluding ones by a vector of length 3.
        shift = x[same_wrong].mean(axis=0) - x[~same_wrong].mean(axis=0)
        share = 0.15 / same_wrong.mean()
        assert np.linalg.norm(shift) == pytest.approx(3 * share, abs=0.6)


def test_the_error_is_inside_the_embedding_or_not() -> None:
    for name, sided in (("paper75", True), ("random", False)):
        drawn = draw(replace(REGIMES[name], sigma=(0.3, 0.3)), 0)
        said = drawn.views.probs["sentiment"][:, 0].argmax(axis=1)
        x = vectors(drawn.views.embeddings[0])
        of_video = np.stack([x[drawn.views.video == i].mean(axis=0) for i in range(30)])
        x = x - of_video[drawn.views.video]
        means = np.stack([x[(said == drawn.truth) & (said == k)].mean(axis=0) for k in range(3)])
        nearest = ((x[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        wrong = said != drawn.truth
        assert bool((nearest == said)[wrong].mean() > 0.9) is sided
        assert bool((nearest == drawn.truth)[wrong].mean() > 0.9) is not sided


def test_biased_views_have_a_favourite() -> None:
    top, truth = votes(REGIMES["bias"])
    for v, favourite in enumerate((1, 0)):
        wrong = (top[:, v] != truth) & (truth != favourite)
        # 80 % by bias, half of the rest by chance.
        assert (top[wrong, v] == favourite).mean() == pytest.approx(0.9, abs=0.03)


def test_videos_have_topics_only_where_asked() -> None:
    def unlike(name: str) -> float:
        drawn = draw(REGIMES[name], 0)
        shares = [np.mean(drawn.truth[drawn.views.video == i] == 0) for i in range(30)]
        return float(np.std(shares))

    assert unlike("topical") > 0.2
    assert unlike("shifted") < 0.08
