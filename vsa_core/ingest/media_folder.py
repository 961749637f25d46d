"""The folder of downloads: where it is, who writes in it, and what makes room on the disk."""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vsa_core.config import Settings
from vsa_core.errors import StoreError
from vsa_core.folders import cache_dir
from vsa_core.store import Store

_GIGABYTE = 1_000_000_000
UNFINISHED = ".part"
LOCK = ".lock"
_SIDE = (".json", ".vtt", ".srt", ".json3", ".part", ".ytdl")
_DOWNLOAD = re.compile(r"[0-9a-f]{16}")


def media_folder(location: str, settings: Settings) -> Path:
    """Where the downloads of a store lie.

    Args:
        location: of the store: a folder, or the URL of one in an object store, whose downloads
            lie in the cache folder.
        settings: `download.media_dir` goes before both.
    """
    if settings.download.media_dir is not None:
        return settings.download.media_dir.expanduser().absolute()
    if "://" in location:
        return cache_dir().absolute() / "media" / hashlib.sha256(location.encode()).hexdigest()[:16]
    return Path(location).absolute() / "media"


def media_file(folder: Path) -> Path | None:
    """The media file of a download; None when there is none."""
    if not folder.is_dir():
        return None
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() not in _SIDE and not path.name.startswith(".")
    ]
    return files[0] if files else None


@contextmanager
def claimed(unfinished: Path) -> Iterator[bool]:
    """Hold the folder of an unfinished download, made if need be; False when another has it."""
    unfinished.mkdir(parents=True, exist_ok=True)
    with (unfinished / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def put_in_place(unfinished: Path, folder: Path) -> None:
    """Make a complete download visible, by one rename."""
    if folder.exists():
        shutil.rmtree(folder)  # of a download whose media file somebody took away
    (unfinished / LOCK).unlink(missing_ok=True)
    unfinished.rename(folder)


def evict(media: Path, path: Path) -> None:
    """Remove the download that a media file belongs to: the file, its captions, its facts.

    Args:
        media: the folder of downloads.
        path: the media file; one that is gone already is no error.

    Raises:
        StoreError: it is not a download in that folder; nothing is removed.
    """
    folder = path.parent
    if (
        folder.parent.resolve() != media.resolve()
        or not _DOWNLOAD.fullmatch(folder.name)
        or folder.is_symlink()
    ):
        raise StoreError(f"{path} is no download in {media}: it was not removed")
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{folder} cannot be removed: {error.strerror}") from error


def make_room(media: Path, settings: Settings, store: Store, needed_bytes: int = 0) -> int:
    """Keep the downloads within `download.max_media_gb`.

    The oldest downloads whose videos are labelled go first, then what is left of downloads that
    were cut off and that nobody works at. Videos that are not labelled stay.

    Args:
        media: the folder of downloads.
        settings: of the run.
        store: says which are labelled.
        needed_bytes: what is to be added.

    Returns:
        Bytes of the budget that are left; negative when nothing more can be removed.

    Raises:
        StoreError: something cannot be removed.
    """
    from vsa_core.archive import State, known

    budget = int(settings.download.max_media_gb * _GIGABYTE) - needed_bytes
    sizes = {folder: _size(folder) for folder in _downloads(media)}
    left = budget - sum(sizes.values())
    if left >= 0:
        return left
    labelled = {source for source, one in known(store).items() if one.state is State.LABELLED}
    oldest = sorted(sizes, key=_age)
    for folder in oldest:
        if left < 0 and folder.name in labelled:
            evict(media, folder / "media")
            left += sizes[folder]
    for folder in oldest:
        if left < 0 and folder.suffix == UNFINISHED and _abandoned(folder):
            left += sizes[folder]
    return left


def _downloads(media: Path) -> list[Path]:
    if not media.is_dir():
        return []
    return [
        folder
        for folder in media.iterdir()
        if _DOWNLOAD.fullmatch(folder.name.removesuffix(UNFINISHED))
        and folder.is_dir()
        and not folder.is_symlink()
    ]


def _size(folder: Path) -> int:
    """Bytes in a folder; another run may remove files meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size
        except FileNotFoundError:
            continue
    return total


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _abandoned(folder: Path) -> bool:
    """Remove an unfinished download unless somebody works at it; True when it is gone."""
    with claimed(folder) as ours:
        if ours:
            shutil.rmtree(folder, ignore_errors=True)
        return ours
