"""What V views say of n segments, as the engine takes it: any number of views and classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vsa_core.agree import has_vote


class Embedding(Protocol):
    """One view's embeddings of some of the n segments, held or read again block by block."""

    @property
    def width(self) -> int:
        """d; 0 where the view has no embedding at all."""
        ...

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Rows (b,) among the n segments and their finite vectors (b, d).

        Every row the view has an embedding of comes once, and each call gives the same blocks in
        the same order.
        """
        ...


@dataclass(frozen=True, slots=True)
class Held:
    """Embeddings in memory.

    Attributes:
        rows: (e,) which of the n segments have one, ascending.
        vectors: (e, d) float32, finite.
        block: rows a block.
    """

    rows: NDArray[np.intp]
    vectors: NDArray[np.float32]
    block: int = 4096

    @property
    def width(self) -> int:
        """d."""
        return int(self.vectors.shape[1])

    def blocks(self) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """As `Embedding` says."""
        for start in range(0, len(self.rows), self.block):
            part = slice(start, start + self.block)
            yield self.rows[part], self.vectors[part]


@dataclass(frozen=True, slots=True)
class Views:
    """n segments seen by V views; a segment's video is a number into `videos`.

    Attributes:
        segment_ids: (n,) string array.
        videos: names of the videos.
        video: (n,) index into `videos`.
        names: the V views.
        present: (n, V) bool; a view is present where it gave a vote or an embedding.
        embedded: (n, V) bool, where it gave a finite embedding; nowhere without `present`.
        embeddings: per view its embeddings of the rows where `embedded`.
        classes: per target (`sentiment`, `emotion`, or `label`) the names of its K classes.
        probs: per target (n, V, K) float32 rows summing to 1; NaN where a view is absent, abstains
            or knows nothing of that target.
        notes: what was odd, one line each.
    """

    segment_ids: pa.StringArray
    videos: tuple[str, ...]
    video: NDArray[np.int32]
    names: tuple[str, ...]
    present: NDArray[np.bool_]
    embedded: NDArray[np.bool_]
    embeddings: tuple[Embedding, ...]
    classes: Mapping[str, tuple[str, ...]]
    probs: Mapping[str, NDArray[np.float32]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.video)

    def voters(self, target: str) -> tuple[str, ...]:
        """Names of the views that vote on a target; of all, where none does."""
        votes = has_vote(self.probs[target])
        named = (name for i, name in enumerate(self.names) if votes[:, i].any())
        return tuple(named) or self.names


def views_from_arrays(
    video_ids: NDArray[np.str_],
    probs: NDArray[np.floating],
    embeddings: list[NDArray[np.floating] | None],
    *,
    names: tuple[str, ...],
    classes: tuple[str, ...],
    target: str = "label",
    segment_ids: list[str] | None = None,
) -> Views:
    """Views of arrays somebody has in hand.

    Args:
        video_ids: (n,) the video (dialogue, speaker, …) of each segment: folds hold whole ones.
        probs: (n, V, K), each row summing to 1; NaN where a view is absent or does not vote.
        embeddings: per view (n, d), a row with anything not finite where there is none; None for
            a view without embeddings. A row with some but not all finite is a broken measurement:
            the view counts as absent there, vote and all, with a note.
        names: of the V views.
        classes: of the K classes.
        target: what they are classes of.
        segment_ids: (n,) ids; None numbers them.
    """
    n = len(video_ids)
    present = np.isfinite(probs).all(axis=2)
    embedded = np.zeros_like(present)
    held: list[Embedding] = []
    said = np.where(present[..., None], probs, np.nan).astype(np.float32)
    notes = []
    for v, x in enumerate(embeddings):
        if x is None:
            held.append(Held(np.zeros(0, np.intp), np.zeros((0, 0), np.float32)))
            continue
        finite = np.abs(x) <= np.finfo(np.float32).max
        whole = finite.all(axis=1)
        broken = ~whole & ~np.isnan(x).all(axis=1)
        if broken.any():
            said[broken, v] = np.nan
            present[broken, v] = False
            notes.append(f"{names[v]}: {broken.sum()} embeddings are not finite: absent there")
        rows = np.flatnonzero(whole)
        embedded[rows, v] = True
        present[rows, v] = True
        held.append(Held(rows, np.asarray(x[rows], np.float32)))
    videos, video = np.unique(np.asarray(video_ids, np.str_), return_inverse=True)
    return Views(
        pa.array(segment_ids if segment_ids is not None else [str(i) for i in range(n)]),
        tuple(videos.tolist()),
        video.astype(np.int32),
        names,
        present,
        embedded,
        tuple(held),
        {target: classes},
        {target: said},
        tuple(notes),
    )
