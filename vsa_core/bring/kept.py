"""A model kept in a folder: what was learned from a table of predictions, for later segments."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vsa_core import __version__
from vsa_core.bring.predictions import TARGET
from vsa_core.errors import StoreError, UsageError
from vsa_core.fusion.card import hashes, read_files
from vsa_core.fusion.memory import MEMORY_FILE, Memory, drifted, remember
from vsa_core.fusion.strategies import Fused, Known, Model
from vsa_core.fusion.views import Views
from vsa_core.table_files import replacing
from vsa_core.whole_files import flush

CARD = "card.json"
_FORMAT = 1
_NEEDED = {"format", "strategy", "views", "classes", "version", "files", "reviewed", "warnings"}


@dataclass(frozen=True, slots=True)
class Kept:
    """A model in a folder of its own.

    Attributes:
        folder: where it is.
        model: what was learned.
        memory: of the segments it was learned from.
        widths: view → width of its embeddings, 0 without.
        reviewed: ids of segments whose reviews it has learned from.
        warnings: about what it was learned from.
        digest: SHA-256 of its card, which knows that of each other file.
    """

    folder: Path
    model: Model
    memory: Memory
    widths: Mapping[str, int]
    reviewed: frozenset[str]
    warnings: tuple[str, ...]
    digest: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.memory.classes[TARGET]

    def label(self, views: Views, *, seed: int = 0) -> Fused:
        """What the model says of n segments, nothing being learned from them.

        Args:
            views: of the same names, classes and widths of embeddings.
            seed: which videos are held against those remembered where there are very many.

        Returns:
            In its report also `drift`, a line for each way in which the segments differ from
            those that were learned from, and `known_videos`, how many of their videos were among
            those; nobody's opinion of them has seen them.

        Raises:
            UsageError: the views are others.
        """
        self.check(views)
        opinion = self.model.opinion(views)
        engine = self.model.engine
        folds = self.model.folds or {}
        report = {
            "strategy": self.model.strategy,
            "notes": [],
            "targets": {t: found.report for t, found in engine.targets.items()} if engine else {},
            "drift": drifted(self.memory, remember(views, opinion, seed=seed)),
            "known_videos": sum(video in folds for video in views.videos),
        }
        return Fused(opinion, self.model, report)

    def check(self, views: Views) -> None:
        """Whether the model can label such segments.

        Raises:
            UsageError: their modalities, classes or widths of embeddings are others.
        """
        if views.names != tuple(self.widths):
            raise UsageError(
                f"{self.folder} was learned from {', '.join(self.widths)}, these segments have "
                f"{', '.join(views.names)}: give rows of the same modalities (status absent where "
                "there is nothing), or learn anew without --model"
            )
        if views.classes[TARGET] != self.classes:
            raise UsageError(
                f"{self.folder} knows the classes {', '.join(self.classes)}, these segments have "
                f"{', '.join(views.classes[TARGET])}: give probs of the same, in the same order, "
                "or learn anew without --model"
            )
        for (name, width), embedding in zip(self.widths.items(), views.embeddings, strict=True):
            if width and embedding.width and width != embedding.width:
                raise UsageError(
                    f"{self.folder} takes {name} embeddings {width} wide, these are "
                    f"{embedding.width}: give those of the same backend, or learn anew "
                    "without --model"
                )

    def check_reviews(self, views: Views, known: Known, where: str | Path) -> None:
        """Whether reviews can judge the model.

        Raises:
            UsageError: it has learned from one of them.
        """
        ids = [views.segment_ids[row].as_py() for row in known.rows.tolist()]
        again = [name for name in ids if name in self.reviewed]
        if again:
            raise UsageError(
                f"{where}: {self.folder} has learned from {len(again)} of the reviewed segments, "
                f"such as {again[0]!r}: give reviews of others to judge it by"
            )


def check_free(folder: Path) -> None:
    """Whether a model can be kept there.

    Raises:
        UsageError: it is taken, or would be in a folder that is not there.
    """
    if folder.is_dir():
        if any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty: give a new folder with --save-model")
    elif folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} is no folder: give a new one with --save-model")
    elif not folder.absolute().parent.is_dir():
        raise UsageError(f"{folder} would be in a folder that is not there: see --save-model")


def keep(
    folder: Path,
    views: Views,
    fused: Fused,
    *,
    settings: Mapping[str, Any],
    known: Known | None = None,
    warnings: Sequence[str] = (),
    seed: int = 0,
) -> None:
    """Write a model: all of its files or, when anything fails, none.

    They are those of `Model.to_files`, of `Memory.to_bytes`, and a card that holds the strategy,
    the views (name, width; 0 without embeddings), the classes, how many segments and videos there
    were, ids of the segments whose reviews were learned from, settings, warnings, the report, the
    version and the SHA-256 of each other file. Ids of videos are among what a model knows.

    Args:
        folder: a new or empty one.
        views: what was learned from.
        fused: what came of it.
        settings: JSON-able.
        known: reviews that were learned from; None for none.
        warnings: about what was learned.
        seed: which videos' embeddings are remembered where there are very many.

    Raises:
        UsageError: the folder is taken, or cannot be written.
    """
    check_free(folder)
    memory = remember(views, fused.opinion, seed=seed)
    files = {**fused.model.to_files(), MEMORY_FILE: memory.to_bytes()}
    rows = np.zeros(0, np.intp) if known is None else known.rows
    card = {
        "format": _FORMAT,
        "version": __version__,
        "strategy": fused.model.strategy,
        "views": [
            {"name": name, "width": embedding.width}
            for name, embedding in zip(views.names, views.embeddings, strict=True)
        ],
        "classes": list(views.classes[TARGET]),
        "segments": len(views),
        "videos": len(views.videos),
        "reviewed": [views.segment_ids[row].as_py() for row in rows.tolist()],
        "settings": dict(settings),
        "warnings": list(warnings),
        "report": fused.report,
        "files": hashes(files),
    }
    files[CARD] = json.dumps(card, ensure_ascii=False, indent=1, allow_nan=False).encode()
    place = folder.resolve()
    tmp = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        tmp.mkdir()
        for name, data in files.items():
            with replacing(tmp / name) as file:
                file.write(data)
        tmp.rename(place)  # an empty folder gives way, one with files in it does not
        flush(place.parent)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def read_kept(folder: Path) -> Kept:
    """The model in a folder.

    Raises:
        UsageError: there is none.
        StoreError: it does not read, or was altered.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: give one that --save-model has written")
    path, again = folder / CARD, "learn it again with --save-model"
    try:
        raw = path.read_bytes()
        card = json.loads(raw)
    except FileNotFoundError as error:
        raise UsageError(
            f"{folder} has no {CARD}: give a folder that --save-model has written"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(f"model card {path} does not read ({error}): {again}") from error
    if not isinstance(card, dict) or _NEEDED - card.keys() or card["format"] != _FORMAT:
        raise StoreError(f"{path} is not a card that vsa {__version__} knows: {again}")
    try:
        digests = {str(name): str(digest) for name, digest in card["files"].items()}
        said = (card["strategy"], {TARGET: tuple(card["classes"])})
        widths = {str(view["name"]): int(view["width"]) for view in card["views"]}
        reviewed, warnings = frozenset(card["reviewed"]), tuple(map(str, card["warnings"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"model card {path} was altered ({error}): {again}") from error
    files = read_files(folder, digests, again)
    try:
        model, memory = Model.from_files(files.get), Memory.from_bytes(files.get(MEMORY_FILE, b""))
    except (StoreError, UsageError) as error:
        raise StoreError(f"{folder} does not read ({error}): {again}") from error
    # Files have hashes, the card has none; what both say must be the same.
    named = tuple(widths) == model.engine.names if model.engine else True
    if said != (model.strategy, memory.classes) or not named:
        raise StoreError(f"{path} is not about the files beside it: {again}")
    digest = hashlib.sha256(raw).hexdigest()
    return Kept(folder, model, memory, widths, reviewed, warnings, digest)
