"""`vsa train`: learn a supervised model from MELD or from a store's own segments"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK, opened_store
from vsa_core.cli.screen import progress_line, write_json, write_table

if TYPE_CHECKING:
    from vsa_core.store import Store


def run(args: argparse.Namespace) -> int:
    """Train, score, package, and say what came of it."""
    from vsa_core.errors import UsageError
    from vsa_core.folders import features_dir
    from vsa_core.supervised.choosing import (
        chosen_recipe,
        note_sets,
        sets_of_meld,
        sets_of_segments,
    )
    from vsa_core.supervised.fit import cross_validate, fit, write_truth_of

    if args.kfold and args.init is not None:
        raise UsageError("--kfold begins anew: a model may have learned from what is held out")
    recipe = chosen_recipe(
        args.recipe, init=args.init, text_only=args.text_only, epochs=args.epochs, seed=args.seed
    )
    given: dict[str, Any] = {
        "features": args.features or features_dir(),
        "journals": [name for name in args.journal or ["tensorboard"] if name != "none"],
        "workers": args.workers,
    }
    with progress_line(sys.stderr):
        store: Store | None = None
        if args.action == "meld":
            store = opened_store(args.store) if args.folder is None else None
            rows = sets_of_meld(args.folder, store, clips=not args.text_only)
            given["about"] = {"data": "MELD", "labels": "people's"}
        else:
            store = opened_store(args.store)
            rows = sets_of_segments(store, args.labels, recipe.seed)
            given["about"] = {"data": f"segments of {args.store}", "labels": args.labels}
        if store is not None:
            note_sets(store, rows, args.out, given["features"], args.init)
        if args.kfold:
            learned = [u for name in ("train", "dev") for u in rows.get(name, ())]
            found = cross_validate(recipe, learned, args.kfold, args.out, **given)
        else:
            found = fit(recipe, rows, args.out, init=args.init, **given)
            if rows.get("test"):
                write_truth_of(args.out / "truth.csv", rows["test"])
    if args.json:
        write_json(sys.stdout, found)
    else:
        _show(found, args.out, sys.stdout)
    return OK


def _show(found: Mapping[str, Any], out: Path, screen: TextIO) -> None:
    from vsa_core.supervised.choosing import table_of

    if "folds" in found:
        names = ["accuracy", "macro_f1", "weighted_f1"]
        lines = []
        for target, told in found["metrics"].items():
            figures = [f"{told[name]['mean']:.3f} ± {told[name]['sd']:.3f}" for name in names]
            n = sum(one["n"] for one in told["each"])
            lines.append([f"{found['folds']} held-out folds", target, n, *figures])
        write_table(screen, ["rows", "target", "n", *names], lines)
        screen.write(f"\nModels: {out}/fold-*/model\n")
        return
    rows = table_of(found)
    if rows:
        write_table(screen, list(rows[0]), [list(row.values()) for row in rows])
    lacking = ", ".join(f"{n} of {name}" for name, n in found["lacking"].items() if n)
    if lacking:
        screen.write(f"\nWithout a picture or a sound, masked: {lacking}.\n")
    screen.write(
        f"\nBest of {found['epochs']} epochs: {found['best_epoch']}, by `dev`, which also set the "
        f"temperatures; every row is decided (coverage 100 %).\nModel: {out / 'model'}\n"
    )
