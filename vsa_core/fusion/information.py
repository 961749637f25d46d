"""Weigh each view's evidence so that the views tell as much about one another as they can.

Two views that err independently given the truth are calibrated posteriors `p_1`, `p_2` exactly
where `Σ_k p_1(k) p_2(k) / π_k` is their pointwise density ratio; the weights of greatest mutual
information are therefore those of the truth, with no label in sight. Confidently contradicting
the others costs much, so a view that errs is turned down, one that mixes up classes is unmixed.

Source: Kong and Schoenebeck 2018, Water from Two Rocks; Cao et al. 2019, Max-MIG (ICLR). New
here: several views at once, absent views, the contrast taken within each video, so that what a
video's segments share (speaker, light, topic) counts as no information.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Where the weights start and are drawn back to: pretrained models are overconfident (.7), what
# was learned on the target itself counts in full.
VOTE_WEIGHT, EXPERT_WEIGHT = 0.7, 1.0
# How many segments' worth of evidence it takes to move a weight by one.
_RIDGE = 30.0
# The same for the log-prior, so that a class nobody believes in stays possible.
_PRIOR_RIDGE = 1.0
# A video's own mean counts like this many of its segments less: few segments say little of it.
_POOLED = 10.0
# Weight of the constraint that each view's mean posterior is the prior.
_CONSISTENCY = 0.1
_ITERATIONS = 80
# Less likely than this is as good as impossible: beyond it nothing is gained and exp overflows.
_LEAST_LOG = -300.0
# Log-priors (before they sum to 1) beyond this count as this: the search tries absurd ones.
_MOST_PRIOR = 15.0


@dataclass(frozen=True, slots=True)
class Weights:
    """How the votes and the expert of each of V views become evidence on K classes.

    `evidence_m(k) = log softmax(votes_m · A_m + expert_m · B_m + b_m + log π) − log π`

    Attributes:
        votes, expert: (V, K, K), the A and B.
        bias: (V, K).
        log_prior: (K,) log π.
    """

    votes: Floats
    expert: Floats
    bias: Floats
    log_prior: Floats

    def evidence(self, votes: Floats, expert: Floats, present: NDArray[np.bool_]) -> Floats:
        """Evidence (V, n, K) in nats, 0 where a view (n, V) is absent; inputs (V, n, K)."""
        logits = votes @ self.votes + expert @ self.expert + self.bias[:, None] + self.log_prior
        evidence: Floats = np.maximum(log_softmax(logits), _LEAST_LOG) - self.log_prior
        evidence[~present.T] = 0
        return evidence


def log_softmax(logits: Floats) -> Floats:
    """Log of the softmax over the last axis."""
    out: Floats = logits - _log_sum_exp(logits)[..., None]
    return out


def softmax(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    return np.exp(log_softmax(logits))


def fit_weights(
    votes: Floats,
    expert: Floats,
    present: NDArray[np.bool_],
    video: NDArray[np.integer],
    *,
    mixing: bool = True,
    known: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
) -> Weights:
    """The weights of greatest mutual information between the views, drawn towards the start.

    Args:
        votes: (V, n, K) log-probabilities of the pretrained models, mean 0 over the classes; 0
            where one does not vote.
        expert: (V, n, K) evidence of the experts likewise; 0 where there is none.
        present: (n, V).
        video: (n,) number of the segment's video.
        mixing: False fits one weight per source and a bias, no matrices.
        known: rows (r,) and classes (r,) that humans gave; their likelihood is added.
    """
    from scipy.optimize import minimize

    problem = _Problem(votes, expert, present, video, mixing, known)
    found = minimize(
        problem.loss,
        problem.start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": _ITERATIONS, "maxcor": 20},
    )
    return problem.weights(found.x)


def information(
    log_prior: Floats,
    evidence: Floats,
    present: NDArray[np.bool_],
    video: NDArray[np.integer],
) -> Floats:
    """What each segment (n,) adds to the mutual information of the views, in nats.

    Its mean is a lower bound of the information (Donsker and Varadhan) when the weights come from
    other segments. 0 where fewer than two views are present.
    """
    log_ratio, contrast = _contrast(evidence, log_prior, present, video)
    return np.where(present.sum(axis=1) > 1, log_ratio - contrast, 0.0)


def _contrast(
    evidence: Floats, log_prior: Floats, present: NDArray[np.bool_], video: NDArray[np.integer]
) -> tuple[Floats, Floats]:
    joint = _log_sum_exp(log_prior + evidence.sum(axis=0))
    videos = int(video.max()) + 1 if len(video) else 0
    ratio = np.exp(evidence) * present.T[..., None]
    count = np.maximum(present.sum(axis=0), 1)
    # A view that is present nowhere says nothing: 1, as its mean should be.
    there = np.asarray(present.any(axis=0))[:, None]
    overall = np.where(there, ratio.sum(axis=1) / count[:, None], 1.0)
    log_means = np.zeros((videos, evidence.shape[2]))
    for view in range(len(evidence)):
        total = _by_video(ratio[view], video, videos)
        n = np.bincount(video, present[:, view], videos)
        log_means += np.log((total + _POOLED * overall[view]) / (n + _POOLED)[:, None])
    return joint, _log_sum_exp(log_prior + log_means)[video]


def _by_video(values: Floats, video: NDArray[np.integer], videos: int) -> Floats:
    """Sums (videos, K) of (n, K)."""
    return np.stack([np.bincount(video, column, videos) for column in values.T], axis=1)


def _log_sum_exp(z: Floats) -> Floats:
    # Class by class: numpy reduces a last axis of a few classes ten times slower.
    classes = [z[..., k] for k in range(z.shape[-1])]
    top = reduce(np.maximum, classes)
    total = np.zeros_like(top)
    for column in classes:
        total += np.exp(column - top)
    out: Floats = top + np.log(total)
    return out


def _log_prior(prior: Floats) -> Floats:
    return log_softmax(np.clip(prior, -_MOST_PRIOR, _MOST_PRIOR))


class _Problem:
    """The loss and its gradient over one flat vector of parameters."""

    def __init__(
        self,
        votes: Floats,
        expert: Floats,
        present: NDArray[np.bool_],
        video: NDArray[np.integer],
        mixing: bool,
        known: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    ) -> None:
        self.views, _, self.classes = votes.shape
        self.mixing = mixing
        kept = present.sum(axis=1) > 1
        labelled = np.full(len(present), -1)
        if known is not None:
            labelled[known[0]] = known[1]
            kept |= labelled >= 0
        self.sources = np.concatenate([votes[:, kept], expert[:, kept]], axis=2)  # (V, N, 2K)
        self.present = present[kept].T
        self.contrasted = present[kept].sum(axis=1) > 1
        self.labelled = labelled[kept]
        _, self.video = np.unique(video[kept], return_inverse=True)
        self.videos = int(self.video.max()) + 1 if kept.any() else 0
        self.rows = max(int(kept.sum()), 1)
        self.count = np.maximum(self.present.sum(axis=1), 1)  # (V,)
        self.in_video = np.stack(
            [np.bincount(self.video, seen, self.videos) for seen in self.present]
        )  # (V, videos)
        self.weight_of_video = np.bincount(self.video, self.contrasted, self.videos)
        self.centre = np.eye(self.classes) - 1 / self.classes
        self.base = np.array([VOTE_WEIGHT, EXPERT_WEIGHT])
        shapes = [(self.views, 2), (self.views, self.classes), (self.classes,)]
        if mixing:
            shapes.append((self.views, 2, self.classes, self.classes))
        self.shapes = shapes
        self.start = np.zeros(sum(int(np.prod(shape)) for shape in shapes))

    def _split(self, flat: Floats) -> list[Floats]:
        out, at = [], 0
        for shape in self.shapes:
            size = int(np.prod(shape))
            out.append(flat[at : at + size].reshape(shape))
            at += size
        if not self.mixing:
            out.append(np.zeros((self.views, 2, self.classes, self.classes)))
        return out

    def _maps(self, scale: Floats, mixture: Floats) -> Floats:
        """(V, 2, K, K): centred maps from votes and expert to evidence."""
        diagonal = (self.base + scale)[..., None, None] * np.eye(self.classes)
        maps: Floats = self.centre @ (diagonal + mixture) @ self.centre
        return maps

    def weights(self, flat: Floats) -> Weights:
        scale, bias, prior, mixture = self._split(flat)
        maps = self._maps(scale, mixture)
        return Weights(maps[:, 0], maps[:, 1], bias @ self.centre, _log_prior(prior))

    def loss(self, flat: Floats) -> tuple[float, Floats]:
        scale, bias, prior, mixture = self._split(flat)
        n, k = self.rows, self.classes
        maps = self._maps(scale, mixture).reshape(self.views, 2 * k, k)
        log_prior = _log_prior(prior)
        posterior = log_softmax(self.sources @ maps + (bias @ self.centre)[:, None] + log_prior)
        seen = self.present[..., None]
        evidence = np.where(seen, np.maximum(posterior, _LEAST_LOG) - log_prior, 0.0)
        together = log_prior + evidence.sum(axis=0)
        joint = _log_sum_exp(together)
        responsibility = np.exp(together - joint[:, None])  # (N, K)

        ratio = np.exp(evidence) * seen
        there = self.present.any(axis=1)[:, None]
        overall = np.where(there, ratio.sum(axis=1) / self.count[:, None], 1.0)  # (V, K)
        totals = np.stack([_by_video(r, self.video, self.videos) for r in ratio])
        spread = (self.in_video + _POOLED)[..., None]
        means = (totals + _POOLED * overall[:, None]) / spread  # (V, videos, K)
        apart = log_prior + np.log(means).sum(axis=0)
        contrast = _log_sum_exp(apart)
        product = np.exp(apart - contrast[:, None])  # (videos, K)

        value = joint[self.contrasted].sum() - (self.weight_of_video * contrast).sum()
        # d(value)/d(evidence), d(value)/d(log prior)
        d_evidence = np.repeat((responsibility * self.contrasted[:, None])[None], self.views, 0)
        d_prior = d_evidence[0].sum(axis=0) - (self.weight_of_video[:, None] * product).sum(axis=0)
        d_means = -(self.weight_of_video[:, None] * product)[None] / means / spread
        off = overall - 1
        d_overall = _POOLED * d_means.sum(axis=1) - n * _CONSISTENCY * 2 * off
        d_ratio = d_means[:, self.video] + (d_overall / self.count[:, None])[:, None]
        d_evidence += ratio * d_ratio
        value -= n * _CONSISTENCY * (off**2).sum()
        if (self.labelled >= 0).any():
            rows = np.flatnonzero(self.labelled >= 0)
            classes = self.labelled[rows]
            value += (together[rows, classes] - joint[rows]).sum()
            miss = -responsibility[rows]
            miss[np.arange(len(rows)), classes] += 1
            d_evidence[:, rows] += miss
            d_prior = d_prior + miss.sum(axis=0)
        d_evidence *= seen
        d_prior = d_prior - d_evidence.sum(axis=(0, 1))
        d_evidence *= posterior > _LEAST_LOG
        d_logits = d_evidence - np.exp(posterior) * d_evidence.sum(axis=2, keepdims=True)
        d_prior = d_prior + d_logits.sum(axis=(0, 1))
        d_maps = (self.sources.transpose(0, 2, 1) @ d_logits).reshape(self.views, 2, k, k)
        d_mixture = self.centre @ d_maps @ self.centre

        value -= _RIDGE * ((scale**2).sum() + (bias**2).sum() + (mixture**2).sum())
        value -= _PRIOR_RIDGE * (prior**2).sum()
        gradient = [
            np.trace(d_mixture, axis1=2, axis2=3) - 2 * _RIDGE * scale,
            d_logits.sum(axis=1) @ self.centre - 2 * _RIDGE * bias,
            (d_prior - np.exp(log_prior) * d_prior.sum()) * (np.abs(prior) < _MOST_PRIOR)
            - 2 * _PRIOR_RIDGE * prior,
        ]
        if self.mixing:
            gradient.append(d_mixture - 2 * _RIDGE * mixture)
        return -value / n, -np.concatenate([g.ravel() for g in gradient]) / n
