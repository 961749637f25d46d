"""What to train on and how, as a person asks for it: MELD, a store's segments, a recipe changed"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from vsa_core.errors import UsageError
from vsa_core.folders import configs_dir
from vsa_core.forget.trainings import note_training
from vsa_core.query import ask
from vsa_core.store import Store
from vsa_core.supervised.meld import read_meld
from vsa_core.supervised.package import load_package
from vsa_core.supervised.recipe import Recipe, load_recipe, recipe_of
from vsa_core.supervised.stored import meld_from_store, segments_of_store
from vsa_core.supervised.utterances import Utterance, groups_in_folds

Sets = Mapping[str, Sequence[Utterance]]

_PARTS = 5  # a store's videos are cut into so many: one is scored, one says when to stop
_CORPUS_VIDEOS = "SELECT DISTINCT video_id FROM utterances WHERE video_id IS NOT NULL"


def chosen_recipe(
    path: Path | None,
    *,
    init: Path | None = None,
    text_only: bool = False,
    epochs: int | None = None,
    seed: int | None = None,
) -> Recipe:
    """A recipe, with what a person changes of it.

    Args:
        path: its file; None for that of the model to begin from, else the one that ships.
        init: a packaged model to begin from.
        text_only: leave picture and voice out.
        epochs, seed: instead of the recipe's.

    Raises:
        ConfigError: it does not read, or holds what is no recipe.
        BackendError: the model does not load.
    """
    if init is not None and path is None:
        recipe = load_package(init)[1]
    else:
        recipe = load_recipe(path or configs_dir() / "supervised" / "meld.yaml")
    values = recipe.model_dump(mode="json")
    if text_only:
        values["encoders"] |= {"video": None, "audio": None}
    if epochs is not None:
        values["schedule"]["epochs"] = epochs
    if seed is not None:
        values["seed"] = seed
    return recipe_of(values, str(path or "meld.yaml"))


def sets_of_meld(folder: Path | None, store: Store | None, *, clips: bool = True) -> Sets:
    """MELD's utterances by split.

    Args:
        folder: where it was unpacked; None for what was put into the store.
        store: that store.
        clips: whether clips are looked for in the folder and tried.

    Raises:
        UsageError: neither has what can be learned from.
    """
    if folder is not None:
        found: Sets = read_meld(folder, check=clips).utterances
    elif store is not None and (found := meld_from_store(store)):
        pass
    else:
        where = store.location if store is not None else "nowhere"
        raise UsageError(
            f"{where} holds no MELD: `vsa meld prepare DIR --store {where}` first, or name a folder"
        )
    if lacking := [name for name in ("train", "dev") if not found.get(name)]:
        raise UsageError(f"MELD has no {' and no '.join(lacking)}: nothing can be learned")
    return found


def sets_of_segments(store: Store, labels: Literal["consensus", "reviews"], seed: int) -> Sets:
    """A store's own segments, whole videos held out; clips of a labelled corpus are left out.

    Args:
        store: whose.
        labels: by whom they are labelled.
        seed: of the cut.

    Returns:
        `train`, `dev` and `test`: three, one and one fifth of the videos.

    Raises:
        UsageError: too few videos.
    """
    corpus = {row["video_id"] for row in ask(store, _CORPUS_VIDEOS).rows()}
    rows = [u for u in segments_of_store(store, labels) if u.group not in corpus]
    try:
        parts = groups_in_folds(rows, _PARTS, seed)
    except ValueError as error:
        whose = "labels by consensus" if labels == "consensus" else "reviews"
        raise UsageError(
            f"{store.location} has too few segments with {whose} to learn from ({error}): label "
            "more videos first"
        ) from error
    sets: dict[str, list[Utterance]] = {"train": [], "dev": [], "test": []}
    for number, some in enumerate(parts):
        name = {0: "test", 1: "dev"}.get(number, "train")
        sets[name] += [rows[row] for row in some]
    return dict(sets)


def note_sets(store: Store, sets: Sets, out: Path, features: Path, init: Path | None) -> None:
    """Note in a store that a model is about to learn from its videos, for `vsa forget`.

    Args:
        store: which.
        sets: what is learned from.
        out, features, init: as `fit` takes them.

    Raises:
        StoreError: it cannot be written.
    """
    rows = [row for some in sets.values() for row in some]
    learned = {row.group for row in rows} | {str(row.media) for row in rows if row.media}
    note_training(store, out, features, learned, init)


def table_of(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of `fit.fit` as rows for people: a set and a target each."""
    rows = []
    for name, by_target in found["metrics"].items():
        for target, told in by_target.items():
            if told["n"]:
                rows.append(
                    {
                        "rows": name,
                        "target": target,
                        "n": told["n"],
                        **{
                            figure: _shown(told[figure])
                            for figure in ("accuracy", "macro_f1", "weighted_f1")
                        },
                        "ece": f"{told['ece']:.3f}",
                    }
                )
    return rows


def _shown(figure: Mapping[str, float | None]) -> str:
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"
