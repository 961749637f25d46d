"""The cross-view engine: experts that learn from the other views, weighed by mutual information.

What one view says is a noisy label for the other view's embedding, also where they disagree. So
each view gets a linear expert on its embedding, taught by what the others believe; votes and
experts are weighed so that the views tell as much about one another as they can; and with these
better beliefs the experts are taught again. docs/label-engine.md explains it with figures.

Source: co-training (Blum and Mitchell 1998), co-EM (Nigam and Ghani 2000), Max-MIG (Cao et al.
2019).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from vsa_core.agree import has_vote
from vsa_core.errors import UsageError
from vsa_core.fusion import late
from vsa_core.fusion.experts import Expert, ViewSums, scores, without_offsets
from vsa_core.fusion.information import (
    VOTE_WEIGHT,
    Floats,
    Weights,
    fit_weights,
    information,
    softmax,
)
from vsa_core.fusion.views import Views

ROUNDS = 5
# A view's own evidence counts half among what its expert is taught: without it the teachers are
# too often wrong, in full the expert learns its own view's mistakes.
_OWN = 0.5
# A video's own shares of the classes against those of all: this many segments count as one prior.
_VIDEO_PRIOR = 30.0
_PRIOR_STEPS = 8
# Standard errors by which the views' information must exceed nothing, for the engine to decide.
_SIGNIFICANT = 2.0
# Segments the weights are fitted on: there are dozens of weights, and more segments cost time only.
_FITTED = 20_000
# Segments of one video among them.
_FITTED_PER_VIDEO = 500


@dataclass(frozen=True, slots=True)
class TargetModel:
    """What was learned about one target.

    Attributes:
        engine: whether the experts are used. False: the views share too little information beyond
            their votes; then `weights` weigh votes alone, and are None where not even these do.
        experts: per view; None where it has no embedding.
        weights: of votes and experts.
        report: JSON-able: what was found out about the views.
    """

    engine: bool
    experts: tuple[Expert | None, ...]
    weights: Weights | None
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Crossview:
    """The engine after learning; labels new segments of the same views without learning again.

    Attributes:
        names: the V views.
        classes: per target the names of its classes.
        folds: by video the fold whose experts never saw it.
        targets: what was learned, per target.
    """

    names: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]
    folds: Mapping[str, int]
    targets: Mapping[str, TargetModel]

    def evidence(self, views: Views, target: str) -> Floats:
        """What each view says in nats (V, n, K), less what all classes share; 0 where absent."""
        model = self.targets[target]
        votes = vote_evidence(views.probs[target])
        if model.weights is None:
            return VOTE_WEIGHT * votes
        present = views.present
        heard = np.zeros_like(votes)
        if not model.engine:
            return model.weights.evidence(votes, heard, present)
        member = self.member(views)
        scored = _scored(views, model.experts, member, votes.shape[2])
        evidence = VOTE_WEIGHT * votes
        prior = model.weights.log_prior
        for _ in range(ROUNDS):  # offsets need beliefs, beliefs need offsets
            heard = _heard(views, model.experts, scored, member, evidence, prior)
            evidence = model.weights.evidence(votes, heard, present)
        return evidence

    def probs(self, views: Views, target: str) -> Floats:
        """Posterior (n, K); NaN where no view says anything."""
        model = self.targets[target]
        evidence = self.evidence(views, target)
        if model.weights is None:
            return late.product(views.probs[target])
        said = has_vote(views.probs[target]) | (views.embedded if model.engine else False)
        total = evidence.sum(axis=0)
        posterior = softmax(total + model.weights.log_prior)
        posterior = _with_video_prior(posterior, views.video, said.any(axis=1))
        return np.where(said.any(axis=1, keepdims=True), posterior, np.nan)

    def attention(self, views: Views, target: str) -> Floats:
        """Share (n, V) of each view in the evidence; NaN where absent or where there is none."""
        return shares_of_evidence(self.evidence(views, target), views.present)

    def member(self, views: Views) -> NDArray[np.intp]:
        """(n,) fold whose experts judge a segment; −1, all of them, for a video not learned from."""
        of_video = np.array([self.folds.get(v, -1) for v in views.videos], np.intp)
        return of_video[views.video] if len(of_video) else np.zeros(0, np.intp)

    def to_bytes(self) -> bytes:
        """A safetensors file with its facts as metadata."""
        tensors: dict[str, NDArray[Any]] = {}
        facts: dict[str, Any] = {
            "names": self.names,
            "classes": {t: list(c) for t, c in self.classes.items()},
            "folds": dict(self.folds),
            "targets": {},
        }
        for target, model in self.targets.items():
            facts["targets"][target] = {
                "engine": model.engine,
                "weights": model.weights is not None,
                "experts": [expert is not None for expert in model.experts],
                "report": model.report,
            }
            parts: list[tuple[str, Any]] = [("weights", model.weights)]
            parts += [(f"expert{v}", expert) for v, expert in enumerate(model.experts)]
            for name, part in parts:
                if part is not None:
                    for field in part.__dataclass_fields__:
                        array = np.ascontiguousarray(getattr(part, field))
                        tensors[f"{target}/{name}/{field}"] = array
        # An empty safetensors file has nothing to hold the metadata up.
        tensors["format"] = np.array([1], np.int32)
        return save_tensors(tensors, {"crossview": json.dumps(facts, allow_nan=False)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Crossview:
        """What `to_bytes` gave.

        Raises:
            UsageError: it is something else.
        """
        try:
            size = int.from_bytes(data[:8], "little")
            facts = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["crossview"])
            tensors = load_tensors(data)
            targets = {}
            for target, about in facts["targets"].items():

                def part(kind: type, name: str, target: str = target) -> Any:
                    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
                    return kind(*(tensors[f"{target}/{name}/{field}"] for field in fields))

                targets[target] = TargetModel(
                    about["engine"],
                    tuple(
                        part(Expert, f"expert{v}") if there else None
                        for v, there in enumerate(about["experts"])
                    ),
                    part(Weights, "weights") if about["weights"] else None,
                    about["report"],
                )
            classes = {t: tuple(c) for t, c in facts["classes"].items()}
            return cls(tuple(facts["names"]), classes, facts["folds"], targets)
        except Exception as error:  # safetensors, json and numpy each have their own
            raise UsageError(f"not a cross-view model ({error})") from error


def learn(
    views: Views,
    folds: NDArray[np.integer],
    *,
    known: Mapping[str, tuple[NDArray[np.intp], NDArray[np.intp]]] | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Crossview:
    """Learn from n segments what their views are worth, without a label.

    Args:
        views: the segments.
        folds: (n,) from 0, a video wholly in one; a single fold learns no experts.
        known: per target rows and classes that humans gave; they are believed.
        seed: which segments the weights are fitted on where there are very many.
        progress: told the share of the work done, 0 to 1; may raise to stop it.
    """
    count = int(folds.max()) + 1 if len(folds) else 1
    sums = _all_sums(views, folds, count)
    targets = {}
    for i, target in enumerate(views.probs):

        def report(share: float, i: int = i) -> None:
            if progress is not None:
                progress((i + share) / len(views.probs))

        given = (known or {}).get(target)
        targets[target] = _learn_target(views, target, folds, count, sums, given, seed, report)
    held_out = {
        views.videos[v]: int(f)
        for v, f in zip(*_first_of_each(views.video, folds), strict=True)
        if count > 1
    }
    return Crossview(views.names, views.classes, held_out, targets)


def vote_evidence(probs: NDArray[np.floating]) -> Floats:
    """Log-probabilities (V, n, K) of votes (n, V, K), mean 0 over the classes; 0 without a vote."""
    logs = late.log_probs(probs)
    logs -= logs.mean(axis=2, keepdims=True)
    return np.ascontiguousarray(logs.transpose(1, 0, 2))


def shares_of_evidence(evidence: Floats, present: NDArray[np.bool_]) -> Floats:
    """Share (n, V) of each view in evidence (V, n, K), by its range over the classes."""
    size = np.where(present, np.ptp(evidence, axis=2).T, 0.0)
    total = size.sum(axis=1, keepdims=True)
    count = present.sum(axis=1, keepdims=True)
    even = present / np.maximum(count, 1)
    shares = np.where(total > 0, size / np.where(total > 0, total, 1), even)
    return np.where(present, shares, np.nan)


def _first_of_each(
    video: NDArray[np.integer], folds: NDArray[np.integer]
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    numbers, first = np.unique(video, return_index=True)
    return numbers, folds[first]


def _all_sums(views: Views, folds: NDArray[np.integer], count: int) -> list[ViewSums | None]:
    """Per view what its expert needs; None where it can have none."""
    sums: list[ViewSums | None] = []
    together = views.present.sum(axis=1) > 1
    for v, embedding in enumerate(views.embeddings):
        trained = views.embedded[:, v] & together
        spread = len(np.unique(folds[trained])) > 1
        able = embedding.width > 0 and count > 1 and spread
        sums.append(ViewSums(embedding, trained, folds, count, views.video) if able else None)
    return sums


def _learn_target(
    views: Views,
    target: str,
    folds: NDArray[np.integer],
    count: int,
    sums: Sequence[ViewSums | None],
    known: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    seed: int,
    progress: Callable[[float], None],
) -> TargetModel:
    votes = vote_evidence(views.probs[target])
    k = votes.shape[2]
    experts: tuple[Expert | None, ...] = (None,) * len(votes)
    sample = _sample(views, known, seed)
    fit = _Fitter(votes, views, sample, known)
    nothing = np.zeros_like(votes)
    evidence, prior = VOTE_WEIGHT * votes, np.full(k, -np.log(k))
    weights: Weights | None = None
    heard = nothing
    able = [v for v, view in enumerate(sums) if view is not None]
    for turn in range(ROUNDS if able else 0):
        taught = []
        for v, view in enumerate(sums):
            believed = _taught(evidence, prior, v)
            if known is not None:
                believed[known[0]] = np.eye(k)[known[1]]
            taught.append(view.fit(believed) if view is not None else None)
        experts = tuple(taught)
        scored = _scored(views, experts, folds, k)
        heard = _heard(views, experts, scored, folds, evidence, prior)
        weights = _in_order(fit(heard), votes, heard, views, sample, views.probs[target])
        evidence, prior = weights.evidence(votes, heard, views.present), weights.log_prior
        progress((turn + 1) / (ROUNDS + 1))
    report = _compare(fit, votes, heard, views, folds, count, sample, known, bool(able))
    engine = report["decides"] == "experts"
    if not engine:
        weights = fit(nothing, mixing=False) if report["decides"] == "votes" else None
    progress(1.0)
    return TargetModel(engine, experts if engine else (None,) * len(votes), weights, report)


def _taught(evidence: Floats, prior: Floats, view: int) -> NDArray[np.float32]:
    """What (n, K) the other views believe, with a share of the view's own evidence."""
    others = evidence.sum(axis=0) - (1 - _OWN) * evidence[view]
    return softmax(others + prior).astype(np.float32)


def _scored(
    views: Views, experts: Sequence[Expert | None], member: NDArray[np.integer], k: int
) -> list[NDArray[np.float32]]:
    nothing = np.zeros((0, k), np.float32)
    return [
        scores(views.embeddings[v], expert, member, len(views)) if expert is not None else nothing
        for v, expert in enumerate(experts)
    ]


def _heard(
    views: Views,
    experts: Sequence[Expert | None],
    scored: Sequence[NDArray[np.float32]],
    member: NDArray[np.integer],
    evidence: Floats,
    prior: Floats,
) -> Floats:
    """The experts' evidence (V, n, K) without the videos' offsets."""
    heard = np.zeros_like(evidence)
    for v, expert in enumerate(experts):
        if expert is not None:
            heard[v] = without_offsets(
                scored[v],
                _taught(evidence, prior, v),
                expert,
                member,
                views.embedded[:, v],
                views.video,
            )
    return heard


class _Fitter:
    """Fits weights to a sample of the segments."""

    def __init__(
        self,
        votes: Floats,
        views: Views,
        sample: NDArray[np.intp],
        known: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    ) -> None:
        self._votes, self._views, self._sample, self._known = votes, views, sample, known

    def __call__(
        self, heard: Floats, *, mixing: bool = True, rows: NDArray[np.bool_] | None = None
    ) -> Weights:
        """The weights; `rows` (n,) says which segments may be used, None all of the sample."""
        at = self._sample if rows is None else self._sample[rows[self._sample]]
        known = None
        if self._known is not None:
            place = np.full(len(self._views), -1)
            place[at] = np.arange(len(at))
            found = place[self._known[0]] >= 0
            known = (place[self._known[0][found]], self._known[1][found])
        return fit_weights(
            self._votes[:, at],
            heard[:, at],
            self._views.present[at],
            self._views.video[at],
            mixing=mixing,
            known=known,
        )


def _sample(
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


def _in_order(
    weights: Weights,
    votes: Floats,
    heard: Floats,
    views: Views,
    sample: NDArray[np.intp],
    probs: NDArray[np.floating],
) -> Weights:
    """The same weights with the classes named as the votes name them.

    Information is the same under any renaming of the classes; only the votes say which is which.
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
    _, name = linear_sum_assignment(-together)
    return Weights(
        weights.votes[:, :, name],
        weights.expert[:, :, name],
        weights.bias[:, name],
        weights.log_prior[name],
    )


def _compare(
    fit: _Fitter,
    votes: Floats,
    heard: Floats,
    views: Views,
    folds: NDArray[np.integer],
    count: int,
    sample: NDArray[np.intp],
    known: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    able: bool,
) -> dict[str, Any]:
    """Whether experts decide, or votes: by the information on videos the weights never saw."""
    nothing = np.zeros_like(votes)
    told = {"experts": np.zeros(len(views)), "votes": np.zeros(len(views))}
    for fold in range(count if count > 1 else 0):
        inside = sample[folds[sample] == fold]
        if not len(inside):
            continue
        for kind, source, mixing in (("experts", heard, True), ("votes", nothing, False)):
            if kind == "experts" and not able:
                continue
            weights = fit(source, mixing=mixing, rows=folds != fold)
            present, video = views.present[inside], views.video[inside]
            evidence = weights.evidence(votes[:, inside], source[:, inside], present)
            told[kind][inside] = information(weights, evidence, present, video)
    found = {kind: _mean_and_error(each[sample], views.video[sample]) for kind, each in told.items()}
    gain = _mean_and_error(told["experts"][sample] - told["votes"][sample], views.video[sample])

    def significant(kind: str) -> bool:
        mean, error = found[kind]
        return mean > _SIGNIFICANT * error

    if able and significant("experts") and gain[0] > 0:
        decides = "experts"
    elif significant("votes"):
        decides = "votes"
    else:
        decides = "product"
    del known
    return {
        "decides": decides,
        "information_nats": {k: [float(m), float(e)] for k, (m, e) in found.items()},
        "segments_compared": len(sample),
    }


def _mean_and_error(values: Floats, video: NDArray[np.integer]) -> tuple[float, float]:
    """Mean of segments, and its standard error over videos."""
    if not len(values):
        return 0.0, np.inf
    totals = np.bincount(video, values)
    sizes = np.bincount(video)
    mean = values.mean()
    off = (totals - mean * sizes)[sizes > 0]
    if len(off) < 2:
        return float(mean), np.inf
    spread = np.sqrt((off**2).sum() * len(off) / (len(off) - 1))
    return float(mean), float(spread / len(values))


def _with_video_prior(
    posterior: Floats, video: NDArray[np.integer], counted: NDArray[np.bool_]
) -> Floats:
    """The posterior (n, K) when each video has its own shares of the classes, drawn to the mean."""
    if not counted.any():
        return posterior
    videos = int(video.max()) + 1
    rows = np.flatnonzero(counted)
    base = posterior[rows].mean(axis=0)
    logs = np.log(np.maximum(posterior[rows], 1e-30)) - np.log(base)
    at = video[rows]
    size = np.bincount(at, minlength=videos)[:, None]
    inside = posterior[rows]
    for _ in range(_PRIOR_STEPS):
        held = np.stack([np.bincount(at, column, videos) for column in inside.T], axis=1)
        shares = (held + _VIDEO_PRIOR * base) / (size + _VIDEO_PRIOR)
        inside = softmax(logs + np.log(shares)[at])
    out = posterior.copy()
    out[rows] = inside
    return out
