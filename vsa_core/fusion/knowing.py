"""How right the labels are as far as can be told, and what people should look at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import agreement, has_unique_top, has_vote
from vsa_core.fusion import checks, late
from vsa_core.fusion.abstain import LEVELS, RiskCoverage, pick_threshold, risk_coverage
from vsa_core.fusion.cocalibrate import cocalibrate
from vsa_core.fusion.crossview import ASSOCIATED, Crossview, vote_evidence
from vsa_core.fusion.information import log_softmax, softmax
from vsa_core.fusion.review import Estimate, estimate_without_reviews
from vsa_core.fusion.strategies import Fused, fuse
from vsa_core.fusion.views import Views
from vsa_core.fusion.weighing import association

TARGET_RISKS = (0.2, 0.1, 0.05)
CURVE_POINTS = 20
# Below it confidences were too high where they could be checked (docs/bring-your-own.md).
FEW_SEGMENTS = 1000
# A kappa with late fusion below this is worth a look, when the engine's experts decide.
_STRANGE_KAPPA = 0.2
# Embeddings are held against what other views know, where these know this much (nats).
_KNOWN_NATS = 0.02
_SLOPES = np.linspace(0, 1.2, 13)
_SAMPLE = 50_000
_REVIEWS, _FEW_TO_REVIEW = 100, 40
MOST_JUDGED_TWICE = 50_000
# What decides where the engine's confidences are calibrated by its own fit.
_CALIBRATED = ("experts", "votes")


@dataclass(frozen=True, slots=True)
class Expected:
    """What can be said about the labels of n segments when nobody has looked at any.

    Attributes:
        confidence: (n,) the strategy's own; NaN where there is no label.
        right: (n,) probability that the label is right, as far as agreement tells; None where it
            tells nothing.
        why_not: the reason, where `right` is None.
    """

    confidence: NDArray[np.float64]
    right: NDArray[np.float64] | None
    why_not: str | None = None


def second_opinion(views: Views, fused: Fused) -> Fused | None:
    """The engine's opinion of the same segments, to judge another strategy's labels by.

    None where the strategy is the engine's own, or the segments are so many that people chose
    another for its speed.
    """
    if fused.model.engine is not None or len(views) > MOST_JUDGED_TWICE:
        return None
    return fuse(views, "crossview")


def expected(views: Views, fused: Fused, target: str, second: Fused | None = None) -> Expected:
    """How probable it is that each label is right, from the agreement of the views alone.

    The confidences of an engine whose weights fit the views' agreement are that already. Another
    strategy's label is as probable as a second opinion of that kind has it; without one, as votes
    have it that are calibrated against one another, if votes of different views go together at all.

    Args:
        views: n segments.
        fused: what was said of them.
        target: of what.
        second: as `second_opinion` gives it.
    """
    probs = fused.opinion.probs[target]
    labelled = has_unique_top(probs)
    confidence = np.where(labelled, np.nan_to_num(probs).max(axis=1), np.nan).astype(np.float64)
    if _decides(fused, target) in _CALIBRATED:
        return Expected(confidence, confidence)
    said = views.probs[target]
    if second is not None and _decides(second, target) in _CALIBRATED:
        judge = second.opinion.probs[target].astype(np.float64)
    elif len(views) == 1:
        return Expected(confidence, None, "one segment does not tell who is right: look at it")
    elif association(said, views.video) <= ASSOCIATED:
        return Expected(
            confidence,
            None,
            f"{_untied(views, target)}, so their agreement does not tell who is right: "
            f"{_review(len(confidence))}",
        )
    elif fused.model.network is not None or fused.model.engine is not None:
        return Expected(
            confidence,
            None,
            "the labels rest on embeddings that the votes' agreement does not judge: "
            f"{_review(len(confidence))}",
        )
    else:
        logs = np.where(has_vote(said)[..., None], late.log_probs(said), np.nan)
        judge = cocalibrate(logs).probs(logs)
    own = np.nan_to_num(probs).argmax(axis=1)
    right = np.where(labelled, judge[np.arange(len(own)), own], np.nan)
    return Expected(confidence, right)


def _review(segments: int) -> str:
    """What people can do about it, in proportion to how many segments there are."""
    if segments < _FEW_TO_REVIEW:
        return "have all of the segments reviewed"
    return f"have about {min(_REVIEWS, segments // 2)} segments reviewed"


def _untied(views: Views, target: str) -> str:
    voters = checks.listed(views.voters(target))
    return f"the votes of {voters} are not correlated beyond chance"


def _decides(fused: Fused, target: str) -> str | None:
    found: str | None = fused.report["targets"].get(target, {}).get("decides")
    return found


def report(views: Views, fused: Fused, second: Fused | None = None) -> dict[str, Any]:
    """What is known about the labels when nobody has reviewed any; JSON-able.

    Args:
        views: the segments.
        fused: what was said of them.
        second: as `second_opinion` gives it.

    Returns:
        targets: per target

        - estimate: value (share right; None where nothing can be said), low, high, level, method
          and reviewed, as in `Estimate`;
        - coverage: share of the segments that have a label;
        - mean_confidence: of those; None without any;
        - risk_coverage: threshold, coverage, risk (lists), aurc and basis, as in `RiskCoverage`;
          None without an estimate;
        - thresholds: per target risk (as text) the least confidence that reaches it and the
          coverage there; None where none does.

        warnings: lines people can act on.
    """
    found: dict[str, Any] = {"targets": {}, "warnings": []}
    for target in views.probs:
        said = expected(views, fused, target, second)
        kept = np.isfinite(said.confidence)
        if said.right is None:
            estimate = Estimate(None, None, None, 0.95, said.why_not or "", 0)
            curve = None
        else:
            estimate = estimate_without_reviews(said.right)
            seen = np.where(np.isfinite(said.right), said.confidence, np.nan)
            curve = risk_coverage(seen, expected=said.right)
        found["targets"][target] = {
            "estimate": asdict(estimate),
            "coverage": float(kept.mean()) if len(kept) else 0.0,
            "mean_confidence": float(said.confidence[kept].mean()) if kept.any() else None,
            **described(curve),
        }
        where = f"{target}: " if len(views.probs) > 1 else ""
        found["warnings"] += [where + line for line in warnings(views, fused, target)]
    return found


def described(curve: RiskCoverage | None) -> dict[str, Any]:
    """A curve as JSON: `risk_coverage` with few points, and `thresholds` for target risks."""
    if curve is None:
        return {"risk_coverage": None, "thresholds": {}}
    thresholds: dict[str, Any] = {}
    for risk in TARGET_RISKS:
        at = pick_threshold(curve, risk)
        thresholds[str(risk)] = None if at is None else {"confidence": at[0], "coverage": at[1]}
    few = curve.thinned(CURVE_POINTS)
    points = {
        "threshold": few.threshold.tolist(),
        "coverage": few.coverage.tolist(),
        "risk": few.risk.tolist(),
        "aurc": few.aurc,
        "basis": few.basis,
    }
    return {"risk_coverage": points, "thresholds": thresholds}


def by_confidence(
    confidence: NDArray[np.floating],
    right: NDArray[np.floating] | None,
    reviewed: tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.floating] | None] | None = None,
) -> list[dict[str, Any]]:
    """What keeping only labels at least so sure comes to, a row for each of `LEVELS`.

    Args:
        confidence: (n,) of the labels; NaN where there is none.
        right: (n,) probability that each is right; None where nothing is known.
        reviewed: rows (r,), whether their labels were right (r,), and how probable each was to be
            chosen (r,), None for a random sample.

    Returns:
        confidence (the level), coverage (share of the n), expected (share right, None where not
        known), reviewed (share right of the reviewed ones, in proportion to what they stand for;
        None without) and reviews (how many).
    """
    found = []
    for level in LEVELS:
        kept = confidence >= level
        hoped = right[kept & np.isfinite(right)] if right is not None else np.zeros(0)
        share, reviews = None, 0
        if reviewed is not None:
            rows, hits, chance = reviewed
            inside = kept[rows]
            weight = np.ones(len(rows)) if chance is None else 1 / chance
            reviews = int(inside.sum())
            if reviews:
                share = float(np.average(hits[inside], weights=weight[inside]))
        found.append(
            {
                "confidence": level,
                "coverage": float(kept.mean()) if len(kept) else 0.0,
                "expected": float(hoped.mean()) if len(hoped) else None,
                "reviewed": share,
                "reviews": reviews,
            }
        )
    return found


def warnings(views: Views, fused: Fused, target: str) -> list[str]:
    """What is odd about the views of a target, and what to do about it."""
    said, classes = views.probs[target], views.classes[target]
    voting = has_vote(said).sum(axis=1) > 1
    if not voting.any():
        return ["no two views vote on the same segments: nothing can be learnt from agreement"]
    # However sure: a weak model's votes count here as they do in fusion.
    agreed = agreement(said, 0.0).agreed
    lines = [checks.consensus(agreed.sum(axis=0), int(voting.sum()), classes)]
    tops = np.where(has_unique_top(said), np.nan_to_num(said).argmax(axis=2), -1)
    lines += checks.contradictions(tops, views.names)
    engine = fused.model.engine
    if engine is not None:
        lines += _of_engine(views, engine, target)
    return [line for line in lines if line is not None]


def _of_engine(views: Views, engine: Crossview, target: str) -> list[str | None]:
    facts = engine.targets[target].report
    decides, n = facts["decides"], len(views)
    lines: list[str | None] = []
    if decides == "product" and facts["votes_association_z"] <= ASSOCIATED:
        lines.append(
            f"{_untied(views, target)}, so labels are the product of their probabilities, and "
            "confidences are not calibrated: "
            f"{_review(n)}, or take better models"
        )
    elif decides == "product":
        lines.append(
            "no expert could be trained, so labels are the product of the votes' probabilities: "
            "give embeddings, of two views or more and of two videos or more"
        )
    elif decides == "taught":
        lines.append(
            f"{n} segments are too few to fit the experts' weights, so these are fixed and "
            f"confidences are not calibrated: add videos, or {_review(n)}"
        )
    elif n < FEW_SEGMENTS:
        lines.append(
            f"{n} segments are few to calibrate on: confidences are likely too high; {_review(n)}, "
            "or add videos"
        )
    kappa = facts.get("agreement_with_late_fusion_kappa")
    if decides == "experts" and kappa is not None and kappa < _STRANGE_KAPPA:
        lines.append(
            f"labels differ from late fusion's nearly as often as chance has it (kappa "
            f"{kappa:.2f}): look at some before using them"
        )
    for view, told in foretold(views, engine, target).items():
        lines.append(checks.noise(view, told[0], told[1]))
    return lines


def foretold(views: Views, engine: Crossview, target: str) -> dict[str, tuple[float, int]]:
    """Per view what its embedding foretells of what the other views know, and on how many segments.

    The expert's evidence, of videos it never saw, is held against what the others believe: the
    nats it saves over their mean, at the best slope, in nats that knowing them in full would save.
    Views without an expert, or whose others know next to nothing, are left out.
    """
    model = engine.targets[target]
    if all(expert is None for expert in model.experts):
        return {}
    evidence = engine.evidence(views, target)
    votes = vote_evidence(views.probs[target])
    alone = model.weights.evidence(votes, np.zeros_like(votes), views.present)
    found = {}
    for v, (name, expert) in enumerate(zip(views.names, model.experts, strict=True)):
        rows = np.flatnonzero(views.embedded[:, v] & (views.present.sum(axis=1) > 1))
        if expert is None or not len(rows):
            continue
        rows = rows[:: -(-len(rows) // _SAMPLE)]
        others = softmax((evidence.sum(axis=0) - evidence[v])[rows] + model.weights.log_prior)
        base = np.log(others.mean(axis=0) + 1e-12)
        known = float((others * (np.log(others + 1e-12) - base)).sum(axis=1).mean())
        if known < _KNOWN_NATS:
            continue
        heard = (evidence[v] - alone[v])[rows]
        saved = max(
            float((others * (log_softmax(slope * heard + base) - base)).sum(axis=1).mean())
            for slope in _SLOPES
        )
        found[name] = (saved / known, len(rows))
    return found
