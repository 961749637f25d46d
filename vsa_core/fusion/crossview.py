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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from vsa_core.agree import has_vote
from vsa_core.errors import UsageError
from vsa_core.fusion import late
from vsa_core.fusion.experts import Expert, ViewSums, one_blas_thread
from vsa_core.fusion.groups import Groups
from vsa_core.fusion.information import VOTE_WEIGHT, Floats, Weights, softmax
from vsa_core.fusion.teaching import Teacher, all_sums, hear, scored
from vsa_core.fusion.views import Views
from vsa_core.fusion.weighing import (
    Fitter,
    association,
    compare,
    kappa,
    named_as_voted,
    sample_of,
)

ROUNDS = 5
# Where weights cannot be fitted, fewer rounds: each one drifts a little.
_ROUNDS_TAUGHT = 3
# A view's own evidence counts half among what its expert is taught: without it the teachers are
# too often wrong, in full the expert learns its own view's mistakes.
_OWN = 0.5
# The same there, and the weight of an expert.
_OWN_TAUGHT, _EXPERT_TAUGHT = 0.75, 1.5
# Nothing tells how sure to be then; evidence is worth about half of what it claims.
_TEMPERATURE_TAUGHT = 1.75
# Weights fitted on few segments are surer than they are right: `1 + this / segments`.
_FEW = 100.0
# A video's own shares of the classes against those of all: this many segments count as one prior.
_VIDEO_PRIOR = 30.0
# They are believed where the experts carry at least this share of the evidence.
_LEADING = 0.5
_PRIOR_STEPS = 8
# The votes' own association is what names the classes: it must be beyond doubt.
ASSOCIATED = 3.0
# So much of it, in sds, is chance where the best of several groupings of the segments was taken.
_CHOSEN = 1.0
# Without it, humans' labels can vouch for the engine: by so many standard errors.
_VOUCHED = 2.0
# Chance-corrected agreement with late fusion below this: the classes found are not those voted on.
_LEAST_KAPPA = 0.35


@dataclass(frozen=True, slots=True)
class TargetModel:
    """What was learned about one target.

    Attributes:
        experts: per view; None where it has none, all None where experts do not help.
        weights: of votes and experts.
        own: share of a view's own evidence in what its expert was taught.
        temperature: what the log-posterior is divided by, so that confidence means what it says.
        shares: (K,) of the classes among the segments learned from, by what is believed of them.
        report: JSON-able: what was found out about the views.
    """

    experts: tuple[Expert | None, ...]
    weights: Weights
    own: float
    temperature: float
    shares: Floats
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

    @one_blas_thread()
    def evidence(self, views: Views, target: str) -> Floats:
        """What each view says in nats (V, n, K), less what all classes share; 0 where absent."""
        model = self.targets[target]
        votes = vote_evidence(views.probs[target])
        if all(expert is None for expert in model.experts):
            return model.weights.evidence(votes, np.zeros_like(votes), views.present)
        member = self.member(views)
        said = scored(views, model.experts, member, votes.shape[2])
        evidence, prior = VOTE_WEIGHT * votes, model.weights.log_prior
        for _ in range(ROUNDS):  # offsets need beliefs, beliefs need offsets
            heard = hear(views, model.experts, said, member, evidence, prior, model.own)
            evidence = model.weights.evidence(votes, heard, views.present)
        return evidence

    def judge(self, views: Views, target: str) -> tuple[Floats, Floats]:
        """Posterior (n, K) and attention (n, V), from one look at the embeddings.

        The posterior is NaN where no view says anything; a view's attention, its share in the
        evidence, is NaN where the view is absent.
        """
        model = self.targets[target]
        said = has_vote(views.probs[target])
        for v, expert in enumerate(model.experts):
            if expert is not None:
                said[:, v] |= views.embedded[:, v]
        evidence = self.evidence(views, target)
        total = evidence.sum(axis=0)
        posterior = softmax(total + model.weights.log_prior)
        counted = np.asarray(said.any(axis=1))
        # Votes lean by video, as their models do; only experts have that taken off.
        if self.folds and model.report.get("experts_share", 0.0) >= _LEADING:
            posterior = _with_video_prior(posterior, views.video, counted, model.shares)
        tempered = softmax(np.log(np.maximum(posterior, 1e-30)) / model.temperature)
        posterior = np.where(counted[:, None], tempered, np.nan)
        return posterior, shares_of_evidence(evidence, views.present)

    def probs(self, views: Views, target: str) -> Floats:
        """The posterior of `judge`."""
        return self.judge(views, target)[0]

    def attention(self, views: Views, target: str) -> Floats:
        """The attention of `judge`."""
        return self.judge(views, target)[1]

    def member(self, views: Views) -> NDArray[np.intp]:
        """(n,) fold whose experts judge a segment; −1, all of them, for a new video."""
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
                "own": model.own,
                "temperature": model.temperature,
                "shares": model.shares.tolist(),
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
                    tuple(
                        part(Expert, f"expert{v}") if there else None
                        for v, there in enumerate(about["experts"])
                    ),
                    part(Weights, "weights"),
                    about["own"],
                    about["temperature"],
                    np.array(about["shares"]),
                    about["report"],
                )
            classes = {t: tuple(c) for t, c in facts["classes"].items()}
            return cls(tuple(facts["names"]), classes, facts["folds"], targets)
        except Exception as error:  # safetensors, json and numpy each have their own
            raise UsageError(f"not a cross-view model ({error})") from error


@one_blas_thread()
def learn(
    views: Views,
    folds: NDArray[np.integer],
    *,
    groups: Groups | None = None,
    known: Mapping[str, tuple[NDArray[np.intp], NDArray[np.intp]]] | None = None,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Crossview:
    """Learn from n segments what their views are worth, without a label.

    Args:
        views: the segments.
        folds: (n,) from 0, a video wholly in one; a single fold learns no experts.
        groups: of segments that share more than their class; None for the videos.
        known: per target rows and classes that humans gave; they are believed.
        seed: which segments the weights are fitted on where there are very many.
        progress: told the share of the work done, 0 to 1; may raise to stop it.
    """
    count = int(folds.max()) + 1 if len(folds) else 1
    sums = all_sums(views, folds, count, groups)
    grouped = views
    if groups is not None and groups.found.any():
        grouped = replace(views, video=groups.number.astype(np.int32))
    targets = {}
    for i, target in enumerate(views.probs):

        def report(share: float, i: int = i) -> None:
            if progress is not None:
                progress((i + share) / len(views.probs))

        given = (known or {}).get(target)
        targets[target] = _learn_target(views, grouped, target, folds, sums, given, seed, report)
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


def _learn_target(
    views: Views,
    grouped: Views,
    target: str,
    folds: NDArray[np.integer],
    sums: Sequence[ViewSums | None],
    known: tuple[NDArray[np.intp], NDArray[np.intp]] | None,
    seed: int,
    progress: Callable[[float], None],
) -> TargetModel:
    votes = vote_evidence(views.probs[target])
    nothing, k = np.zeros_like(votes), votes.shape[2]
    sample = sample_of(views, known, seed)
    if known is None and not has_vote(views.probs[target]).any():
        sums = [None] * len(sums)  # nothing names a class, so embeddings say nothing either
    teacher = Teacher(views, folds, sums, k, known)
    fit = Fitter(votes, grouped, sample, known)
    none: tuple[Expert | None, ...] = (None,) * len(votes)
    named = association(views.probs[target], grouped.video)
    if grouped is not views:
        named -= _CHOSEN
    report: dict[str, Any] = {"votes_association_z": named}

    experts, heard, weights = none, nothing, _plain(len(votes), k)
    tied = named > ASSOCIATED
    if tied or known is not None:
        evidence, prior = VOTE_WEIGHT * votes, weights.log_prior
        for turn in range(ROUNDS if teacher.able else 0):
            experts, heard = teacher.teach(evidence, prior, _OWN)
            weights = named_as_voted(
                fit(heard), votes, heard, views, sample, views.probs[target], known
            )
            evidence, prior = weights.evidence(votes, heard, views.present), weights.log_prior
            progress((turn + 1) / (ROUNDS + 2))
        report |= compare(fit, heard, grouped, target, folds, teacher.able)
        posterior = softmax(evidence.sum(axis=0) + prior)
        agreed = kappa(posterior, views.probs[target])
        report["agreement_with_late_fusion_kappa"] = agreed
        # Of humans' labels that weights were not fitted to, how many more than late fusion's.
        gain, error = report.get("gain_on_known", (0.0, 0.0))
        found = (tied and agreed >= _LEAST_KAPPA and gain >= -error) or gain > _VOUCHED * error
        if report["decides"] == "experts" and found:
            progress(1.0)
            shares = _shares(evidence, prior)
            temperature = 1 + _FEW / max(len(sample), 1)
            report["experts_share"] = _experts_share(weights, votes, heard)
            return TargetModel(experts, weights, _OWN, temperature, shares, report)
        if report["decides"] == "votes" and tied:
            weights = fit(nothing, mixing=False)
            progress(1.0)
            evidence = weights.evidence(votes, nothing, views.present)
            shares = _shares(evidence, weights.log_prior)
            return TargetModel(none, weights, _OWN, 1.0, shares, report)
    able = teacher.able and tied  # else one view's votes are no lesson for another
    weights, experts = _plain(len(votes), k), none
    evidence = VOTE_WEIGHT * votes
    for _ in range(_ROUNDS_TAUGHT if able else 0):
        experts, heard = teacher.teach(evidence, weights.log_prior, _OWN_TAUGHT)
        slopes = teacher.slopes(evidence, weights.log_prior, heard, _OWN_TAUGHT)
        weights = _plain(len(votes), k, _EXPERT_TAUGHT * slopes)
        evidence = weights.evidence(votes, heard, views.present)
        report["slopes"] = slopes.tolist()
        report["experts_share"] = _experts_share(weights, votes, heard)
    report["decides"] = "taught" if able else "product"
    progress(1.0)
    shares = _shares(evidence, weights.log_prior)
    temperature = _TEMPERATURE_TAUGHT if able else 1.0
    return TargetModel(experts, weights, _OWN_TAUGHT, temperature, shares, report)


def _shares(evidence: Floats, log_prior: Floats) -> Floats:
    """Mean posterior (K,) of the segments that any evidence (V, n, K) speaks of."""
    spoken = evidence.sum(axis=0)[(evidence != 0).any(axis=(0, 2))]
    if not len(spoken):
        return np.asarray(np.exp(log_prior))
    return np.asarray(softmax(spoken + log_prior).mean(axis=0))


def _experts_share(weights: Weights, votes: Floats, heard: Floats) -> float:
    """How much of the evidence is the experts', by its range over the classes."""
    by_votes = float(np.ptp(votes @ weights.votes, axis=2).sum())
    by_experts = float(np.ptp(heard @ weights.expert, axis=2).sum())
    total = by_votes + by_experts
    return by_experts / total if total > 0 else 0.0


def _plain(views: int, k: int, expert: NDArray[np.floating] | None = None) -> Weights:
    """Votes tempered alike, experts (V,) by their slopes, an even prior."""
    centre = np.eye(k) - 1 / k
    slopes = np.zeros(views) if expert is None else expert
    return Weights(
        np.repeat(VOTE_WEIGHT * centre[None], views, axis=0),
        slopes[:, None, None] * centre,
        np.zeros((views, k)),
        np.full(k, -np.log(k)),
    )


def _with_video_prior(
    posterior: Floats, video: NDArray[np.integer], counted: NDArray[np.bool_], base: Floats
) -> Floats:
    """The posterior (n, K) when each video has its own shares of the classes, drawn to `base`."""
    if not counted.any():
        return posterior
    videos = int(video.max()) + 1
    rows = np.flatnonzero(counted)
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
