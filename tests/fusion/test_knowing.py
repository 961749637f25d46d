"""What is said about labels without and with reviews: true where it can be, silent elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.errors import UsageError
from vsa_core.experiments.regimes import REGIMES, Drawn, draw
from vsa_core.fusion import knowing, memory
from vsa_core.fusion.judging import judge
from vsa_core.fusion.review import choose_for_review
from vsa_core.fusion.strategies import Fused, Known, fuse
from vsa_core.fusion.views import Held, Views

CALIBRATED = ("random", "shifted", "missing", "collude", "three")


@cache
def fused_of(regime: str, strategy: str = "crossview", n: int = 1500) -> tuple[Drawn, Fused]:
    drawn = draw(replace(REGIMES[regime], segments=n), 100)
    return drawn, fuse(drawn.views, strategy)


def target_of(views: Views) -> str:
    return next(iter(views.probs))


def right_of(drawn: Drawn, fused: Fused) -> NDArray[np.bool_]:
    probs = fused.opinion.probs[target_of(drawn.views)]
    right: NDArray[np.bool_] = np.nan_to_num(probs).argmax(axis=1) == drawn.truth
    return right


def calibration_error(confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    bins = np.clip((confidence * 15).astype(int), 0, 14)
    gaps = [
        abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).sum()
        for b in np.unique(bins)
    ]
    return float(sum(gaps)) / len(right)


def test_confidences_mean_what_they_say_without_a_label() -> None:
    errors = []
    for regime in CALIBRATED:
        drawn, fused = fused_of(regime)
        confidence = fused.opinion.probs[target_of(drawn.views)].max(axis=1)
        errors.append(calibration_error(confidence, right_of(drawn, fused)))
    assert np.mean(errors) < 0.08


@pytest.mark.parametrize("regime", ["shifted", "collude"])
def test_other_strategies_are_judged_by_the_engine(regime: str) -> None:
    drawn, fused = fused_of(regime, "late-product")
    views, target = drawn.views, target_of(drawn.views)
    second = knowing.second_opinion(views, fused)
    found = knowing.report(views, fused, second)["targets"][target]
    accuracy = right_of(drawn, fused).mean()
    assert found["estimate"]["value"] == pytest.approx(accuracy, abs=0.06)
    assert "blind" in found["estimate"]["method"]
    assert found["coverage"] == 1
    # It is far surer than it should be, and that is not repeated.
    assert found["mean_confidence"] > accuracy + 0.1
    # Votes alone do not see that the models are wrong together, embeddings do.
    alone = knowing.report(views, fused)["targets"][target]["estimate"]["value"]
    assert (alone > accuracy + 0.1) == (regime == "collude")
    assert knowing.second_opinion(views, fused_of(regime)[1]) is None


def test_the_report_is_json_and_its_parts_agree() -> None:
    drawn, fused = fused_of("shifted")
    said = knowing.report(drawn.views, fused)
    json.dumps(said, allow_nan=False)
    found = said["targets"][target_of(drawn.views)]
    curve = found["risk_coverage"]
    assert 2 <= len(curve["threshold"]) <= knowing.CURVE_POINTS
    assert np.all(np.diff(curve["coverage"]) > 0)
    assert np.all(np.diff(curve["threshold"]) < 0)
    assert curve["risk"][-1] == pytest.approx(1 - found["estimate"]["value"])
    at = found["thresholds"]["0.1"]
    confidence = fused.opinion.probs[target_of(drawn.views)].max(axis=1)
    kept = confidence >= at["confidence"]
    assert kept.mean() == pytest.approx(at["coverage"])
    assert 1 - right_of(drawn, fused)[kept].mean() < 0.1 + 0.03
    levels = knowing.by_confidence(confidence, confidence)
    assert [row["coverage"] for row in levels] == [
        (confidence >= level).mean() for level in knowing.LEVELS
    ]
    assert said["warnings"] == []


def test_votes_that_do_not_go_together_give_no_estimate_and_a_reason() -> None:
    drawn, _ = fused_of("shifted")
    views, target = drawn.views, target_of(drawn.views)
    probs = views.probs[target].copy()
    probs[:, 1] = np.random.default_rng(0).permutation(probs[:, 1])
    views = replace(views, probs={target: probs})
    for strategy in ("late-product", "crossview"):
        said = knowing.report(views, fuse(views, strategy))
        found = said["targets"][target]
        assert found["estimate"]["value"] is None
        assert "100 segments reviewed" in found["estimate"]["method"]
        assert found["risk_coverage"] is None
    assert any("100 segments reviewed" in line for line in said["warnings"])


def test_an_embedding_of_noise_is_named_and_no_other() -> None:
    drawn, fused = fused_of("shifted")
    views, target = drawn.views, target_of(drawn.views)
    assert fused.model.engine is not None
    healthy = knowing.foretold(views, fused.model.engine, target)
    assert all(told > 0.05 for told, _ in healthy.values())
    noise = np.random.default_rng(0).normal(size=(len(views), 32)).astype(np.float32)
    views = replace(views, embeddings=(views.embeddings[0], Held(np.arange(len(views)), noise)))
    lines = knowing.warnings(views, fuse(views, "crossview"), target)
    assert [line for line in lines if "no better than noise" in line and "face" in line]
    assert not [line for line in lines if "no better than noise" in line and "text" in line]


def test_few_segments_and_no_embeddings_are_warned_of() -> None:
    drawn, fused = fused_of("shifted", n=300)
    target = target_of(drawn.views)
    lines = knowing.warnings(drawn.views, fused, target)
    assert any(line.startswith("300 segments are few") for line in lines) == (
        fused.report["targets"][target]["decides"] in ("experts", "votes")
    )
    none = Held(np.zeros(0, np.intp), np.zeros((0, 0), np.float32))
    bare = replace(
        drawn.views,
        embeddings=(none, none),
        embedded=np.zeros_like(drawn.views.embedded),
        probs={target: drawn.views.probs[target][np.random.default_rng(0).permutation(300)]},
    )
    one_video = replace(bare, videos=("v",), video=np.zeros(300, np.int32))
    rng = np.random.default_rng(1)
    shuffled = one_video.probs[target].copy()
    shuffled[:, 1] = rng.permutation(shuffled[:, 1])
    one_video = replace(one_video, probs={target: shuffled})
    lines = knowing.warnings(one_video, fuse(one_video, "crossview"), target)
    assert any("not correlated beyond chance" in line for line in lines)


def reviewed(drawn: Drawn, fused: Fused, seed: int = 0) -> tuple[Known, NDArray[np.float64]]:
    target = target_of(drawn.views)
    chosen = choose_for_review(fused.opinion.probs[target].max(axis=1), 100, seed=seed)
    return Known(target, chosen.rows, drawn.truth[chosen.rows]), chosen.inclusion[chosen.rows]


def test_reviews_judge_only_labels_that_did_not_learn_from_them() -> None:
    """Reviews at odds with everything must show: an engine fed with them repeats them."""
    drawn, plain = fused_of("shifted", n=800)
    views = drawn.views
    known, chance = reviewed(drawn, plain)

    def refit(given: Known | None) -> Fused:
        return fuse(views, "crossview", known=given)

    honest = judge(views, refit(known), known, refit, inclusion=chance)
    accuracy = right_of(drawn, honest.fused).mean()
    assert honest.estimate.low is not None
    assert honest.estimate.high is not None
    assert honest.estimate.low < accuracy < honest.estimate.high
    wrong = replace(known, labels=(known.labels + 1) % 3)
    planted = judge(views, refit(wrong), wrong, refit, inclusion=chance)
    assert planted.estimate.value is not None
    assert planted.estimate.value < 0.5
    assert planted.right.mean() < 0.4
    assert planted.recalibrated
    # Labels stay, and a label's probability is its confidence.
    target = target_of(views)
    before, after = refit(wrong).opinion.probs[target], planted.fused.opinion.probs[target]
    assert np.array_equal(before.argmax(axis=1), after.argmax(axis=1))
    assert after.sum(axis=1) == pytest.approx(np.ones(len(views)))
    assert after.min() >= 0
    assert after.max() <= 1
    assert after.max(axis=1).mean() < before.max(axis=1).mean() - 0.2


def test_overconfident_labels_are_corrected_and_sets_keep_their_promise() -> None:
    drawn, fused = fused_of("shifted", "late-product")
    known, chance = reviewed(drawn, fused)
    judged = judge(drawn.views, fused, known, lambda _: fused, inclusion=chance)
    assert judged.recalibrated
    others = np.ones(len(drawn.views), bool)
    others[known.rows] = False
    right = right_of(drawn, fused)[others]
    target = target_of(drawn.views)
    errors = [
        calibration_error(of.opinion.probs[target].max(axis=1)[others], right)
        for of in (fused, judged.fused)
    ]
    assert errors[0] > 0.15
    assert errors[1] < 0.08
    sets = judged.label_sets(0.2)
    assert sets[np.arange(len(sets)), drawn.truth][others].mean() > 0.72
    assert (sets.sum(axis=1) >= 1).all()
    assert np.array_equal(sets[known.rows].argmax(axis=1), known.labels)
    assert (sets[known.rows].sum(axis=1) == 1).all()


def test_few_reviews_correct_nothing() -> None:
    drawn, fused = fused_of("shifted", "late-product")
    known, _ = reviewed(drawn, fused)
    few = Known(known.target, known.rows[:9], known.labels[:9])
    judged = judge(drawn.views, fused, few, lambda _: fused)
    assert not judged.recalibrated
    assert judged.fused is fused
    assert "9 reviews are too few" in judged.warnings[0]
    assert judged.estimate.reviewed == 9


def test_a_memory_notices_other_segments_and_not_its_own_kind() -> None:
    drawn, fused = fused_of("shifted")
    views = drawn.views
    kept = memory.remember(views, fused.opinion)
    read = memory.Memory.from_bytes(kept.to_bytes())
    assert memory.drifted(read, kept) == []
    x = np.concatenate([vectors for _, vectors in views.embeddings[0].blocks()])
    assert read.embeddings["text"].mean == pytest.approx(x.mean(axis=0), abs=1e-4)
    assert read.embeddings["text"].scale == pytest.approx(x.std(axis=0), abs=1e-4)
    halves = [np.flatnonzero(views.video % 2 == half) for half in (0, 1)]
    first, second = (
        memory.remember(_some(views, rows), fuse(_some(views, rows), "late-mean").opinion)
        for rows in halves
    )
    assert memory.drifted(first, second) == []
    moved = replace(
        views, embeddings=(Held(np.arange(len(views)), x + np.float32(1)), views.embeddings[1])
    )
    lines = memory.drifted(read, memory.remember(moved, fused.opinion))
    assert len(lines) == 1
    assert "text embeddings" in lines[0]
    target = target_of(views)
    one_sided = np.tile([0.8, 0.1, 0.1], (len(views), 1))
    opinion = replace(fused.opinion, probs={target: one_sided})
    assert any("of the labels" in line for line in memory.drifted(
        read, memory.remember(views, opinion)))  # fmt: skip
    with pytest.raises(UsageError, match="remembers"):
        memory.Memory.from_bytes(b"no such thing")


def _some(views: Views, rows: NDArray[np.intp]) -> Views:
    held = []
    for embedding in views.embeddings:
        assert isinstance(embedding, Held)
        held.append(Held(np.arange(len(rows)), embedding.vectors[rows]))
    return replace(
        views,
        segment_ids=views.segment_ids.take(rows),
        video=views.video[rows],
        present=views.present[rows],
        embedded=views.embedded[rows],
        embeddings=tuple(held),
        probs={target: probs[rows] for target, probs in views.probs.items()},
    )


@pytest.mark.parametrize(
    ("segments", "said"),
    [(1, "all of the"), (16, "all of the"), (60, "about 30"), (900, "about 100")],
)
def test_reviews_are_asked_for_in_proportion(segments: int, said: str) -> None:
    assert knowing._review(segments) == f"have {said} segments reviewed"
