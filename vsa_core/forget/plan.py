"""What has to go when videos or channels are forgotten, whatever they are called by."""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vsa_core.errors import StoreError, UsageError
from vsa_core.folders import features_dir
from vsa_core.forget import read_journal
from vsa_core.forget.traces import Needles
from vsa_core.forget.trainings import NotedTraining, trained_on
from vsa_core.schemas import TABLES
from vsa_core.store import Store
from vsa_core.supervised.features import features_of

MODELS = "models"
KIND = "forgotten"  # of the row in `attempts` that takes the place of a forgotten address
_MODEL_FACTS = "fusion.json"  # in it `folds`, by video: every video a model learned from
# Files of these hold many videos; those of the others are named by theirs.
_OF_MANY = ("labels", "reviews", "utterances")
_WEB = ("http://", "https://")
_SEGMENT = re.compile(r"-\d+-\d+$")
_DOWNLOAD = re.compile(r"[0-9a-f]{16}")
_VIDEO_COLUMNS = (
    "video_id", "channel_id", "channel", "source_url", "title", "media_path", "sha256", "source_id"
)  # fmt: skip
_ATTEMPT_COLUMNS = ("source_id", "channel", "url", "title", "video_id", "kind")


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to go; what the journal holds until it is gone.

    Attributes:
        asked: as it was typed.
        videos: ids.
        sources: ids of the addresses they came from, or were to come from.
        addresses: URLs of them.
        files: paths of the media, downloads too.
        own: those of `files` that are the user's and stay.
        hashes: SHA-256 of the media.
        titles: of the videos.
        channels: ids and names of channels, where whole channels were asked for.
        media: folders of downloads.
        runs: that labelled nothing else.
        models: fusion models that learned from a video, or of which that cannot be told.
        trained: where models outside the store lie that learned from a video; they stay.
        features: folders of pictures and sounds that were decoded to train them.
        keep_models: leave the fusion models.
    """

    asked: tuple[str, ...] = ()
    videos: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    media: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    keep_models: bool = False

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Removal:
        """What `dataclasses.asdict` made of one."""
        lists = {name: tuple(value) for name, value in said.items() if name != "keep_models"}
        return cls(**lists, keep_models=bool(said["keep_models"]))

    def with_all_of(self, other: Removal) -> Removal:
        """What either of them removes."""
        names = [name for name in self.__dataclass_fields__ if name != "keep_models"]
        both = {n: tuple(dict.fromkeys((*getattr(self, n), *getattr(other, n)))) for n in names}
        return Removal(**both, keep_models=other.keep_models)

    def needles(self) -> Needles:
        """What must not be found in any file of the store afterwards.

        Titles and channels' names are no part of it: others may say the same words.
        """
        uris = (Path(path).as_uri() for path in self.files if Path(path).is_absolute())
        return Needles((*self.videos, *self.hashes), (*self.addresses, *self.files, *uris))

    def attempted(self) -> pc.Expression:
        """Keeps the rows of `attempts` that go."""
        ours = among("source_id", self.sources) | among("video_id", self.videos)
        return ours & ~pc.coalesce(pc.field("kind") == KIND, pa.scalar(False))


def plan(
    store: Store, targets: Sequence[str], media: Iterable[Path], *, keep_models: bool = False
) -> Removal:
    """What goes when some videos and channels are forgotten, and what a cut off removal left.

    Args:
        store: of the videos.
        targets: of videos the id, a segment's id, the address or the media file; of channels the
            id, the name, or the name in channels.yaml. Other videos of the same address go too.
        media: folders in which downloads lie.
        keep_models: leave models that learned from them.

    Raises:
        UsageError: nothing in the store is called so.
        StoreError: a table does not read.
    """
    begun = read_journal(store)
    if not targets and begun is None:
        raise UsageError(f"{store.location}: no removal is unfinished: name a video or a channel")
    chosen = _Chosen(store)
    for target in targets:
        # What the journal has may be gone already.
        if not chosen.add(target) and not (begun and target in begun["asked"]):
            raise UsageError(
                f"{store.location}: no video and no channel is called {target!r}: `vsa query "
                '"SELECT video_id, channel, source_url, media_path FROM videos"` lists them'
            )
    chosen.close()
    removal = chosen.removal(targets, {*media, *_media_noted(store)}, keep_models)
    if begun is not None:
        removal = Removal.from_json(begun).with_all_of(removal)
    runs = (*removal.runs, *_labelled_only(store, removal.videos))
    models = (*removal.models, *_learned_from(store, removal.videos))
    trained = trained_on(store, (*removal.videos, *removal.files))
    places = (*removal.trained, *(f"{one.folder} on {one.host}" for one in trained))
    return replace(
        removal,
        runs=tuple(dict.fromkeys(runs)),
        models=tuple(dict.fromkeys(models)),
        trained=tuple(dict.fromkeys(places)),
        features=tuple(dict.fromkeys((*removal.features, *_features(removal.files, trained)))),
    )


def count(store: Store, removal: Removal) -> dict[str, int]:
    """Rows that go, by table; those of `runs` are rewritten. Tables without any are left out.

    Raises:
        StoreError: a table does not read.
    """
    counts: Counter[str] = Counter()
    for table, spec in TABLES.items():
        if "video_id" in spec.schema.names and table != "attempts":
            keys = None if table in _OF_MANY else removal.videos
            for rows in store.scan(table, keys=keys, columns=["video_id"]):
                counts[table] += rows.filter(among("video_id", removal.videos)).num_rows
    for rows in store.scan("attempts", columns=["source_id", "video_id", "kind"]):
        counts["attempts"] += rows.filter(removal.attempted()).num_rows
    names = mention(removal)
    for row in rows_of(store, "runs", ("sources", "failures", "counts")):
        texts = (*row["sources"], *row["failures"], row["counts"])
        counts["runs"] += any(map(names, texts))
    return {table: n for table, n in counts.items() if n}


def media_bytes(removal: Removal) -> int:
    """Bytes of the downloads that go."""
    files = (path for folder in removal.media for path in Path(folder).rglob("*"))
    return sum(path.lstat().st_size for path in files if path.is_file())


def mention(removal: Removal) -> Callable[[str], bool]:
    """Tells of a text in `runs`, a source or a failure, whether it names a video or its channel."""
    needles, channels = removal.needles(), Needles((), removal.channels)

    def names(text: str) -> bool:
        # Sources are as they were typed, often from the folder above.
        typed = "/" + text.removeprefix("./")
        return (
            needles.within_text(text)
            or channels.within_text(text)
            or any(path.endswith(typed) for path in removal.files)
        )

    return names


class _Chosen:
    """The videos and addresses that are meant."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows = list(rows_of(store, "videos", _VIDEO_COLUMNS))
        self._attempts = list(rows_of(store, "attempts", _ATTEMPT_COLUMNS))
        self._videos: set[str] = set()
        self._sources: set[str] = set()
        self._addresses: set[str] = set()
        self._channels: set[str] = set()

    def add(self, target: str) -> bool:
        """Take what is called so; False where nothing is."""
        names = {target, _SEGMENT.sub("", target)}
        if "://" not in target:
            path = Path(target).absolute()
            names |= {str(path), path.as_uri()}
        found = False
        for row in self._rows:
            if names & {row[column] for column in _VIDEO_COLUMNS if column != "title"}:
                found = True
                self._videos.add(row["video_id"])
                if target in (row["channel_id"], row["channel"]):
                    self._channels |= {row["channel_id"], row["channel"]} - {None}
        for row in self._attempts:
            if names & {row[c] for c in ("source_id", "url", "video_id", "channel")} - {"-", ""}:
                found = True
                self._sources.add(row["source_id"])
                if target == row["channel"]:
                    self._channels.add(target)
        if not found and (strays := _without_row(self._store, names)):
            found = True
            self._videos |= strays
        return found

    def close(self) -> None:
        """Take other videos of the same addresses, and other addresses of the same videos."""
        size = -1
        while size < (size := sum(map(len, (self._videos, self._sources, self._addresses)))):
            for row, address in [
                *((row, row["source_url"]) for row in self._rows),
                *((row, row["url"]) for row in self._attempts),
            ]:
                if (
                    row["video_id"] in self._videos
                    or row["source_id"] in self._sources
                    or address in self._addresses
                ):
                    self._videos |= {row["video_id"]} - {None}
                    self._sources |= {row["source_id"]} - {None}
                    self._addresses |= {address} if address.startswith(_WEB) else set()

    def removal(self, asked: Sequence[str], media: Iterable[Path], keep_models: bool) -> Removal:
        """All of it."""
        ours = [row for row in self._rows if row["video_id"] in self._videos]
        tried = [row for row in self._attempts if row["source_id"] in self._sources]
        files = [row["media_path"] for row in ours if "://" not in row["media_path"]]
        folders = _downloads(ours, self._sources, self._addresses, media)
        own = [path for path in files if not any(Path(path).is_relative_to(f) for f in folders)]
        return Removal(
            tuple(asked),
            tuple(sorted(self._videos)),
            tuple(sorted(self._sources)),
            tuple(sorted(self._addresses)),
            tuple(sorted(files)),
            tuple(sorted(own)),
            tuple(sorted({row["sha256"] for row in ours} - {None})),
            tuple(sorted({row["title"] for row in (*ours, *tried)} - {None})),
            tuple(sorted(self._channels)),
            tuple(sorted(map(str, folders))),
            keep_models=keep_models,
        )


def rows_of(store: Store, table: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a table, a few columns of them."""
    for rows in store.scan(table, columns=columns):
        yield from rows.to_pylist()


def _without_row(store: Store, names: Iterable[str]) -> set[str]:
    """Those of some video ids that stand in a table, though not in `videos`."""
    wanted = sorted(names)
    return {
        row["video_id"]
        for table, spec in TABLES.items()
        if "video_id" in spec.schema.names
        for rows in store.scan(table, columns=["video_id"])
        for row in rows.filter(among("video_id", wanted)).to_pylist()
    }


def _media_noted(store: Store) -> Iterator[Path]:
    """Where downloads lie unless told otherwise, and where earlier runs were told to put them."""
    if "://" not in store.location:
        yield store.root / "media"
    for row in rows_of(store, "runs", ("config",)):
        download = json.loads(row["config"]).get("download") or {}
        if download.get("media_dir"):
            yield Path(download["media_dir"]).expanduser()


def _downloads(
    videos: Iterable[Mapping[str, Any]],
    sources: Iterable[str],
    addresses: Iterable[str],
    media: Iterable[Path],
) -> list[Path]:
    """Folders of downloads, unfinished ones too; never one that is not named as downloads are."""
    roots = {Path(root).absolute() for root in media}
    # Downloads are named by their address, of which there were two spellings.
    names = {*sources, *(hashlib.sha256(url.encode()).hexdigest()[:16] for url in addresses)}
    for row in videos:
        folder = Path(row["media_path"]).parent
        if folder.name == row["source_id"]:  # where else downloads lay once
            roots.add(folder.parent)
        elif folder.parent in roots:
            names.add(folder.name)
    return [
        folder
        for root in sorted(roots)
        for name in sorted(names)
        if _DOWNLOAD.fullmatch(name)
        for folder in sorted(root.glob(f"{name}*"))
    ]


def _features(files: Iterable[str], trained: Iterable[NotedTraining]) -> list[str]:
    """Folders of what was decoded of some media files, on this machine."""
    host = socket.gethostname()
    roots = {Path(one.features) for one in trained if one.host == host} | {features_dir()}
    folders = (features_of(root, Path(file)) for root in sorted(roots) for file in files)
    return [str(folder) for folder in folders if folder.exists()]


def _labelled_only(store: Store, videos: Sequence[str]) -> list[str]:
    """Runs whose labels are all of these videos."""
    theirs: set[str] = set()
    others: set[str] = set()
    for rows in store.scan("labels", columns=["run_id", "video_id"]):
        ours = rows.filter(among("video_id", videos))
        theirs.update(ours["run_id"].unique().to_pylist())
        rest = rows.filter(~among("video_id", videos))
        others.update(rest["run_id"].unique().to_pylist())
    return sorted(theirs - others)


def _learned_from(store: Store, videos: Iterable[str]) -> Iterator[str]:
    """Models that learned from one of the videos, and those that do not say what from."""
    wanted = set(videos)
    for model_id in store.folders(MODELS):
        try:
            folds = json.loads(store.read_folder(MODELS, model_id, _MODEL_FACTS))["folds"]
            if wanted & set(folds) or not folds:
                yield model_id
        except (StoreError, OSError, ValueError, KeyError, TypeError):
            yield model_id


def among(column: str, values: Sequence[str]) -> pc.Expression:
    """Keeps the rows whose column has one of some values."""
    return pc.field(column).isin(pa.array(values, pa.string()))
