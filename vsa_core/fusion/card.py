"""The model card: what a strategy learned, from what, and its limits; and the model it vouches for.

Whoever loads a model passes by its card, which knows each file's hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vsa_core.config import Settings
from vsa_core.errors import StoreError, UsageError
from vsa_core.fusion.data import in_order
from vsa_core.fusion.strategies import Fused, Known, Model
from vsa_core.fusion.views import Views
from vsa_core.labels import Modality
from vsa_core.store import CARD, Store, UnreachableError

# What using a stored model takes.
_NEEDED = {"strategy", "reason", "backends", "views", "targets", "report", "files"}
_KINDS = {
    "crossview": "experts on each view's embeddings, taught by what the other views say, and "
    "weights of votes and experts under which the views tell most about one another",
    "crossview-attention": "experts on each view's embeddings, taught by what the other views "
    "say, and an attention network taught what they say together",
    "tf-mvsa": "attention network on the embeddings, trained where the views agree",
}
_LIMITS = (
    "No label was learned from: what all views get wrong in the same way cannot be seen, and the "
    "model repeats it.",
    "It holds for speakers and recordings like those it was trained on; its confidence is fitted "
    "to what the views say of one another, not to human labels, and is too high with a few hundred "
    "segments.",
)
_NAMED_BY_VOTES = (
    "What the classes are is known from the votes alone: where these are no better than guessing, "
    "or hardly ever shared, the experts find something else (`decides`)."
)
_OWN_LIMITS = {
    "crossview": (_NAMED_BY_VOTES,),
    "crossview-attention": (
        _NAMED_BY_VOTES,
        "The network only knows what the experts and votes taught it.",
    ),
    "tf-mvsa": (
        "It was trained on the segments whose models agree, which are easier than those it "
        "decides, with what they agree on as truth.",
    ),
}


def make_card(
    model_id: str,
    backends: Mapping[Modality, str],
    views: Views,
    given: tuple[int, int],
    settings: Settings,
    fused: Fused,
    files: Mapping[str, bytes],
    known: Known | None,
    reason: str | None,
) -> dict[str, Any]:
    """What can be said of a model that was just learned; JSON-able.

    Args:
        model_id: its folder.
        backends: modality → backend id.
        views: what it learned from.
        given: how many videos and segments these were drawn from.
        settings: of the run.
        fused: what came out.
        files: contents of the model's files by name.
        known: what humans said of some segments; None for nothing.
        reason: why late fusion decides after all; None where the strategy does.
    """
    strategy = fused.model.strategy
    ordered = in_order(backends)
    return {
        "model_id": model_id,
        "kind": _KINDS[strategy],
        "strategy": strategy,
        "limits": [*_LIMITS, *_OWN_LIMITS[strategy], *_drawn(views, given)],
        "reason": reason,
        "backends": {m.value: backend for m, backend in ordered.items()},
        "views": [
            {"modality": m.value, "backend": backend, "width": embedding.width}
            for (m, backend), embedding in zip(ordered.items(), views.embeddings, strict=True)
        ],
        "targets": {target: list(names) for target, names in views.classes.items()},
        "data": {
            "videos": len(views.videos),
            "segments": len(views),
            "present": dict(zip(views.names, _counts(views.present), strict=True)),
            "embedded": dict(zip(views.names, _counts(views.embedded), strict=True)),
            "reviewed": 0 if known is None else len(known.rows),
            "drawn_from": dict(zip(("videos", "segments"), given, strict=True)),
        },
        "report": fused.report,
        "settings": {
            "fusion": settings.fusion.model_dump(mode="json"),
            "agree": settings.agree.model_dump(mode="json"),
        },
        "files": hashes(files),
    }


def read_card(store: Store, model_id: str) -> dict[str, Any]:
    """The card of a stored model.

    Raises:
        StoreError: no such model, or its card does not read.
    """
    folder = f"{store.location}/models/{model_id}"
    path, again = f"{folder}/{CARD}", f"remove {folder} and run the same command again"
    try:
        card = json.loads(store.read_folder("models", model_id, CARD))
    except UnreachableError:
        raise
    except (StoreError, ValueError) as error:
        raise StoreError(f"model card {path} does not read ({error}): {again}") from error
    if not isinstance(card, dict) or card.get("model_id") != model_id or _NEEDED - card.keys():
        raise StoreError(f"model card {path} is not that of {model_id}: {again}")
    return card


def read_model(
    store: Store, model_id: str, backends: Mapping[Modality, str]
) -> tuple[Model, dict[str, Any]]:
    """A stored model and its card.

    Args:
        store: holds the model.
        model_id: its folder in `models/`.
        backends: modality → backend id, of the segments it is to label.

    Raises:
        StoreError: the model is not there, was altered, or was trained on other backends.
    """
    card = read_card(store, model_id)
    folder = f"{store.location}/models/{model_id}"
    again = f"remove {folder} and run the same command again"
    theirs = {m.value: backend for m, backend in in_order(backends).items()}
    for modality in [*card["backends"], *theirs]:
        trained, given = card["backends"].get(modality), theirs.get(modality)
        if trained != given:
            raise StoreError(
                f"{folder} was trained on {trained or f'no {modality}'}, not on "
                f"{given or f'no {modality}'}: run the whole job again"
            )

    try:
        files = {name: store.read_folder("models", model_id, name) for name in card["files"]}
    except UnreachableError:
        raise
    except StoreError as error:
        raise StoreError(f"{folder} is not whole ({error}): {again}") from error
    check_files(folder, files, card["files"], again)
    try:
        return Model.from_files(files.get), card
    except (StoreError, UsageError) as error:
        raise StoreError(f"{folder} does not read ({error}): {again}") from error


def hashes(files: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 in hex of each file's contents, by name."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def read_files(folder: Path, digests: Mapping[str, str], again: str) -> dict[str, bytes]:
    """Contents of a model's files by name.

    Args:
        folder: they are in it.
        digests: what `hashes` gave, as the card has it.
        again: what to do when they are not, for the complaint.

    Raises:
        StoreError: one is not there, or was altered.
    """
    files = {}
    for name in digests:
        path = folder / name
        try:
            files[name] = path.read_bytes()
        except OSError as error:
            raise StoreError(f"{path} does not read ({error.strerror}): {again}") from error
    check_files(str(folder), files, digests, again)
    return files


def check_files(
    folder: str, files: Mapping[str, bytes], digests: Mapping[str, str], again: str
) -> None:
    """Raises StoreError where a file is not the one its card was written for; see `read_files`."""
    for name, digest in digests.items():
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise StoreError(f"{folder}/{name} is not the file its card was written for: {again}")


def check_widths(card: Mapping[str, Any], views: Views, folder: str) -> None:
    """Whether a model can read the embeddings of these views.

    Raises:
        StoreError: they are of another width than it was trained on.
    """
    for about, embedding in zip(card["views"], views.embeddings, strict=True):
        if about["width"] and embedding.width and about["width"] != embedding.width:
            raise StoreError(
                f"{folder} takes {about['modality']} embeddings {about['width']} wide, these are "
                f"{embedding.width}: remove it and run the same command again"
            )


def _drawn(views: Views, given: tuple[int, int]) -> list[str]:
    videos, segments = given
    if len(views) >= segments:
        return []
    return [
        f"It learned from {len(views)} of {segments} segments, {len(views.videos)} of {videos} "
        "videos, drawn by a hash (`fusion.max_segments`); the others it labels as new ones."
    ]


def _counts(mask: np.ndarray) -> list[int]:
    counts: list[int] = mask.sum(axis=0).tolist()
    return counts
