"""Synthetic regimes: segments whose truth is known, with every way a pretrained model can err."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vsa_core.fusion.views import Views, views_from_arrays
from vsa_core.labels import SENTIMENTS

K = len(SENTIMENTS)
NAMES = ("text", "face", "audio")
_WIDTHS = (64, 32, 32)
_FAVOURITES = (1, 0, 2)  # the class that a biased view's errors go to
_FAVOURED = 0.8  # share of them that do
_OVERCONFIDENCE = 0.6  # logits are divided by it
_HEAD_SPREAD = 1.5  # standard deviation of a head's logits, however far it is perturbed
_NUISANCE_DIMS = 4
_MARK = 3.0  # length of the direction that marks unusable or colluding segments


@dataclass(frozen=True, slots=True)
class Regime:
    """How segments, embeddings and errors are drawn; V views, at most three.

    Attributes:
        accuracy: (V,) of the pretrained heads, strictly between 0 and 1; where the embedding does
            not allow it, a `head` is as good as the embedding allows.
        errors: `head` (a linear head fitted on another domain), `random` (independent of the
            embedding), `bias` (the same, most of them one class), `inside` (the wrong class also
            sets the embedding).
        concentration: how alike the reliabilities of a view's segments are, unless errors are a
            head's; high makes confidence tell nothing.
        sigma: (V,) noise of the embedding.
        prior: (K,) of the classes.
        absent: share of segments without this view, for the first views; the others are never
            absent, and a segment keeps one view at least.
        unusable: share of segments without a class in the embedding, marked by a direction, for
            the first views; the others have none.
        shared: size of a factor that all embeddings of a segment show and that is no class: its
            length, how loud or how near it is.
        mix: concentration of each video's own class shares (Dirichlet); 0 gives all the prior.
        collude: share of segments on which all heads say the same wrong class, marked likewise.
        segments, videos: how many.
    """

    accuracy: tuple[float, ...]
    errors: Literal["head", "random", "bias", "inside"] = "head"
    concentration: float = 4.0
    sigma: tuple[float, ...] = (1.0, 1.0)
    prior: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
    absent: tuple[float, ...] = ()
    unusable: tuple[float, ...] = ()
    collude: float = 0.0
    mix: float = 0.0
    shared: float = 0.0
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
    "shared": Regime((0.65, 0.55), shared=2.0),
    "topical": Regime((0.65, 0.55), mix=0.5),
    "n300": Regime((0.65, 0.55), segments=300, videos=6),
}


def draw(regime: Regime, seed: int) -> Drawn:
    """The segments of a regime; the same seed gives the same.

    The embedding of view m is `mu[y] + sigma · eps + nuisance`: K orthogonal prototypes with
    pairwise distance 2 in d = 64 (text) or 32 dimensions, eps standard normal, the nuisance per
    video a random point of a random 4-dimensional subspace of the view (standard normal times
    standard normal, halved).

    Source: docs/tf-mvsa.md.
    """
    rng = np.random.default_rng([seed, 20240])
    n, views = regime.segments, len(regime.accuracy)
    video = np.sort(np.arange(n) % regime.videos)
    y = rng.choice(K, n, p=regime.prior)
    if regime.mix:
        of_video = rng.dirichlet(regime.mix * K * np.array(regime.prior), regime.videos)
        y = (rng.random((n, 1)) > of_video[video].cumsum(axis=1)[:, :-1]).sum(axis=1)
    absent = _absent(regime, rng)
    factor = rng.normal(size=n) if regime.shared else np.zeros(n)
    misled = rng.random(n) < regime.collude
    same_wrong = (y + rng.integers(1, K, n)) % K
    probs = np.full((n, views, K), np.nan)
    embeddings: list[NDArray[np.floating] | None] = []
    for v in range(views):
        d = _WIDTHS[v]
        directions = np.linalg.qr(rng.normal(size=(d, K + 1)))[0].T
        prototypes, mark = np.sqrt(2) * directions[:K], _MARK * directions[K]
        unusable = rng.random(n) < _share(regime.unusable, v)
        shown = y
        if regime.errors != "head":
            favourite = _FAVOURITES[v] if regime.errors == "bias" else None
            a, c = regime.accuracy[v], regime.concentration
            said, p = _said(y, rng.beta(c * a, c * (1 - a), n), favourite, rng)
            shown = said if regime.errors == "inside" else y
        x = np.where(unusable[:, None], 0, prototypes[shown])
        x = x + regime.sigma[v] * rng.normal(size=(n, d))
        basis = rng.normal(size=(_NUISANCE_DIMS, d))
        x += (rng.normal(size=(regime.videos, _NUISANCE_DIMS)) @ basis / 2)[video]
        if regime.shared:
            direction = rng.normal(size=d) / np.sqrt(d)
            x += regime.shared * factor[:, None] * direction
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
        names=NAMES[:views],
        classes=tuple(s.value for s in SENTIMENTS),
        target="sentiment",
        segment_ids=[f"video{v:03d}-{i:05d}" for i, v in enumerate(video)],
    )
    return Drawn(made, y)


def _share(shares: tuple[float, ...], view: int) -> float:
    return shares[view] if view < len(shares) else 0.0


def _absent(regime: Regime, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(n, V) which views are missing; where all would be, the first stays."""
    views = len(regime.accuracy)
    shares = np.array([_share(regime.absent, v) for v in range(views)])
    absent = rng.random((regime.segments, views)) < shares
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
    """Probabilities (n, K) of a linear head: the prototypes' discriminant, perturbed.

    Perturbed until its accuracy is as asked; one that is below that unperturbed stays so.
    """
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


def _said(
    y: NDArray[np.intp],
    reliability: NDArray[np.floating],
    favourite: int | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """What a view says (n,), and with which probabilities (n, K), whatever its embedding.

    It is right with each segment's own reliability (n,), which the probabilities overstate; when
    wrong it says any other class, or mostly its favourite.
    """
    wrong = (y + rng.integers(1, K, len(y))) % K
    if favourite is not None:
        wrong = np.where((rng.random(len(y)) < _FAVOURED) & (y != favourite), favourite, wrong)
    said = np.where(rng.random(len(y)) < reliability, y, wrong)
    return said, _probs_of(said, reliability, rng)


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
