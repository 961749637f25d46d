"""Synthetic regimes: segments whose truth is known, with every way a pretrained model can err."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.fusion.views import Views, views_from_arrays
from vsa_core.labels import SENTIMENTS

K = len(SENTIMENTS)
_NAMES = ("text", "face", "audio")
_OVERCONFIDENCE = 0.6  # logits are divided by it
_HEAD_SPREAD = 1.5  # standard deviation of a head's logits, however far it is perturbed
_NUISANCE_DIMS = 4
_MARK = 3.0  # length of the direction that marks unusable or colluding segments


@dataclass(frozen=True, slots=True)
class Regime:
    """How segments, embeddings and errors are drawn; V views.

    Attributes:
        accuracy: (V,) of the pretrained heads.
        errors: `head` (a linear head fitted on another domain), `random` (independent of the
            embedding), `bias` (the same, most of them one class), `inside` (the wrong class also
            sets the embedding).
        sigma: (V,) noise of the embedding.
        prior: (K,) of the classes.
        absent: (V,) share of segments without this view; two views are never both absent.
        unusable: (V,) share of segments without a class in the embedding, marked by a direction.
        collude: share of segments on which all heads say the same wrong class, marked likewise.
        segments, videos: how many.
    """

    accuracy: tuple[float, ...]
    errors: str = "head"
    sigma: tuple[float, ...] = (1.0, 1.0)
    prior: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    absent: tuple[float, ...] = (0.0, 0.0)
    unusable: tuple[float, ...] = (0.0, 0.0)
    collude: float = 0.0
    segments: int = 3000
    videos: int = 30


@dataclass(frozen=True, slots=True)
class Drawn:
    """A regime's segments, and what nobody but a test knows.

    Attributes:
        views: as the engine takes them, target `sentiment`.
        truth: (n,) index into `SENTIMENTS`.
    """

    views: Views
    truth: NDArray[np.intp]


REGIMES: dict[str, Regime] = {
    "random": Regime((0.75, 0.60), "random"),
    "bias": Regime((0.70, 0.60), "bias"),
    "shifted": Regime((0.65, 0.55)),
    "bayes": Regime((0.99, 0.99), sigma=(1.0, 1.5)),
    "weakface": Regime((0.70, 0.40), sigma=(0.8, 2.5)),
    "prior": Regime((0.60, 0.55), prior=(0.1, 0.3, 0.6)),
    "missing": Regime((0.65, 0.55), absent=(0.1, 0.4)),
    "quality": Regime((0.80, 0.70), "random", unusable=(0.15, 0.40)),
    "collude": Regime((0.65, 0.55), collude=0.15),
    "paper75": Regime((0.75, 0.60), "inside"),
    "three": Regime((0.65, 0.55, 0.50), sigma=(1.0, 1.0, 1.2)),
    "three-random": Regime((0.75, 0.60, 0.55), "random", sigma=(1.0, 1.0, 1.0)),
    "n300": Regime((0.65, 0.55), segments=300, videos=6),
}


def draw(regime: Regime, seed: int) -> Drawn:
    """The segments of a regime; the same seed gives the same.

    The embedding of view m is `mu[y] + sigma · eps + nuisance`: K orthogonal prototypes with
    pairwise distance 2 in d = 64 (text) or 32 dimensions, eps standard normal, the nuisance per
    video a random point of a random 4-dimensional subspace of the view (standard normal times
    standard normal, halved).

    Source: the study in docs/label-engine.md.
    """
    rng = np.random.default_rng([seed, 20240])
    n, views = regime.segments, len(regime.accuracy)
    y = rng.choice(K, n, p=regime.prior)
    video = np.sort(np.arange(n) % regime.videos)
    absent = _absent(regime, rng)
    misled = rng.random(n) < regime.collude
    same_wrong = (y + rng.integers(1, K, n)) % K
    probs = np.full((n, views, K), np.nan)
    embeddings: list[NDArray[np.floating] | None] = []
    for v in range(views):
        d = 64 if v == 0 else 32
        directions = np.linalg.qr(rng.normal(size=(d, K + 1)))[0].T
        prototypes, mark = np.sqrt(2) * directions[:K], _MARK * directions[K]
        unusable = rng.random(n) < (regime.unusable[v] if v < len(regime.unusable) else 0)
        said, p = _SAY[regime.errors](regime, v, y, rng)
        shown = said if regime.errors == "inside" else y
        x = np.where(unusable[:, None], 0, prototypes[shown])
        x = x + regime.sigma[v] * rng.normal(size=(n, d))
        basis = rng.normal(size=(_NUISANCE_DIMS, d))
        x += (rng.normal(size=(regime.videos, _NUISANCE_DIMS)) @ basis / 2)[video]
        if regime.errors == "head":
            p = _head(x, prototypes, y, regime.sigma[v], regime.accuracy[v], rng)
        guess = _probs_of(rng.integers(0, K, n), np.full(n, 0.5), rng)
        p = np.where(unusable[:, None], guess, p)
        p = np.where(misled[:, None], _swapped(p, same_wrong), p)
        x = x + (unusable | misled)[:, None] * mark
        x[absent[:, v]] = np.nan
        p[absent[:, v]] = np.nan
        probs[:, v] = p
        embeddings.append(x)
    made = views_from_arrays(
        np.array([f"video{i:03d}" for i in video]),
        probs,
        embeddings,
        names=_NAMES[:views],
        classes=tuple(s.value for s in SENTIMENTS),
        target="sentiment",
        segment_ids=[f"video{v:03d}-{i:05d}" for i, v in enumerate(video)],
    )
    return Drawn(made, y)


def _absent(regime: Regime, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(n, V) which views are missing; of two that would be, the first stays."""
    shares = regime.absent + (0.0,) * (len(regime.accuracy) - len(regime.absent))
    absent = rng.random((regime.segments, len(shares))) < np.array(shares)
    absent[absent.all(axis=1), 0] = False
    return absent


def _head(
    x: NDArray[np.floating],
    prototypes: NDArray[np.floating],
    y: NDArray[np.intp],
    sigma: float,
    accuracy: float,
    rng: np.random.Generator,
) -> NDArray[np.floating]:
    """A linear head: the prototypes' discriminant, perturbed until its accuracy is as asked."""
    weights = prototypes.T / sigma**2
    bias = -0.5 * (prototypes**2).sum(axis=1) / sigma**2
    d_weights = rng.normal(size=weights.shape) * np.sqrt((weights**2).mean())
    d_bias = rng.normal(size=K) * np.abs(bias).mean()

    def logits(size: float) -> NDArray[np.floating]:
        return x @ (weights + size * d_weights) + bias + size * d_bias

    low, high = 0.0, 32.0
    for _ in range(40):
        size = (low + high) / 2
        if (logits(size).argmax(axis=1) == y).mean() > accuracy:
            low = size
        else:
            high = size
    z = logits(low)
    z -= z.mean(axis=1, keepdims=True)
    return _softmax(z / z.std() * _HEAD_SPREAD / _OVERCONFIDENCE)


def _random(
    regime: Regime, view: int, y: NDArray[np.intp], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Right with each segment's own reliability, which the probabilities overstate."""
    accuracy = regime.accuracy[view]
    u = rng.beta(4 * accuracy, 4 * (1 - accuracy), len(y))
    wrong = (y + rng.integers(1, K, len(y))) % K
    said = np.where(rng.random(len(y)) < u, y, wrong)
    return said, _probs_of(said, u, rng)


def _bias(
    regime: Regime, view: int, y: NDArray[np.intp], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """As `_random`, but 80 % of the wrong ones go to the view's favourite class."""
    accuracy = regime.accuracy[view]
    u = rng.beta(4 * accuracy, 4 * (1 - accuracy), len(y))
    favourite = (1, 0, 2)[view % K]
    wrong = (y + rng.integers(1, K, len(y))) % K
    wrong = np.where((rng.random(len(y)) < 0.8) & (y != favourite), favourite, wrong)
    said = np.where(rng.random(len(y)) < u, y, wrong)
    return said, _probs_of(said, u, rng)


def _later(
    regime: Regime, view: int, y: NDArray[np.intp], rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """A head needs the embedding first."""
    return y, np.zeros((len(y), K))


_SAY: dict[
    str,
    Callable[
        [Regime, int, NDArray[np.intp], np.random.Generator],
        tuple[NDArray[np.intp], NDArray[np.floating]],
    ],
] = {"random": _random, "bias": _bias, "inside": _random, "head": _later}


def _probs_of(
    said: NDArray[np.intp], reliability: NDArray[np.floating], rng: np.random.Generator
) -> NDArray[np.floating]:
    """Probabilities that vote for `said`, informative and overconfident, noise .1 on all logits."""
    u = np.clip(reliability, 1e-6, 1 - 1e-6)
    height = np.log(u / (1 - u)) / _OVERCONFIDENCE + np.log(K - 1)
    z = np.zeros((len(said), K))
    z[np.arange(len(said)), said] = np.clip(height, 0.3, 9)
    return _softmax(z + 0.1 * rng.normal(size=z.shape))


def _swapped(probs: NDArray[np.floating], to: NDArray[np.intp]) -> NDArray[np.floating]:
    """The same probabilities with the highest moved to another class."""
    out = probs.copy()
    rows = np.arange(len(probs))
    top = probs.argmax(axis=1)
    out[rows, top], out[rows, to] = probs[rows, to], probs[rows, top]
    return out


def _softmax(z: NDArray[np.floating]) -> NDArray[np.floating]:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    probs: NDArray[np.floating] = e / e.sum(axis=1, keepdims=True)
    return probs


def names() -> Sequence[str]:
    """Of the regimes, in the order of the study."""
    return tuple(REGIMES)
