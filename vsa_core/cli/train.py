"""`vsa train`: learn a supervised model from MELD or from a store's own segments"""

from __future__ import annotations

import argparse
import math
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
        "journals": [
            *(name for name in args.journal or ["tensorboard"] if name != "none"),
            _Epochs(sys.stderr),
        ],
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


class _Epochs:
    """A line for each epoch; a journal of `vsa_core/supervised/journal.py`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def epoch(self, record: Mapping[str, Any]) -> None:
        """Say what an epoch came to."""
        figures = {
            name.removeprefix("dev_").removesuffix("_weighted_f1"): value
            for name, value in record.items()
            if name.endswith("_weighted_f1") and math.isfinite(value)
        }
        said = f"Epoch {record['epoch'] + 1}: loss {record['train_loss']:.3f}, on dev "
        said += f"{record['dev_loss']:.3f}; weighted F1 on dev: "
        said += ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        said += " (best so far)" if record["best"] else ""
        # On a screen over the line that tells of progress.
        self._out.write(f"\r{said:<60}\n" if self._out.isatty() else f"{said}\n")
        self._out.flush()

    def close(self) -> None:
        """Nothing is held."""


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
