"""`vsa train`: learn a supervised model from MELD or from a store's own segments"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK
from vsa_core.cli.screen import progress_line, write_json, write_table
from vsa_core.errors import UsageError

if TYPE_CHECKING:
    from vsa_core.supervised.recipe import Recipe
    from vsa_core.supervised.utterances import Utterance

_HELD_OUT = 5  # a store's videos are cut into so many parts: one is scored, one stops


def run(args: argparse.Namespace) -> int:
    """Train, score, package, and say what came of it."""
    from vsa_core.supervised.fit import cross_validate, fit, write_truth_of

    recipe = _recipe(args)
    rows, about = _meld(args) if args.action == "meld" else _segments(args, recipe)
    given: dict[str, Any] = {
        "features": args.features or _features(),
        "about": about,
        "journals": [j for j in args.journal or ["tensorboard"] if j != "none"],
        "workers": args.workers,
    }
    with progress_line(sys.stderr):
        if args.kfold:
            learned = [u for name in ("train", "dev") for u in rows.get(name, ())]
            found = cross_validate(recipe, learned, args.kfold, args.out, **given)
        else:
            found = fit(recipe, rows, args.out, init=args.init, **given)
            if "test" in rows:
                write_truth_of(args.out / "truth.csv", rows["test"])
    if args.json:
        write_json(sys.stdout, found)
    else:
        _show(found, args.out, sys.stdout)
    return OK


def _recipe(args: argparse.Namespace) -> Recipe:
    from vsa_core.config import configs_dir
    from vsa_core.supervised.package import load_package
    from vsa_core.supervised.recipe import load_recipe, recipe_of

    if args.init is not None and args.recipe is None:
        recipe = load_package(args.init)[1]
    else:
        recipe = load_recipe(args.recipe or configs_dir() / "supervised" / "meld.yaml")
    values = recipe.model_dump(mode="json")
    if args.text_only:
        values["encoders"] |= {"video": None, "audio": None}
    if args.epochs is not None:
        values["schedule"]["epochs"] = args.epochs
    if args.seed is not None:
        values["seed"] = args.seed
    return recipe_of(values, str(args.recipe or "meld.yaml"))


def _meld(args: argparse.Namespace) -> tuple[dict[str, Sequence[Utterance]], dict[str, Any]]:
    from vsa_core.supervised.meld import read_meld
    from vsa_core.supervised.stored import meld_from_store

    if args.folder is None:
        from vsa_core.cli import opened_store

        rows: Mapping[str, Sequence[Utterance]] = meld_from_store(opened_store(args.store))
        if not rows:
            raise UsageError(
                f"{args.store} has no MELD: `vsa meld prepare DIR --store {args.store}` first, or "
                "name its folder"
            )
    else:
        with progress_line(sys.stderr):
            rows = read_meld(args.folder, check=not args.text_only).utterances
    if lacking := [name for name in ("train", "dev") if not rows.get(name)]:
        raise UsageError(f"MELD has no {' and no '.join(lacking)}: nothing can be learned")
    return dict(rows), {"data": "MELD", "labels": "people's"}


def _segments(
    args: argparse.Namespace, recipe: Recipe
) -> tuple[dict[str, Sequence[Utterance]], dict[str, Any]]:
    """A store's segments, whole videos held out."""
    from vsa_core.cli import opened_store
    from vsa_core.supervised.stored import segments_of_store
    from vsa_core.supervised.utterances import groups_in_folds

    rows = segments_of_store(opened_store(args.store), args.labels)
    whose = "labels by consensus" if args.labels == "consensus" else "reviews"
    try:
        folds = groups_in_folds(rows, _HELD_OUT, recipe.seed)
    except ValueError as error:
        raise UsageError(
            f"{args.store} has too few segments with {whose} to learn from ({error}): label more "
            "videos first"
        ) from error
    names = {0: "test", 1: "dev"}
    sets: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for number, some in enumerate(folds):
        sets[names.get(number, "train")] += [rows[row] for row in some]
    return dict(sets), {"data": f"segments of {args.store}", "labels": whose}


def _features() -> Path:
    from vsa_core.config import cache_dir

    return cache_dir() / "features"


def _show(found: Mapping[str, Any], out: Path, screen: TextIO) -> None:
    columns = ["rows", "target", "n", "accuracy", "macro_f1", "weighted_f1", "ece"]
    lines: list[list[Any]] = []
    if "folds" in found:
        for target, told in found["metrics"].items():
            figures = [
                f"{told[name]['mean']:.3f} ± {told[name]['sd']:.3f}" for name in columns[3:6]
            ]
            n = sum(one["n"] for one in told["each"])
            lines.append([f"{found['folds']} held-out folds", target, n, *figures, ""])
        write_table(screen, columns, lines)
        screen.write(f"\nModels: {out}/fold-*/model\n")
        return
    for name, by_target in found["metrics"].items():
        for target, told in by_target.items():
            if told["n"]:
                shown = [_shown(told[figure]) for figure in columns[3:6]]
                lines.append([name, target, told["n"], *shown, f"{told['ece']:.3f}"])
    write_table(screen, columns, lines)
    screen.write(
        f"\nBest of {found['epochs']} epochs: {found['best_epoch']}, by `dev`, which also set the "
        f"temperatures; every row is decided (coverage 100 %).\nModel: {out / 'model'}\n"
    )


def _shown(figure: Mapping[str, float | None]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
