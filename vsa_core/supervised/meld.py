"""MELD on disk: its three tables and its clips, read with everything that is wrong with them

Source: Poria et al. 2019, MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in
Conversations; the layout is that of the published MELD.Raw.tar.gz.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from pathlib import Path

from vsa_core import progress
from vsa_core.errors import MediaError, SourceError
from vsa_core.media import probe
from vsa_core.supervised.utterances import TARGETS, Utterance

CORPUS_NAME = "meld"
# By split: utterances, and SHA-256 of the table, as published.
KNOWN = {
    "train": (9_989, "d2fa2d6529cf03cac2989efec05c9b27d8fd2f4c8fc5974c7ae88aa537fa02db"),
    "dev": (1_109, "2e89c6f8aa182d6f62f8c6331aece905ac7273ca4999660bfb5213e1d0370c1c"),
    "test": (2_610, "8d37103938f7067600839fe29d5a114a6cd1bcdafb75bec101e06464c5006888"),
}
SPLITS = tuple(KNOWN)
CLIP_FOLDERS = {
    "train": "train_splits",
    "dev": "dev_splits_complete",
    "test": "output_repeated_splits_test",
}
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
_TABLE_MAX_BYTES = 50_000_000  # the published ones take 1.1 MB at most
_PASSED_OVER = ("._", "final_videos_test")
_CHECKED_AT_ONCE = 4
# Quotation marks as cp1252 has them, and as Unicode has.
_APOSTROPHES = str.maketrans(dict.fromkeys("\x91\x92‘’", "'"))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with MELD as it lies here.

    Attributes:
        split: `train`, `dev` or `test`; `all` where it is about all that was read.
        name: of an utterance's clip (`dia0_utt0`), a row, or a file.
        what: what is wrong and what becomes of it, in one line.
    """

    split: str
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.split} {self.name}: {self.what}"


@dataclass(frozen=True, slots=True)
class Meld:
    """What was read.

    Attributes:
        utterances: by split, in order of dialogue and utterance.
        problems: what is wrong with them.
        notes: by utterance id, why it has no clip; one that has a clip is not in it.
    """

    utterances: dict[str, list[Utterance]]
    problems: list[Problem]
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """By split how many `utterances` there are, how many of them `with_clip`, and how many
        are `known` of the published one."""
        return {
            split: {
                "utterances": len(some),
                "with_clip": sum(u.media is not None for u in some),
                "known": KNOWN[split][0],
            }
            for split, some in self.utterances.items()
        }


def read_meld(folder: Path, splits: Sequence[str] | None = None, check: bool = True) -> Meld:
    """The utterances of a downloaded MELD.

    An utterance whose clip is missing or does not decode stays, without media; a row whose label
    or numbers are wrong is left out. Both are among the problems.

    Args:
        folder: holds `train_sent_emo.csv` (or `train.csv`) and so on, and the folders of clips; or
            holds the folder `MELD.Raw` that does.
        splits: which; None for those that are there.
        check: open each clip and decode its beginning, which also tells how long it is. False
            takes clips that are there as they are; their `end_ms` is 0, which stands for the end.

    Raises:
        SourceError: no table is there, one that was asked for is not, or one is no table of MELD.
    """
    root = folder / "MELD.Raw" if (folder / "MELD.Raw").is_dir() else folder
    tables = _tables(root)
    for split in splits or ():
        if split not in SPLITS:
            raise SourceError(f"MELD has no split {split!r}: give one of {', '.join(SPLITS)}")
    missing = [split for split in splits or SPLITS if split not in tables]
    if missing and (splits is not None or len(missing) == len(SPLITS)):
        raise SourceError(
            f"{folder} has no {missing[0]}_sent_emo.csv: give the folder that MELD.Raw.tar.gz was "
            "unpacked to"
        )
    problems = [Problem(split, "table", "is not there: the split is left out") for split in missing]
    found: dict[str, list[Utterance]] = {}
    for split in (s for s in SPLITS if s in tables and s in (splits or SPLITS)):
        found[split], odd = _read_table(tables[split], split)
        problems += odd
    clips = _clip_folders(root)
    notes: dict[str, str] = {}
    without = [split for split in found if split not in clips]
    for split in ["all"] if len(without) == len(found) else without:
        problems.append(Problem(split, "clips", "no clips: text only"))
    for split, some in found.items():
        if split in without:
            notes |= dict.fromkeys((u.id for u in some), "no clips: text only")
            continue
        found[split], why = _with_clips(some, clips[split], check)
        notes |= why
        problems += [Problem(split, _clip_name(name), reason) for name, reason in why.items()]
    return Meld(found, problems, notes)


def _clip_name(utterance_id: str) -> str:
    return "_".join(utterance_id.split("-")[2:])


# --- the tables ---------------------------------------------------------------------------


def _tables(root: Path) -> dict[str, Path]:
    """The table of each split that has one, in the folder or one lower."""
    found: dict[str, Path] = {}
    for folder in _folders(root, 1):
        for split in SPLITS:
            for name in (f"{split}_sent_emo.csv", f"{split}.csv"):
                if split not in found and (folder / name).is_file():
                    found[split] = folder / name
    return found


def _read_table(path: Path, split: str) -> tuple[list[Utterance], list[Problem]]:
    """A split's utterances without clips, in order, and what is wrong with the table."""
    try:
        if path.stat().st_size > _TABLE_MAX_BYTES:
            raise SourceError(f"{path} is too large to be a table of MELD: fetch it again")
        raw = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or error}") from error
    problems = []
    if hashlib.sha256(raw).hexdigest() != KNOWN[split][1]:
        problems.append(Problem(split, path.name, "differs from the published table"))
    rows = csv.DictReader(io.StringIO(_decoded(raw), newline=""))
    said: dict[tuple[int, int], Utterance] = {}
    try:
        missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise SourceError(f"{path} lacks the column {missing[0]}: it is no table of MELD")
        for row in rows:
            try:
                at, utterance = _utterance(row, split)
                if at in said:
                    raise ValueError(f"dia{at[0]}_utt{at[1]} is there twice")
                said[at] = utterance
            except ValueError as error:
                what = f"{error}: left out"
                problems.append(Problem(split, f"{path.name} line {rows.line_num}", what))
    except csv.Error as error:
        raise SourceError(f"{path} line {rows.line_num}: {error}: fetch it again") from error
    return list(_with_context(said)), problems


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", errors="replace")


def _utterance(row: dict[str, str | None], split: str) -> tuple[tuple[int, int], Utterance]:
    """(dialogue, utterance) and what a row says; ValueError where that is nothing."""
    cells = {name: _one_line(row[name]) for name in _COLUMNS}
    labels = {}
    for target, column in (("sentiment", "Sentiment"), ("emotion", "Emotion")):
        word = cells[column].lower()
        if word not in TARGETS[target]:
            raise ValueError(f"{word[:40]!r} is no {target}")
        labels[target] = TARGETS[target].index(word)
    numbers = cells["Dialogue_ID"], cells["Utterance_ID"]
    for number in numbers:
        if not (number.isascii() and number.isdigit() and len(number) < 7):
            raise ValueError(f"{number[:40]!r} is no number of a dialogue or an utterance")
    dialogue, place = map(int, numbers)
    return (dialogue, place), Utterance(
        id=f"{CORPUS_NAME}-{split}-dia{dialogue}-utt{place}",
        group=f"{split}-dia{dialogue}",
        text=cells["Utterance"] or None,
        speaker=cells["Speaker"] or None,
        labels=labels,
    )


def _one_line(cell: str | None) -> str:
    return " ".join((cell or "").translate(_APOSTROPHES).split())


def _with_context(said: dict[tuple[int, int], Utterance]) -> Iterator[Utterance]:
    """In order, each with what was said before it in its dialogue."""
    before: list[tuple[str | None, str]] = []
    current = None
    for dialogue, place in sorted(said):
        if dialogue != current:
            current, before = dialogue, []
        utterance = said[dialogue, place]
        yield replace(utterance, before=tuple(before))
        if utterance.text is not None:
            before.append((utterance.speaker, utterance.text))


# --- the clips ----------------------------------------------------------------------------


def _clip_folders(root: Path) -> dict[str, Path]:
    """The folder of each split's clips, in the folder or up to two lower."""
    by_name = {name: split for split, name in CLIP_FOLDERS.items()}
    found: dict[str, Path] = {}
    for folder in _folders(root, 2):
        if folder.name in by_name:
            found.setdefault(by_name[folder.name], folder)
    return found


def _folders(root: Path, deep: int) -> Iterator[Path]:
    """The folder and those in it, down to `deep` levels, the upper ones first."""
    level = [root]
    for _ in range(deep + 1):
        yield from level
        below = []
        for folder in level:
            if folder.name in CLIP_FOLDERS.values():  # ten thousand files, and no folder
                continue
            try:
                with os.scandir(folder) as entries:
                    names = [e.name for e in entries if e.is_dir()]
            except OSError:
                continue
            below += [folder / n for n in sorted(names) if not n.startswith(_PASSED_OVER)]
        level = below


def _with_clips(
    utterances: Sequence[Utterance], folder: Path, check: bool
) -> tuple[list[Utterance], dict[str, str]]:
    """The utterances with their clips, and by id why one has none."""
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps symbolic links as named
    progress.begin("check clips", len(utterances))

    def one(utterance: Utterance) -> Utterance | str:
        path = folder / f"{_clip_name(utterance.id)}.mp4"
        try:
            if not path.is_file():
                return "its clip is missing"
            if not check:
                return replace(utterance, media=path)
            media = probe(path)
            return replace(utterance, media=path, end_ms=max(1, media.duration_ms))
        except (MediaError, OSError) as error:
            return f"its clip does not decode: {str(error).removeprefix(f'{path} ')}"
        finally:
            progress.advance("check clips", 1)

    with ThreadPoolExecutor(_CHECKED_AT_ONCE) as pool:
        contexts = [copy_context() for _ in utterances]
        found = list(pool.map(lambda u, context: context.run(one, u), utterances, contexts))
    pairs = list(zip(utterances, found, strict=True))
    return (
        [u if isinstance(it, str) else it for u, it in pairs],
        {u.id: it for u, it in pairs if isinstance(it, str)},
    )
