"""The ways to fuse, by name: from a mean of probabilities to the cross-view engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.errors import StoreError, UsageError, meant
from vsa_core.fusion import late
from vsa_core.fusion.crossview import Crossview, learn
from vsa_core.fusion.groups import Groups, group, mostly_of
from vsa_core.fusion.tf_mvsa import TfMvsa, label_as_tf_mvsa, tf_mvsa
from vsa_core.fusion.views import Views

if TYPE_CHECKING:
    from vsa_core.fusion.student import Student

STRATEGIES = ("late-mean", "late-product", "vote", "tf-mvsa", "crossview", "crossview-attention")
DEFAULT = "crossview-attention"

_LATE = {"late-mean": late.mean, "late-product": late.product, "vote": late.vote}
UNTRAINED = tuple(_LATE)
# The files of a stored model; a model has those it needs.
_ABOUT, _ENGINE, _NETWORK = "fusion.json", "crossview.safetensors", "attention.safetensors"
# Multiplying adds evidence, which must not add confidence: these only flatten.
_TEMPERATURES = np.geomspace(1.0, 4.0, 41)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What fusion says of n segments, agreeing ones too.

    Attributes:
        probs: per target (n, K); NaN rows where nothing can be said.
        attention: (n, V), summing to 1 over the views present; NaN where a view is absent, and
            for all views where none is used.
    """

    probs: Mapping[str, NDArray[np.floating]]
    attention: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Known:
    """What humans said of some segments.

    Attributes:
        target: what the labels are classes of.
        rows: (r,) which segments.
        labels: (r,) index of the class.
    """

    target: str
    rows: NDArray[np.intp]
    labels: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Model:
    """A strategy with what it learned; labels any segments of the same views.

    Attributes:
        strategy: its name.
        min_confidence: a vote whose highest probability is below this abstains (`tf-mvsa`).
        folds: by video the fold whose members never saw it; empty where nothing was trained.
        engine: of `crossview` and `crossview-attention`, else None.
        network: of `tf-mvsa` and `crossview-attention`; None where it needs or has none.
        shares: per target how much the network counts beside the engine, and what the product's
            logarithm is divided by.
    """

    strategy: str
    min_confidence: float = 0.5
    folds: Mapping[str, int] | None = None
    engine: Crossview | None = None
    network: Student | None = None
    shares: Mapping[str, tuple[float, float]] | None = None

    def opinion(self, views: Views) -> Opinion:
        """What the strategy says of segments; those of videos it was trained on, leak-free.

        Raises:
            UsageError: the views are not those it was trained on.
        """
        target = next(iter(views.probs))
        if self.strategy in _LATE:
            pool = _LATE[self.strategy]
            probs = {name: pool(said) for name, said in views.probs.items()}
            return Opinion(probs, late.shares(views.probs[target], views.present))
        if self.strategy == "tf-mvsa":
            said = label_as_tf_mvsa(views, self.member(views), self.network, self.min_confidence)
            return Opinion(*said)
        assert self.engine is not None
        if views.names != self.engine.names or set(views.probs) != set(self.engine.targets):
            raise UsageError(
                f"the model was trained on {', '.join(self.engine.names)}, these segments have "
                f"{', '.join(views.names)}: train it on them"
            )
        judged = {name: self.engine.judge(views, name) for name in views.probs}
        taught = {name: posterior for name, (posterior, _) in judged.items()}
        if self.network is None:
            return Opinion(taught, judged[target][1])
        says, attention = self.network.infer(views, self.member(views))
        shares = self.shares or {}
        both = {
            name: _product(p, says[name], *shares[name]) if name in says else p
            for name, p in taught.items()
        }
        return Opinion(both, attention)

    def member(self, views: Views) -> NDArray[np.intp]:
        """(n,) fold that never saw the segment's video; −1 for a video nobody was trained on."""
        of_video = np.array([(self.folds or {}).get(v, -1) for v in views.videos], np.intp)
        return of_video[views.video] if len(of_video) else np.zeros(0, np.intp)

    def to_files(self) -> dict[str, bytes]:
        """Its files by name; no pickle."""
        about = {
            "strategy": self.strategy,
            "min_confidence": self.min_confidence,
            "folds": dict(self.folds or {}),
            "shares": {name: list(both) for name, both in (self.shares or {}).items()},
        }
        files = {_ABOUT: json.dumps(about, indent=1, sort_keys=True).encode()}
        if self.engine is not None:
            files[_ENGINE] = self.engine.to_bytes()
        if self.network is not None:
            files[_NETWORK] = self.network.to_bytes()
        return files

    @classmethod
    def from_files(cls, read: Callable[[str], bytes | None]) -> Model:
        """The model whose files `read` gives by name, None for one that is not there.

        Raises:
            StoreError: the files are not a model's.
        """
        about_bytes, engine, network = read(_ABOUT), read(_ENGINE), read(_NETWORK)
        try:
            about = json.loads(about_bytes or b"")
            shares = {name: (float(a), float(b)) for name, (a, b) in about["shares"].items()}
            model = cls(
                about["strategy"],
                about["min_confidence"],
                about["folds"],
                Crossview.from_bytes(engine) if engine else None,
                None,
                shares,
            )
        except (ValueError, KeyError, TypeError, UsageError) as error:
            raise StoreError(f"not a fusion model ({error}): train it again") from error
        if network is None:
            return model
        from vsa_core.fusion.student import Student

        return cls(
            model.strategy,
            model.min_confidence,
            model.folds,
            model.engine,
            Student.from_bytes(network),
            shares,
        )


@dataclass(frozen=True, slots=True)
class Fused:
    """The outcome of fusing.

    Attributes:
        opinion: of the segments that were given; no segment is judged by what was trained on its
            own video.
        model: labels other segments of the same views.
        report: JSON-able facts: `strategy`, `notes` and per target what was found out.
    """

    opinion: Opinion
    model: Model
    report: dict[str, Any]


def fuse(
    views: Views,
    strategy: str = DEFAULT,
    *,
    settings: config.Fusion | None = None,
    min_confidence: float = 0.5,
    known: Known | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fused:
    """What the views say together.

    Args:
        views: n segments.
        strategy: one of `STRATEGIES`.
        settings: of the training; None takes the defaults.
        min_confidence: a vote whose highest probability is below this abstains (`tf-mvsa`).
        known: what humans said of some of the segments, which the cross-view strategies believe;
            None where nobody did.
        progress: told the share of the work done, 0 to 1.

    Raises:
        UsageError: no such strategy.
    """
    settings = settings or config.Fusion()
    report: dict[str, Any] = {"strategy": strategy, "notes": list(views.notes), "targets": {}}
    if strategy not in STRATEGIES:
        names = ", ".join(STRATEGIES) + meant(strategy, STRATEGIES)
        raise UsageError(f"no strategy {strategy!r}: take one of {names}")
    if strategy in _LATE:
        model = Model(strategy, min_confidence)
        return Fused(model.opinion(views), model, report)
    groups = None if strategy == "tf-mvsa" else group(views, settings.seed)
    of_video = assign_folds(views, settings.folds, settings.seed, groups)
    folds = of_video[views.video] if len(views.videos) else np.zeros(0, np.intp)
    named = dict(zip(views.videos, of_video.tolist(), strict=True))
    if strategy == "tf-mvsa":
        found: TfMvsa = tf_mvsa(views, folds, settings, min_confidence, progress)
        report["notes"] += [found.note] if found.note else []
        model = Model(strategy, min_confidence, named, None, found.student)
        return Fused(Opinion(found.probs, found.attention), model, report)
    attentive = strategy == "crossview-attention"
    engine = learn(
        views,
        folds,
        groups=groups,
        known={known.target: (known.rows, known.labels)} if known is not None else None,
        seed=settings.seed,
        progress=_part(progress, 0.0, 0.3 if attentive else 1.0),
    )
    report["groups"] = int(groups.found.sum()) if groups is not None else 0
    report["targets"] = {name: target.report for name, target in engine.targets.items()}
    model = Model(strategy, min_confidence, named, engine)
    if attentive:
        model = _with_student(model, views, folds, settings, report, _part(progress, 0.3, 1.0))
    return Fused(model.opinion(views), model, report)


def assign_folds(
    views: Views, folds: int, seed: int, groups: Groups | None = None
) -> NDArray[np.intp]:
    """Fold of each video, of about as many segments each; fewer folds with fewer videos.

    With groups, the videos whose segments are mostly of one group are in one fold.
    """
    if groups is not None and groups.found.any():
        mostly = mostly_of(groups, views.video)
        names = tuple(str(g) for g in range(len(groups.found)))
        grouped = replace(views, videos=names, video=mostly[views.video].astype(np.int32))
        return assign_folds(grouped, folds, seed)[mostly]
    counts = np.bincount(views.video, minlength=len(views.videos))
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    largest_first = shuffled[np.argsort(-counts[shuffled], kind="stable")]
    load = np.zeros(max(min(folds, len(counts)), 1), np.int64)
    fold_of = np.zeros(len(counts), np.intp)
    for video in largest_first:
        lightest = int(load.argmin())
        fold_of[video] = lightest
        load[lightest] += counts[video]
    return fold_of


def _with_student(
    model: Model,
    views: Views,
    folds: NDArray[np.intp],
    settings: config.Fusion,
    report: dict[str, Any],
    progress: Callable[[float], None] | None,
) -> Model:
    """The model with a network that was taught what the engine says of all segments."""
    from vsa_core.fusion.learn import train_student
    from vsa_core.fusion.student import skill

    assert model.engine is not None
    taught = {
        name: model.engine.probs(views, name)
        for name in views.probs
        if report["targets"][name]["decides"] != "product"  # late fusion is no lesson
    }
    if not taught:
        return model
    try:
        student = train_student(views, taught, folds, settings, progress=progress)
    except UsageError as error:
        report["notes"].append(f"no attention network: {error}")
        return model
    says, _ = student.infer(views, folds)
    shares = {}
    for name, said in says.items():
        # The engine has been calibrated, the student has only been taught: half its skill counts.
        weight = 0.5 * skill(said, taught[name])
        shares[name] = (weight, _cooled(taught[name], said, weight))
        report["targets"][name]["network_share"] = weight
    return Model(model.strategy, model.min_confidence, model.folds, model.engine, student, shares)


def _product(
    engine: NDArray[np.floating], network: NDArray[np.floating], weight: float, temperature: float
) -> NDArray[np.float64]:
    """`(engine · network^weight)^(1/temperature)`, summing to 1; where one is silent the other."""
    logs = np.log(np.maximum(engine, 1e-12)) + weight * np.log(np.maximum(network, 1e-12))
    logs /= temperature
    pooled = np.exp(logs - logs.max(axis=1, keepdims=True))
    pooled /= pooled.sum(axis=1, keepdims=True)
    alone = np.where(np.isnan(engine).any(axis=1, keepdims=True), network, engine)
    return np.where(np.isnan(pooled).any(axis=1, keepdims=True), alone, pooled)


def _cooled(engine: NDArray[np.floating], network: NDArray[np.floating], weight: float) -> float:
    """The temperature at which the product is on average as sure as the engine."""
    rows = np.isfinite(engine).all(axis=1) & np.isfinite(network).all(axis=1)
    if not rows.any():
        return 1.0
    aim = engine[rows].max(axis=1).mean()
    for temperature in _TEMPERATURES:
        sure = _product(engine[rows], network[rows], weight, float(temperature))
        if sure.max(axis=1).mean() <= aim:
            break
    return float(temperature)


def _part(
    progress: Callable[[float], None] | None, start: float, stop: float
) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda share: progress(start + (stop - start) * share)
