"""Train, score and package a supervised model"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import copy_context
from pathlib import Path
from typing import Any, Literal, TypeAlias

from prefect import task

from tasks.policies import STAGE
from tasks.reports import Progress
from vsa_core.folders import features_dir
from vsa_core.progress import LISTENER
from vsa_core.store import Store
from vsa_core.supervised.choosing import chosen_recipe, note_sets, sets_of_meld, sets_of_segments
from vsa_core.supervised.fit import fit, write_truth_of

_Data: TypeAlias = Literal["meld", "consensus", "reviews"]

_PARTS = 1000  # of the whole, that progress is told in


class _Told:
    """Hands a training's progress on to an artifact; decoding and learning are half each."""

    def __init__(self) -> None:
        self.artifact = Progress(_PARTS, "Decoded, then learned")
        self._totals: dict[str, int] = {}
        self._rest = 0.0

    def begin(self, stage: str, total: int) -> None:
        """So many items of a stage are to be done."""
        self._totals[stage] = total

    def advance(self, stage: str, items: float) -> None:
        """So many more are done."""
        if total := self._totals.get(stage):
            self._rest += _PARTS / 2 * items / total
            whole = int(self._rest)
            self._rest -= whole
            self.artifact.advance(whole)


@task(name="train", **STAGE)
def trained(data: _Data, root: str, out: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `fit` says of a model.

    Args:
        data: `meld`, `consensus` or `reviews`.
        root: of the store.
        out: folder of training and model.
        options: `recipe`, `init`, `text_only`, `epochs`, as `chosen_recipe` takes them.
    """
    told = _Told()
    context = copy_context()
    context.run(LISTENER.set, told)
    try:
        return context.run(_trained, data, Store(root), Path(out), dict(options))
    finally:
        told.artifact.close()


def _trained(data: _Data, store: Store, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    paths = {name: Path(options[name]) if options[name] else None for name in ("recipe", "init")}
    recipe = chosen_recipe(
        paths["recipe"],
        init=paths["init"],
        text_only=options["text_only"],
        epochs=options["epochs"],
    )
    if data == "meld":
        rows = sets_of_meld(None, store)
    else:
        rows = sets_of_segments(store, data, recipe.seed)
    about = {"data": data, "store": store.location}
    features = features_dir()
    note_sets(store, rows, out, features, paths["init"])
    found = fit(recipe, rows, out, features=features, about=about, init=paths["init"])
    if rows.get("test"):
        write_truth_of(out / "truth.csv", rows["test"])
    return found
