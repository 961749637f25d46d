"""What the student reads of each view: embedding and votes, standardised, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vsa_core.agree import has_vote
from vsa_core.errors import UsageError
from vsa_core.fusion.late import log_probs
from vsa_core.fusion.views import Views

EMBEDDING, VOTES = "embedding", "votes"

# Standardised inputs beyond this are broken measurements, not information.
_MAX_SD = 10.0
_BLOCK = 8192


@dataclass(frozen=True, slots=True)
class ViewInput:
    """The d + c columns a student reads of one view: embedding, then votes.

    The votes' columns are, for each target, K log-probabilities and their entropy.

    Attributes:
        name: of the view.
        width: d; 0 where no embedding is read.
        votes: targets whose votes are read.
        mean, scale: (d + c,) float32, subtracted and divided by.
    """

    name: str
    width: int
    votes: tuple[str, ...]
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def read_votes(self, views: Views, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """The standardised columns (b, c) of the votes; 0 where the view does not vote."""
        raw = vote_columns(views, views.names.index(self.name), self.votes, rows)
        z = (raw - self.mean[self.width :]) / self.scale[self.width :]
        return np.nan_to_num(np.clip(z, -_MAX_SD, _MAX_SD), copy=False, nan=0.0)

    def standardise(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Embeddings (b, d) standardised; as they are where d is 0."""
        with np.errstate(over="ignore"):
            z = vectors - self.mean[: self.width]
            z /= self.scale[: self.width]
        return np.clip(z, -_MAX_SD, _MAX_SD, out=z)

    def usable(self, views: Views) -> NDArray[np.bool_]:
        """(n,) where there is something to read."""
        if self.name not in views.names:
            return np.zeros(len(views), np.bool_)
        v = views.names.index(self.name)
        usable = np.zeros(len(views), np.bool_)
        if self.width and views.embeddings[v].width:
            usable |= views.embedded[:, v]
        for target in self.votes:
            usable |= has_vote(views.probs[target][:, v])
        return usable

    def blocks(self, views: Views) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Rows (b,) and their columns (b, d + c); every usable row once, in the blocks' order."""
        if self.name not in views.names:
            return
        v = views.names.index(self.name)
        rest = self.usable(views)
        if self.width and views.embeddings[v].width:
            rest &= ~views.embedded[:, v]
            for rows, vectors in views.embeddings[v].blocks():
                z = self.standardise(vectors)
                yield rows, np.hstack([z, self.read_votes(views, rows)]) if self.votes else z
        at = np.flatnonzero(rest)
        for start in range(0, len(at), _BLOCK):
            rows = at[start : start + _BLOCK]
            nothing = np.zeros((len(rows), self.width), np.float32)
            yield rows, np.hstack([nothing, self.read_votes(views, rows)])

    def check(self, views: Views) -> None:
        """Raises UsageError where views are not what this was made for."""
        if self.name not in views.names:
            return
        width = views.embeddings[views.names.index(self.name)].width
        if self.width and width and width != self.width:
            raise UsageError(
                f"{self.name}: the model takes embeddings {self.width} wide, these are {width}: "
                "train a new one"
            )
        for target in self.votes:
            if target not in views.probs:
                raise UsageError(f"{self.name}: the model reads votes on {target}, there are none")


def make_input(
    views: Views,
    view: int,
    read: Sequence[str],
    raw: NDArray[np.float32],
    rows: NDArray[np.intp],
    sample: NDArray[np.bool_],
) -> ViewInput | None:
    """What is to be read of a view; None where there is nothing.

    Args:
        views: n segments.
        view: which of the V.
        read: of `EMBEDDING` and `VOTES`.
        raw: (m, d) embeddings of `rows`, as `gather` gives them; not looked at without `EMBEDDING`.
        rows: (m,) among the n.
        sample: (m,) those that mean and scale are taken from. No target enters into these.
    """
    votes = tuple(
        target
        for target, said in views.probs.items()
        if VOTES in read and has_vote(said[:, view]).any()
    )
    embedding = EMBEDDING in read and views.embedded[:, view].any()
    if not embedding and not votes:
        return None
    parts = [_standardisation(vote_columns(views, view, votes, rows[sample]))]
    if embedding:
        parts.insert(0, _standardisation(raw[sample & views.embedded[rows, view]]))
    mean, scale = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ViewInput(views.names[view], raw.shape[1] if embedding else 0, votes, mean, scale)


def gather(views: Views, view: int, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    """The embeddings (m, d) of some rows, in one pass over all; 0 where there is none."""
    slot = np.full(len(views), -1, np.int32)
    slot[rows] = np.arange(len(rows), dtype=np.int32)
    found = np.zeros((len(rows), views.embeddings[view].width), np.float32)
    for block, vectors in views.embeddings[view].blocks():
        at = slot[block]
        wanted = at >= 0
        found[at[wanted]] = vectors[wanted]
    return found


def vote_columns(
    views: Views, view: int, targets: Sequence[str], rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Log-probabilities and entropy (0 to 1) of a view's votes, (b, c); NaN without a vote."""
    columns = [np.zeros((len(rows), 0))]
    for target in targets:
        said = views.probs[target][rows, view]
        logs = log_probs(said)
        entropy = -(np.exp(logs) * logs).sum(axis=1, keepdims=True) / math.log(said.shape[1])
        columns.append(np.where(has_vote(said)[:, None], np.hstack([logs, entropy]), np.nan))
    return np.hstack(columns).astype(np.float32)


def _standardisation(
    columns: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and scale (d,) of columns (b, d), without their NaN.

    A column that does not vary, or holds nothing, has scale 1.
    """
    wide = columns.astype(np.float64)
    known = ~np.isnan(wide)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, wide, 0).sum(axis=0) / count
    scale = np.sqrt((np.where(known, wide - mean, 0) ** 2).sum(axis=0) / count)
    flat = scale <= 1e-6 * (np.abs(mean) + 1e-6)
    return mean.astype(np.float32), np.where(flat, 1, scale).astype(np.float32)
