"""Weigh the views' evidence on a sample, and tell whether the weights are to be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import has_vote
from vsa_core.fusion import late
from vsa_core.fusion.information import (
    Floats,
    Weights,
    fit_weights,
    information,
    softmax,
)
from vsa_core.fusion.views import Views

# Standard errors by which the views' information must exceed nothing, for weights to be fitted.
_SIGNIFICANT = 2.0
# Segments the weights are fitted on: there are dozens of weights, and more segments cost time only.
_FITTED = 20_000
# Segments of one video among them.
_FITTED_PER_VIDEO = 500


def association(probs: NDArray[np.floating], video: NDArray[np.integer]) -> float:
    """How far the votes (n, V, K) of different views go together, in sds of chance.

    Within videos, and between them so far as what a video's votes share cannot be told from what
    each segment says. Every video's mean is taken off, shrunk by `n / (n + κ)`, where κ is the
    variance of a view's votes within videos over that between videos: nothing is taken off a
    video of one segment, nearly all off a long one whose votes lean. Chance is every pairing of
    the votes within a video being as likely, and of the means of videos of about the same length
    (the permutation variance). 0 where no two views vote on the same segments.
    """
    found, variance = 0.0, 0.0
    views, k = probs.shape[1:]
    for a in range(views):
        for b in range(a):
            rows = np.flatnonzero(has_vote(probs[:, a]) & has_vote(probs[:, b]))
            if not len(rows):
                continue
            _, at, size = np.unique(video[rows], return_inverse=True, return_counts=True)
            pair = [probs[rows, v].astype(np.float64) for v in (a, b)]
            means = [_means(x, at, size) for x in pair]
            weight = np.sqrt(size).astype(np.float64)
            left = [weight * _left(x, m, at, size) for x, m in zip(pair, means, strict=True)]
            alike = np.log2(size).astype(np.intp)
            for one, two, group, count in (
                (pair[0] - means[0][at], pair[1] - means[1][at], at, size),
                (*_between(means, left, alike), alike, np.bincount(alike)),
            ):
                if count.max() < 2:  # nothing to pair it with
                    continue
                found += float((one * two).sum())
                for i in range(k):
                    for j in range(i + 1):
                        first = np.bincount(group, one[:, i] * one[:, j])
                        second = np.bincount(group, two[:, i] * two[:, j])
                        product = float((first * second / np.maximum(count - 1, 1)).sum())
                        variance += product if i == j else 2 * product
    return float(found / np.sqrt(variance)) if variance > 0 else 0.0


def _means(x: Floats, at: NDArray[np.integer], size: NDArray[np.integer]) -> Floats:
    return np.stack([np.bincount(at, column) / size for column in x.T], axis=1)


def _left(x: Floats, means: Floats, at: NDArray[np.integer], size: NDArray[np.integer]) -> Floats:
    """(videos,) share of each video's mean that is left when it is taken off, shrunk."""
    n, videos = len(x), len(size)
    if n == videos or videos == 1:  # nothing is known of what a video's votes share; or all is
        return np.full(videos, float(n == videos))
    within = float(((x - means[at]) ** 2).sum()) / (n - videos)
    off = float((size[:, None] * (means - x.mean(axis=0)) ** 2).sum())
    typical = (n - float((size**2).sum()) / n) / (videos - 1)
    between = max(off / (videos - 1) - within, 0.0) / typical
    if within + between == 0:
        return np.ones(videos)
    return np.asarray(within / (within + size * between), np.float64)


def _between(
    means: Sequence[Floats], left: Sequence[Floats], alike: NDArray[np.integer]
) -> list[Floats]:
    """What is left of the videos' means, less its mean over videos of about the same length."""
    out = []
    for mean, share in zip(means, left, strict=True):
        x = mean * share[:, None]
        out.append(x - _means(x, alike, np.maximum(np.bincount(alike), 1))[alike])
    return out


def kappa(posterior: Floats, probs: NDArray[np.floating]) -> float:
    """Cohen's kappa of the posterior's labels and late fusion's, where a view votes."""
    voted = has_vote(probs).any(axis=1)
    if not voted.any():
        return 1.0
    return kappa_of(posterior[voted], late.product(probs[voted]).argmax(axis=1))


def kappa_of(posterior: Floats, theirs: NDArray[np.integer]) -> float:
    """Cohen's kappa of the labels of a posterior (r, K) and others (r,)."""
    ours, k = posterior.argmax(axis=1), posterior.shape[1]
    same = float((ours == theirs).mean())
    share = np.bincount(ours, minlength=k) @ np.bincount(theirs, minlength=k) / len(ours) ** 2
    return float((same - share) / (1 - share)) if share < 1 else 1.0


class Fitter:
    """Fits weights to a sample of the segments."""

    def __init__(
        self,
        votes: Floats,
        views: Views,
        sample: NDArray[np.intp],
        known: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    ) -> None:
        self.votes, self._views, self.sample, self.known = votes, views, sample, known

    def __call__(
        self, heard: Floats, *, mixing: bool = True, rows: NDArray[np.bool_] | None = None
    ) -> Weights:
        """The weights; `rows` (n,) says which segments may be used, None all of the sample."""
        at = self.sample if rows is None else self.sample[rows[self.sample]]
        known = None
        if self.known is not None:
            place = np.full(len(self._views), -1)
            place[at] = np.arange(len(at))
            found = place[self.known[0]] >= 0
            known = (place[self.known[0][found]], self.known[1][found])
        return fit_weights(
            self.votes[:, at],
            heard[:, at],
            self._views.present[at],
            self._views.video[at],
            mixing=mixing,
            known=known,
        )


def sample_of(
    views: Views, known: tuple[NDArray[np.intp], NDArray[np.intp]] | None, seed: int
) -> NDArray[np.intp]:
    """At most `_FITTED` segments with two views or more, whole videos where these are short."""
    useful = np.flatnonzero(views.present.sum(axis=1) > 1)
    if known is not None:
        useful = np.union1d(useful, known[0])
    if len(useful) <= _FITTED:
        return useful
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(views.videos))[views.video[useful]]
    shuffled = rng.permutation(len(useful))
    by_video = shuffled[np.argsort(order[shuffled], kind="stable")]
    sorted_videos = order[by_video]
    starts = np.flatnonzero(np.r_[True, sorted_videos[1:] != sorted_videos[:-1]])
    rank = np.arange(len(by_video)) - np.repeat(starts, np.diff(np.r_[starts, len(by_video)]))
    kept = useful[by_video[rank < _FITTED_PER_VIDEO][:_FITTED]]
    if known is not None:
        kept = np.union1d(kept, known[0])
    return np.sort(kept)


def named_as_voted(
    weights: Weights,
    votes: Floats,
    heard: Floats,
    views: Views,
    sample: NDArray[np.intp],
    probs: NDArray[np.floating],
    known: tuple[NDArray[np.intp], NDArray[np.intp]] | None = None,
) -> Weights:
    """The same weights with the classes named as the votes, and known labels, name them.

    Information is the same under any renaming of the classes; only these say which is which.
    """
    from scipy.optimize import linear_sum_assignment

    evidence = weights.evidence(votes[:, sample], heard[:, sample], views.present[sample])
    posterior = softmax(weights.log_prior + evidence.sum(axis=0))
    k = posterior.shape[1]
    together = np.zeros((k, k))
    for v in range(len(votes)):
        said = has_vote(probs[sample, v])
        if said.any():
            p, q = probs[sample, v][said].astype(float), posterior[said]
            together += (p - p.mean(axis=0)).T @ (q - q.mean(axis=0))
    if known is not None and len(known[0]):
        at = np.flatnonzero(np.isin(sample, known[0]))
        labels = np.full(len(views), -1)
        labels[known[0]] = known[1]
        p, q = np.eye(k)[labels[sample[at]]], posterior[at]
        together += (p - p.mean(axis=0)).T @ (q - q.mean(axis=0))
    _, name = linear_sum_assignment(-together)
    # In one memory order: what is read from a file again must multiply to the same bits.
    return Weights(
        np.ascontiguousarray(weights.votes[:, :, name]),
        np.ascontiguousarray(weights.expert[:, :, name]),
        np.ascontiguousarray(weights.bias[:, name]),
        weights.log_prior[name],
    )


def compare(
    fit: Fitter,
    heard: Floats,
    views: Views,
    target: str,
    folds: NDArray[np.integer],
    able: bool,
) -> dict[str, Any]:
    """Whether experts decide, or votes: by the information on videos the weights never saw.

    Args:
        fit: of the votes and the sample.
        heard: (V, n, K) what the experts say.
        views: n segments.
        target: what they are judged on.
        folds: (n,) of each segment.
        able: whether there are experts.
    """
    votes, sample, probs = fit.votes, fit.sample, views.probs[target]
    nothing = np.zeros_like(votes)
    told = {"experts": np.zeros(len(views)), "votes": np.zeros(len(views))}
    known = fit.known if fit.known is not None else (np.zeros(0, np.intp), np.zeros(0, np.intp))
    hits: list[Floats] = []
    count = len(np.unique(folds))
    for fold in range(count if count > 1 else 0):
        inside = sample[folds[sample] == fold]
        if not len(inside):
            continue
        outside = sample[folds[sample] != fold]
        for kind, source, mixing in (("experts", heard, True), ("votes", nothing, False)):
            if kind == "experts" and not able:
                continue
            weights = fit(source, mixing=mixing, rows=folds != fold)
            present, video = views.present[inside], views.video[inside]
            evidence = weights.evidence(votes[:, inside], source[:, inside], present)
            told[kind][inside] = information(weights.log_prior, evidence, present, video)
            mine = folds[known[0]] == fold
            if kind == "experts" and mine.any():
                others = (known[0][~mine], known[1][~mine])
                weights = named_as_voted(weights, votes, source, views, outside, probs, others)
                rows, right = known[0][mine], known[1][mine]
                says = weights.evidence(votes[:, rows], source[:, rows], views.present[rows])
                ours = (says.sum(axis=0) + weights.log_prior).argmax(axis=1) == right
                theirs = np.nan_to_num(late.product(probs[rows])).argmax(axis=1) == right
                hits.append(ours.astype(np.float64) - theirs)
    at = views.video[sample]
    found = {kind: _mean_and_error(each[sample], at) for kind, each in told.items()}
    gain = _mean_and_error(told["experts"][sample] - told["votes"][sample], at)

    def significant(kind: str) -> bool:
        mean, error = found[kind]
        return mean > _SIGNIFICANT * error

    if able and significant("experts") and gain[0] > _SIGNIFICANT * gain[1]:
        decides = "experts"
    elif significant("votes"):
        decides = "votes"
    else:
        decides = "neither"
    facts: dict[str, Any] = {}
    if hits:
        gains = np.concatenate(hits)
        facts["gain_on_known"] = [float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))]
    return facts | {
        "decides": decides,
        "information_nats": {k: [m, e if np.isfinite(e) else None] for k, (m, e) in found.items()},
        "segments_compared": len(sample),
    }


def _mean_and_error(values: Floats, video: NDArray[np.integer]) -> tuple[float, float]:
    """Mean of segments, and its standard error over videos."""
    if not len(values):
        return 0.0, np.inf
    totals = np.bincount(video, values)
    sizes = np.bincount(video)
    mean = float(values.mean())
    off = (totals - mean * sizes)[sizes > 0]
    if len(off) < 2:
        return mean, np.inf
    spread = np.sqrt((off**2).sum() * len(off) / (len(off) - 1))
    return mean, float(spread / len(values))
