"""Videos in folders, through links and around them, and their rows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import bad_media
from vsa_core.config import load_config
from vsa_core.errors import MediaError, SourceError
from vsa_core.ingest import find_videos, ingest
from vsa_core.ingest.folder import videos_in
from vsa_core.store import Store
from vsa_core.videos import media_of, read_video


def names(source: Path) -> list[str]:
    """Paths below a folder, as they are found."""
    found = list(videos_in(source, [".mp4"]))
    assert [problem for _, problem in found if problem] == []
    return [path.relative_to(source).as_posix() for path, _ in found]


def put(path: Path) -> Path:
    """A file of that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def test_a_folder_of_nothing_but_links_is_followed(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "a.mp4")
    put(tmp_path / "elsewhere" / "deep" / "b.mp4")
    put(tmp_path / "other" / "c.mp4")
    source = tmp_path / "videos"
    source.mkdir()
    (source / "one").symlink_to(tmp_path / "elsewhere")
    (source / "two").symlink_to(Path("..", "other"))
    assert names(source) == ["one/a.mp4", "one/deep/b.mp4", "two/c.mp4"]
    assert names(source / "one") == ["a.mp4", "deep/b.mp4"]


def test_each_real_folder_counts_once_and_under_its_own_name(tmp_path: Path) -> None:
    put(tmp_path / "z" / "a.mp4")
    put(tmp_path / "away" / "b.mp4")
    source = tmp_path / "z"
    (source / "all").symlink_to(source)  # a loop
    (source / "deep").mkdir()
    put(source / "real" / "c.mp4")
    (source / "a link").symlink_to(source / "real")
    (source / "deep" / "up").symlink_to(tmp_path)  # leads to what holds the source
    (source / "deep" / "out").symlink_to(tmp_path / "away")
    (source / "out again").symlink_to(tmp_path / "away")
    (tmp_path / "away" / "back").symlink_to(source)
    assert names(source) == ["a.mp4", "real/c.mp4", "out again/b.mp4"]


def test_broken_and_hidden_links_and_folders_that_cannot_be_read(tmp_path: Path) -> None:
    put(tmp_path / "away" / "b.mp4")
    source = tmp_path / "videos"
    source.mkdir()
    (source / "gone").symlink_to(tmp_path / "nowhere")
    (source / ".hidden").symlink_to(tmp_path / "away")
    with pytest.raises(SourceError, match="holds no video"):
        names(source)
    (source / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (found,) = find_videos([str(source)], load_config(), Store(tmp_path / "store"))
    assert found.problem == f"{source / 'gone.mp4'} cannot be read: No such file or directory"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_what_is_no_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    settings, store = load_config(), Store(tmp_path / "store")
    for source in (tmp_path, tmp_path / "pipe.mp4"):
        (found,) = find_videos([str(source)], settings, store)
        with pytest.raises(MediaError, match=r"pipe\.mp4 is no file: give a video file"):
            ingest(found, settings, store)


def test_the_row_says_what_is_odd_and_which_track_is_heard(tmp_path: Path) -> None:
    low, high = bad_media.sweep(1)[None], bad_media.sweep(1, gain=0.1)[None]
    bad_media.with_tracks(tmp_path / "two.mkv", [(low, "mono", "deu", 1), (high, "mono", "eng", 0)])
    torn = tmp_path / "half.mp4"
    bad_media.write(
        torn, bad_media.film(100), bad_media.sweep(4), options={"movflags": "faststart"}
    )
    bad_media.torn(torn, 0.6)
    settings, store = load_config(), Store(tmp_path / "store")
    half, two = find_videos([str(tmp_path)], settings, store)
    ingest(half, settings, store)
    assert read_video(store, half.video_id)["note"].startswith("ends early: after 2.2 s of the 4.0")
    assert read_video(store, half.video_id)["status"] == "ok"
    ingest(two, settings, store)
    row = read_video(store, two.video_id)
    assert row["note"] == "of 2 sound tracks number 2 (eng) is heard"
    loudest = max(abs(piece).max() for _, piece in media_of(row).audio())
    assert loudest == pytest.approx(0.1, abs=0.01)
    # Another language wanted, and it is looked at again.
    update = {"transcripts": settings.transcripts.model_copy(update={"languages": ("de",)})}
    german = settings.model_copy(update=update)
    ingest(two, german, store)
    assert read_video(store, two.video_id)["sound_track"] == 0


@pytest.mark.skipif(os.name != "posix", reason="names are UTF-8 here")
def test_a_name_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4")).write_bytes(b"latin")
    put(tmp_path / "b.mp4")
    settings, store = load_config(), Store(tmp_path / "store")
    odd = {found.problem for found in find_videos([str(tmp_path)], settings, store)}
    assert odd == {None, f"{tmp_path}/caf\\xe9.mp4 has a name that is no UTF-8: rename it"}


def test_half_a_character_in_an_info_json_is_a_question_mark(tmp_path: Path) -> None:
    bad_media.write(tmp_path / "a.mp4", bad_media.film(5))
    (tmp_path / "a.info.json").write_text('{"title": "Hi \\ud83d", "channel": "\\ud83d\\ude00"}')
    settings, store = load_config(), Store(tmp_path / "store")
    (found,) = find_videos([str(tmp_path)], settings, store)
    ingest(found, settings, store)
    row = read_video(store, found.video_id)
    assert (row["title"], row["channel"]) == ("Hi ?", "😀")
