"""Real data: what is scored and how, that no label leaks, and the third-party files themselves."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vsa_core.agree import agreement
from vsa_core.errors import UsageError
from vsa_core.evaluate import split_scores
from vsa_core.experiments import crema_d, digits, mosi, real
from vsa_core.experiments.real import BASELINE, TARGET, Scores, Setting, macro_f1, tally
from vsa_core.experiments.real_page import outcome
from vsa_core.fusion.views import views_from_arrays


def setting(truth: NDArray[np.intp], probs: NDArray[np.floating], videos: int) -> Setting:
    n = len(truth)
    names = tuple(f"view{v}" for v in range(probs.shape[1]))
    classes = tuple(f"class{k}" for k in range(probs.shape[2]))
    video = np.array([f"v{i * videos // n:03d}" for i in range(n)])
    nothing: list[NDArray[np.floating] | None] = [None] * len(names)
    views = views_from_arrays(video, probs, nothing, names=names, classes=classes, target=TARGET)
    return Setting("made", views, truth, 0.0)


def says(label: NDArray[np.intp], classes: int, height: float = 0.8) -> NDArray[np.floating]:
    """(n, K) probabilities whose top is the label."""
    probs = np.full((len(label), classes), (1 - height) / (classes - 1))
    probs[np.arange(len(label)), label] = height
    return probs


def summary(scores: Scores, strategy: str, segments: str = "all") -> dict[str, float]:
    rows = scores.real().summary.to_pylist()
    [row] = [r for r in rows if (r["strategy"], r["segments"]) == (strategy, segments)]
    return row


def test_the_counts_give_the_scores_that_split_scores_gives() -> None:
    rng = np.random.default_rng(0)
    n, k = 400, 4
    truth = rng.choice(k, n, p=[0.6, 0.3, 0.1, 0.0])
    probs = rng.dirichlet(np.ones(k), (n, 2))
    probs[rng.random(n) < 0.2, 1] = np.nan
    opinion = rng.dirichlet(np.ones(k), n)
    opinion[rng.random(n) < 0.3] = np.nan
    made = setting(truth, probs, 8)
    scores = Scores()
    scores.add(made, 0, "ours", opinion, opinion)
    said = np.where(np.isnan(opinion).any(axis=1), -1, np.nan_to_num(opinion).argmax(axis=1))
    states = agreement(probs, 0.0).states
    want = split_scores(truth, said, states == "agree", states == "disagree")
    assert want.all.coverage < 1
    for segments in ("all", "agreeing", "disagreeing"):
        part = getattr(want, segments)
        got = summary(scores, "ours", segments)
        assert got["rows"] == part.rows
        assert got["coverage"] == pytest.approx(part.coverage)
        assert got["accuracy"] == pytest.approx(part.accuracy)
        assert got["macro_f1"] == pytest.approx(part.macro_f1)


def test_intervals_treat_a_video_as_one_draw() -> None:
    """Segments of a video that are right or wrong together tell no more than one segment."""
    rng = np.random.default_rng(1)
    videos, each = 20, 100
    truth = rng.integers(0, 2, videos * each)
    together = np.repeat(np.arange(videos) % 2 == 0, each)
    apart = rng.random(len(truth)) < 0.5
    widths = []
    for right in (together, apart):
        said = says(np.where(right, truth, 1 - truth), 2)
        scores = Scores()
        scores.add(setting(truth, said[:, None], videos), 0, "ours", said, said)
        row = summary(scores, "ours")
        assert row["low"] < row["macro_f1"] < row["high"]
        widths.append(row["high"] - row["low"])
    assert widths[0] > 0.35
    assert widths[1] < 0.08


def test_the_difference_to_late_fusion_is_paired() -> None:
    rng = np.random.default_rng(2)
    n = 600
    truth = rng.integers(0, 3, n)
    late = np.where(rng.random(n) < 0.6, truth, rng.integers(0, 3, n))
    better = np.where(rng.random(n) < 0.2, truth, late)
    made = setting(truth, says(late, 3)[:, None], 30)
    scores = Scores()
    for seed in (0, 1):
        scores.add(made, seed, "same", says(late, 3), says(late, 3))
        scores.add(made, seed, "better", says(better, 3), says(late, 3))
    same, gained = summary(scores, "same"), summary(scores, "better")
    assert (same["gain"], same["gain_low"], same["gain_high"]) == (0, 0, 0)
    assert 0 < gained["gain_low"] < gained["gain"] < gained["gain_high"]
    # Paired: narrower than the score's own interval.
    assert gained["gain_high"] - gained["gain_low"] < gained["high"] - gained["low"]


def test_reviewed_segments_do_not_count_for_who_learned_from_them() -> None:
    truth = np.array([0, 0, 1, 1] * 10)
    said = says(np.zeros(40, np.intp), 2)
    unseen = truth == 1
    scores = Scores()
    scores.add(setting(truth, said[:, None], 4), 0, "ours", said, said, unseen)
    row = summary(scores, "ours")
    assert (row["rows"], row["accuracy"]) == (20, 0)


def test_risk_is_the_accuracy_of_the_surest_share_and_stops_where_nothing_is_decided() -> None:
    truth = np.zeros(10, np.intp)
    opinion = np.array([[0.9, 0.1]] * 3 + [[0.3, 0.7]] * 4 + [[np.nan, np.nan]] * 3)
    made = setting(truth, says(truth, 2)[:, None], 2)
    scores = Scores()
    scores.add(made, 0, "ours", opinion, opinion)
    risk = {row["coverage"]: row["accuracy"] for row in scores.real().risk.to_pylist()}
    assert risk[0.3] == 1
    assert risk[0.6] == 0.5
    assert max(risk) == 0.7


def test_a_class_that_is_never_decided_on_counts_nought() -> None:
    truth = np.array([0, 0, 1])
    said = np.array([0, 0, -1])
    counts = tally(truth, said, np.zeros(3, np.int32), np.ones(3, bool), 1, 3)
    assert macro_f1(counts.sum(axis=0)) == 0.5


def test_the_page_names_every_setting_and_puts_a_dash_where_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(real, "STRATEGIES", ("late-mean", "late-product", "vote"))
    monkeypatch.setattr(real, "LEARNING", ())
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 120)
    probs = np.stack([says(truth, 2), rng.dirichlet([1, 1], 120)], axis=1)
    scores = Scores(facts=["a fact"])
    for seed in (0, 1):
        real.score_setting(scores, setting(truth, probs, 10), seed)
    found = outcome("mosi", scores)
    page = found.summary
    assert "- a fact" in page
    assert "## Made" in page
    assert "vsa experiment mosi --seeds 2" in page
    cells = {line.split(" | ")[0]: line.split(" | ") for line in page.splitlines() if "|" in line}
    assert {"| view0 alone", "| vote", f"| {BASELINE}", "| supervised weights"} <= set(cells)
    assert "| supervised" not in cells  # there are no embeddings to read
    [vote] = [line for line in page.splitlines() if line.startswith("| vote") and "±" in line]
    assert vote.split(" | ")[3] == "–"  # two views that differ: no majority
    assert found.tables["results"].num_rows == 3 * 2 * 6
    assert len(found.figures["risk"].axes[0].lines) == 6


@pytest.mark.parametrize("run", [mosi.run, crema_d.run])
def test_missing_data_is_one_line_that_says_where_it_comes_from(run, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run(tmp_path, [0])
    said = str(caught.value)
    assert str(tmp_path) in said
    assert "--data DIR" in said
    assert "GitHub" in said
    assert "\n" not in said


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mosi").mkdir()
    (tmp_path / "crema_d").mkdir()
    (tmp_path / "crema_d" / "votes_dev.csv").write_text("clip,actor\na,1\n")
    with pytest.raises(UsageError, match="is not the table of votes"):
        crema_d.read(tmp_path)
    table = tmp_path / "mosi" / "utterances.csv"
    table.write_text("id,video,segment,part,positive,text\nv_1,v,1,test,1,hello\n")
    x = np.zeros((2, 3), np.float32)
    np.savez(tmp_path / "mosi" / "features.npz", text=x, audio=x, video=x)
    with pytest.raises(UsageError, match="not as many rows"):
        mosi.read(tmp_path)
    np.savez(tmp_path / "mosi" / "features.npz", text=x)
    with pytest.raises(UsageError, match="audio"):
        mosi.read(tmp_path)


@pytest.fixture(scope="session")
def opinions(shared: Path) -> mosi.Mosi:
    return mosi.read(shared)


def packaged(data: mosi.Mosi) -> mosi.Packaged:
    """In the place of the text backend, which takes seconds."""
    rng = np.random.default_rng(4)
    n = len(data.video)
    return mosi.Packaged(rng.dirichlet([1, 1], n), rng.normal(size=(n, 8)).astype(np.float32))


@pytest.mark.shared
def test_mosi_heads_see_twenty_train_videos_and_strategies_the_test_part(
    opinions: mosi.Mosi,
) -> None:
    source = mosi.source_rows(opinions, 0)
    assert len(np.unique(opinions.video[source])) == mosi.SOURCE_VIDEOS
    assert not (source & opinions.test).any()
    assert not np.array_equal(source, mosi.source_rows(opinions, 1))
    settings = mosi.settings_of(opinions, packaged(opinions), 0)
    assert len({s.name for s in settings}) == len(settings) == 5
    test = set(opinions.video[opinions.test])
    assert not test & set(opinions.video[source])
    for made in settings:
        assert len(made.views) == 752
        assert set(made.views.videos) == test


@pytest.mark.shared
def test_no_label_outside_the_source_split_reaches_a_view(opinions: mosi.Mosi) -> None:
    source = mosi.source_rows(opinions, 0)
    other = np.where(source, opinions.positive, 1 - opinions.positive)
    ours = packaged(opinions)
    for made, again in zip(
        mosi.settings_of(opinions, ours, 0),
        mosi.settings_of(replace(opinions, positive=other), ours, 0),
        strict=True,
    ):
        np.testing.assert_array_equal(made.views.probs[TARGET], again.views.probs[TARGET])
        assert (made.truth != again.truth).all()
    # … and the source split's do, so that the test could fail.
    flipped = replace(opinions, positive=np.where(source, 1 - opinions.positive, opinions.positive))
    [first, changed] = [mosi.settings_of(m, ours, 0)[0] for m in (opinions, flipped)]
    assert not np.allclose(first.views.probs[TARGET], changed.views.probs[TARGET])


@pytest.mark.shared
def test_in_the_setting_without_labels_only_the_text_votes(opinions: mosi.Mosi) -> None:
    views = mosi.settings_of(opinions, packaged(opinions), 0)[-1].views
    votes = np.isfinite(views.probs[TARGET]).all(axis=2)
    assert votes[:, 0].all()
    assert not votes[:, 1:].any()
    assert views.embedded.all()


def test_the_spread_of_videos_is_told_beside_what_chance_would_give() -> None:
    video = np.repeat(["a", "b", "c", "d"], 100)
    of_a_kind = np.repeat([0, 1, 0, 1], 100)
    found = mosi.Mosi(video, np.ones(400, bool), of_a_kind, ("",) * 400, {})
    assert "standard deviation of 0.500, where 0.050" in mosi.spread(found)
    mixed = replace(found, positive=np.tile([0, 1], 200))
    assert "standard deviation of 0.000" in mosi.spread(mixed)


@pytest.mark.shared
def test_crema_d_is_what_its_readme_says(shared: Path) -> None:
    crema = crema_d.read(shared)
    assert len(crema.truth) + crema.tied == 3436
    assert len(np.unique(crema.actor)) == 42
    votes = agreement(crema_d.shares(crema.votes), 0.0)
    agree = votes.states == "agree"
    right = crema.votes[agree, 0].argmax(axis=1) == crema.truth[agree]
    assert right.mean() == pytest.approx(0.93, abs=0.01)
    facts = "\n".join(crema_d.facts(crema))
    assert f"{crema.tied} more were left out" in facts
    assert "disagree" in facts


@pytest.mark.shared
def test_few_raters_are_drawn_from_those_there_were(shared: Path) -> None:
    crema = crema_d.read(shared)
    few = crema_d.few_raters(crema.votes, np.random.default_rng(0))
    assert (few.sum(axis=2) == crema_d.FEW).all()
    assert (few <= crema.votes).all()
    assert not np.array_equal(few, crema_d.few_raters(crema.votes, np.random.default_rng(1)))
    probs = crema_d.shares(few)
    np.testing.assert_allclose(probs.sum(axis=2), 1)
    assert probs.max() == pytest.approx((crema_d.FEW + 1) / (crema_d.FEW + 6))


def cut(setting: Setting, rows: int) -> Setting:
    """Every n-th segment of a setting, so that about so many are left."""
    views, kept = setting.views, np.arange(0, len(setting.truth), -(-len(setting.truth) // rows))
    vectors: list[NDArray[np.floating] | None] = []
    for embedding in views.embeddings:
        whole = np.full((len(setting.truth), embedding.width), np.nan)
        for number, values in embedding.blocks():
            whole[number] = values
        vectors.append(whole[kept] if embedding.width else None)
    return replace(
        setting,
        views=views_from_arrays(
            np.array(views.videos)[views.video[kept]], views.probs[TARGET][kept], vectors,
            names=views.names, classes=views.classes[TARGET], target=TARGET,
        ),
        truth=setting.truth[kept],
    )  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("module", [digits, mosi, crema_d], ids=lambda m: m.__name__.split(".")[-1])
def test_a_study_of_real_data_still_runs_to_its_page(
    module: Any, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command of docs/real-data.md to its end, with the first setting's every n-th segment."""
    seen: list[str] = []

    def score(scores: Scores, setting: Setting, seed: int) -> None:
        if not seen:
            real.score_setting(scores, cut(setting, 150), seed)
        seen.append(setting.name)

    monkeypatch.setattr(module, "score_setting", score)
    monkeypatch.setattr(mosi, "packaged_text", packaged)
    found = module.run([0]) if module is digits else module.run(shared, [0])
    assert len(seen) > 1
    [best] = [line for line in found.summary.splitlines() if line.startswith("| crossview |")][:1]
    assert re.search(r"\| 0?\.\d+", best)
