"""From utterances to a packaged model: trained, calibrated, scored on rows held out"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vsa_core.errors import ConfigError, UsageError
from vsa_core.evaluate import (
    calibration_error,
    confusion_by_video,
    f1_of,
    interval_by_video,
)
from vsa_core.progress import Steps, begin
from vsa_core.supervised.dataset import UtteranceDataset
from vsa_core.supervised.encoders import make_encoders
from vsa_core.supervised.features import FeatureCache
from vsa_core.supervised.journal import Journal, open_journals
from vsa_core.supervised.model import MultimodalNet
from vsa_core.supervised.package import load_package, save_package
from vsa_core.supervised.recipe import Recipe
from vsa_core.supervised.stored import put_truth
from vsa_core.supervised.train import Opinions, Training, opinions
from vsa_core.supervised.utterances import TARGETS, Utterance, groups_in_folds
from vsa_core.whole_files import put_whole

_LEVEL = 0.95
_TEMPERATURES = (0.25, 8.0)
_DECODERS = 2
PREDICTIONS = "predictions.csv"


def fit(
    recipe: Recipe,
    sets: Mapping[str, Sequence[Utterance]],
    out: Path,
    *,
    features: Path,
    about: Mapping[str, Any],
    init: Path | None = None,
    journals: Sequence[str | Journal] = ("tensorboard",),
    workers: int = 0,
) -> dict[str, Any]:
    """Train, score and package a model; what was begun in the folder goes on.

    Temperatures are fitted on `dev`, which also says when to stop; `test` is looked at once, at the
    end.

    Args:
        recipe: how.
        sets: `train` and `dev`, and `test` where there is one.
        out: holds the training (`training/`), the package (`model/`) and `predictions.csv`, what
            the model says of `test`.
        features: folder of decoded pictures and sounds, shared by trainings.
        about: written into the card.
        init: a packaged model whose weights to begin from; of the same encoders and fusion.
        journals: where the training is told of, as `open_journals` takes them.
        workers: processes that read utterances.

    Returns:
        JSON-able: `epochs`, `best_epoch`, `rows` by set, `lacking` (by set, utterances without a
        picture or a sound that the recipe reads), `temperature` by target, and `metrics` by set and
        target as `figures` gives them.

    Raises:
        ConfigError, UsageError, BackendError, StoreError, VsaError: as the parts.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cache, lacking = _filled(recipe, sets, features)
    torch.manual_seed(recipe.seed)
    net = MultimodalNet(recipe, make_encoders(recipe.encoders, pretrained=init is None))
    if init is not None:
        _begin_from(net, init)
    told = open_journals(journals, out / "training", recipe.model_dump(mode="json"))
    try:
        training = Training(
            out / "training",
            net,
            recipe,
            sets["train"],
            sets["dev"],
            cache,
            device=device,
            workers=workers,
            journal=told,
        )
        trained = training.run()
    finally:
        told.close()
    net = trained.net.to(device)
    said = {
        name: opinions(
            net, UtteranceDataset(some, recipe, cache, train=False), None, recipe, device
        )
        for name, some in sets.items()
        if name != "train" and len(some)
    }
    warm = {t: _temperature(said["dev"].probs[t], _truth(sets["dev"], t)) for t in recipe.targets}
    found = {
        "epochs": trained.epochs,
        "best_epoch": trained.epoch + 1,
        "rows": {name: len(some) for name, some in sets.items()},
        "lacking": lacking,
        "temperature": warm,
        "metrics": {
            name: {
                target: figures(
                    cooled(told_of.probs[target], warm[target]),
                    _truth(sets[name], target),
                    _groups(sets[name]),
                )
                for target in recipe.targets
            }
            for name, told_of in said.items()
        },
    }
    save_package(out / "model", net.to("cpu"), recipe, {**about, **found})
    last = "test" if "test" in said else "dev"
    write_predictions(out / PREDICTIONS, sets[last], said[last], warm)
    return found


def cross_validate(
    recipe: Recipe,
    rows: Sequence[Utterance],
    folds: int,
    out: Path,
    *,
    features: Path,
    about: Mapping[str, Any],
    journals: Sequence[str | Journal] = ("tensorboard",),
    workers: int = 0,
) -> dict[str, Any]:
    """Train and score a model for each fold; a dialogue or video is in one fold only.

    Of each turn one fold is held out and scored, the next one says when to stop, the others are
    learned from.

    Args:
        recipe: how.
        rows: what is cut into folds.
        folds: K, at least 3.
        out: holds a folder `fold-<k>` for each.
        features, about, journals, workers: as in `fit`.

    Returns:
        JSON-able: `folds`, and `metrics` by target with mean and sd over the held-out folds of
        `accuracy`, `macro_f1` and `weighted_f1`, and `each` by fold.

    Raises:
        UsageError: fewer than three folds, or fewer groups than folds.
    """
    if folds < 3:
        raise UsageError(f"--kfold is {folds}: at least 3, for one fold is scored and one stops")
    try:
        held = groups_in_folds(rows, folds, recipe.seed)
    except ValueError as error:
        raise UsageError(f"--kfold {folds}: {error}") from error
    each = []
    for k in range(folds):
        apart = {"test": held[k], "dev": held[(k + 1) % folds]}
        out_of = {row for some in apart.values() for row in some}
        apart["train"] = [row for row in range(len(rows)) if row not in out_of]
        sets = {name: [rows[row] for row in some] for name, some in apart.items()}
        each.append(
            fit(
                recipe,
                sets,
                out / f"fold-{k + 1}",
                features=features,
                about={**about, "fold": k + 1, "folds": folds},
                journals=journals,
                workers=workers,
            )["metrics"]["test"]
        )
    metrics: dict[str, Any] = {}
    for target in recipe.targets:
        metrics[target] = {"each": [one[target] for one in each]}
        for name in ("accuracy", "macro_f1", "weighted_f1"):
            values = [v for one in each if (v := one[target][name]["value"]) is not None]
            metrics[target][name] = {
                "mean": float(np.mean(values)) if values else None,
                "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            }
    return {"folds": folds, "metrics": metrics}


def figures(
    probs: NDArray[np.floating], truth: NDArray[np.integer], groups: NDArray[np.integer]
) -> dict[str, Any]:
    """How right probabilities are of n rows in G groups.

    Args:
        probs: (n, K), rows that sum to 1.
        truth: (n,) classes; -1 where it is not known, which counts nowhere.
        groups: (n,) from 0 to G - 1, dialogues or videos.

    Returns:
        `n`; `coverage`, 1 as a model decides every row; `accuracy`, `macro_f1`, `weighted_f1` with
        `value`, `low`, `high` (95 % over whole groups; null with fewer than two); `ece`; `nll`; and
        `confusion` (K, K) by truth and decision. Values are null where no row has a truth.
    """
    known = truth >= 0
    n, classes = int(known.sum()), probs.shape[1]
    if not n:
        nothing = {"value": None, "low": None, "high": None}
        return {
            "n": 0,
            "coverage": None,
            **dict.fromkeys(("accuracy", "macro_f1", "weighted_f1"), nothing),
            "ece": None,
            "nll": None,
            "confusion": None,
        }
    probs, truth = probs[known], truth[known]
    said = probs.argmax(axis=1)
    by_group = confusion_by_video(truth, said, groups[known], classes)

    def figure(statistic: Any) -> dict[str, float | None]:
        low, high = interval_by_video(by_group, statistic, level=_LEVEL) or (None, None)
        value = float(statistic(by_group.sum(axis=0)))
        return {"value": value, "low": _within(low), "high": _within(high)}

    return {
        "n": n,
        "coverage": 1.0,
        "accuracy": figure(lambda total: float(np.trace(total) / total.sum())),
        "macro_f1": figure(f1_of),
        "weighted_f1": figure(lambda total: f1_of(total, weighted=True)),
        "ece": calibration_error(probs.max(axis=1), said == truth),
        "nll": float(-np.log(np.maximum(probs[np.arange(n), truth], 1e-12)).mean()),
        "confusion": by_group.sum(axis=0)[:, :classes].tolist(),
    }


def cooled(probs: NDArray[np.floating], temperature: float) -> NDArray[np.float32]:
    """(n, K) probabilities at another temperature; above 1 they are less sure."""
    logits = np.log(np.maximum(probs, 1e-30)) / temperature
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), np.float32)


def write_predictions(
    path: Path, rows: Sequence[Utterance], said: Opinions, temperature: Mapping[str, float]
) -> None:
    """What a model says of each row, as `vsa evaluate` reads it; the row's group is its video."""
    probs = {t: cooled(p, temperature.get(t, 1.0)) for t, p in said.probs.items()}
    sure = {"sentiment": "confidence", "emotion": "emotion_confidence"}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    named = [name for t in probs for name in (t, sure[t])]
    writer.writerow(["segment_id", "video_id", "start_ms", "end_ms", "text", *named])
    for at, row in enumerate(rows):
        values: list[Any] = []
        for target, p in probs.items():
            values += [TARGETS[target][int(p[at].argmax())], f"{float(p[at].max()):.6f}"]
        times = [row.start_ms, row.end_ms] if row.end_ms > row.start_ms else ["", ""]
        writer.writerow([row.id, row.group, *times, row.text or "", *values])
    put_whole(path, text.getvalue().encode())


def write_truth_of(path: Path, rows: Sequence[Utterance]) -> None:
    """What people said of each row, as `vsa evaluate` reads it."""
    put_truth(path, ((row.id, {t: TARGETS[t][k] for t, k in row.labels.items()}) for row in rows))


def _filled(
    recipe: Recipe, sets: Mapping[str, Sequence[Utterance]], folder: Path
) -> tuple[FeatureCache | None, dict[str, int]]:
    """The cache, filled (None for text alone), and how many of each set lack something."""
    encoders = recipe.encoders
    if encoders.video is None and encoders.audio is None:
        return None, dict.fromkeys(sets, 0)
    cache = FeatureCache(folder, encoders.video, encoders.audio)
    rows = [row for some in sets.values() for row in some]
    begin("Decoding", 1)
    notes = cache.fill(rows, _DECODERS, Steps("Decoding"))
    return cache, {name: sum(row.id in notes for row in some) for name, some in sets.items()}


def _begin_from(net: MultimodalNet, folder: Path) -> None:
    """Fill a network from a packaged one; heads it has beyond that one stay as they are."""
    given, _, _ = load_package(folder)
    weights = given.state_dict()
    own = net.state_dict()
    other = [n for n, x in own.items() if n in weights and weights[n].shape != x.shape]
    lacking = [n for n in own if n not in weights and not n.startswith("heads.")]
    if other or lacking:
        first = (other or lacking)[0]
        raise ConfigError(
            f"model {folder} is of another recipe than this one ({first} differs): train with the "
            "recipe in it, or begin anew"
        )
    net.load_state_dict({**own, **{n: x for n, x in weights.items() if n in own}})


def _temperature(probs: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    """The temperature at which rows of known truth are likeliest; 1 where there are none."""
    known = truth >= 0
    if not known.any():
        return 1.0
    from scipy.optimize import minimize_scalar

    held, true = probs[known], truth[known]
    at = np.arange(len(true))

    def loss(log: float) -> float:
        return float(-np.log(np.maximum(cooled(held, float(np.exp(log)))[at, true], 1e-12)).mean())

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def _within(bound: float | None) -> float | None:
    return None if bound is None else min(max(bound, 0.0), 1.0)


def _truth(rows: Sequence[Utterance], target: str) -> NDArray[np.int64]:
    return np.array([row.labels.get(target, -1) for row in rows], np.int64)


def _groups(rows: Sequence[Utterance]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row.group, len(numbers)) for row in rows], np.int64)
