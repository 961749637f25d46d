"""Downloads stay within their share of the disk, and nothing else is ever removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ingest.conftest import settings_of
from vsa_core.archive import AD_HOC, Attempt, State, record
from vsa_core.errors import StoreError
from vsa_core.folders import cache_dir
from vsa_core.ingest.listing import Item
from vsa_core.ingest.media_folder import claimed, evict, make_room, media_folder
from vsa_core.store import Store


def downloaded(media: Path, number: int, size: int, suffix: str = "") -> Path:
    """A download of so many bytes, the older the lower its number."""
    folder = media / f"{number:016x}{suffix}"
    folder.mkdir(parents=True)
    file = folder / f"{number:016x}.mp4{suffix}"
    file.write_bytes(bytes(size))
    os.utime(folder, (1_000_000 + number, 1_000_000 + number))
    return file


def labelled(store: Store, *numbers: int) -> None:
    """Note that these were labelled."""
    items = [Item(f"{number:016x}", "http://x/") for number in numbers]
    record(store, AD_HOC, [Attempt(item, State.LABELLED, video_id="v") for item in items], {})


def test_where_downloads_lie(tmp_path: Path) -> None:
    settings = settings_of()
    assert media_folder(str(tmp_path), settings) == tmp_path / "media"
    far, other = media_folder("s3://a/b", settings), media_folder("s3://a/c", settings)
    assert far.is_relative_to(cache_dir() / "media")
    assert far != other
    chosen = settings_of(download={"media_dir": tmp_path / "there"})
    assert media_folder("s3://a/b", chosen) == tmp_path / "there"


def test_the_oldest_labelled_downloads_make_room(tmp_path: Path) -> None:
    media, store = tmp_path / "media", Store(tmp_path / "store")
    files = [downloaded(media, number, 1000) for number in range(5)]
    labelled(store, 3, 1, 2)
    settings = settings_of(download={"max_media_gb": 3.5e-6})
    assert make_room(media, settings, store) == 500
    assert [file.exists() for file in files] == [True, False, False, True, True]
    assert make_room(media, settings, store, needed_bytes=1000) == 500
    assert [file.exists() for file in files] == [True, False, False, False, True]


def test_what_is_not_labelled_stays_whatever_the_budget(tmp_path: Path) -> None:
    media, store = tmp_path / "media", Store(tmp_path / "store")
    file = downloaded(media, 1, 1000)
    own = media / "my holiday"
    own.mkdir()
    (own / "film.mp4").write_bytes(bytes(1000))
    settings = settings_of(download={"max_media_gb": 1e-9})
    assert make_room(media, settings, store) < 0
    assert file.exists()
    assert (own / "film.mp4").exists()


def test_unfinished_downloads_go_unless_somebody_works_at_them(tmp_path: Path) -> None:
    media, store = tmp_path / "media", Store(tmp_path / "store")
    left, used = (downloaded(media, number, 1000, ".part") for number in (1, 2))
    settings = settings_of(download={"max_media_gb": 1e-9})
    with claimed(used.parent) as ours:
        assert ours
        make_room(media, settings, store)
    assert not left.parent.exists()
    assert used.exists()


def test_a_download_is_evicted_with_its_captions(tmp_path: Path) -> None:
    file, other = downloaded(tmp_path, 1, 10), downloaded(tmp_path, 2, 10)
    file.with_suffix(".en.vtt").write_text("WEBVTT\n")
    evict(tmp_path, file)
    assert not file.parent.exists()
    assert other.exists()
    evict(tmp_path, file)  # gone already


def test_nothing_but_a_download_is_evicted(tmp_path: Path) -> None:
    media = tmp_path / "media"
    downloaded(media, 1, 10)
    own = downloaded(tmp_path / "own", 2, 10)
    (media / f"{2:016x}").symlink_to(own.parent)
    (media / "mine").mkdir()
    mine = media / "mine" / "film.mp4"
    mine.write_bytes(b"x")
    for path in (
        own,
        mine,
        media / f"{2:016x}" / own.name,
        media / f"{1:016x}" / ".." / ".." / "own" / f"{2:016x}" / own.name,
        media / "film.mp4",
    ):
        with pytest.raises(StoreError, match="is no download in"):
            evict(media, path)
    assert own.exists()
    assert mine.exists()
