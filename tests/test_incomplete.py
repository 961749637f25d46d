"""Files whose end is missing or damaged, in the containers that people have."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import bad_media
from vsa_core.config import load_config
from vsa_core.errors import MediaError
from vsa_core.incomplete import incomplete
from vsa_core.ingest import find_videos, ingest
from vsa_core.media import probe
from vsa_core.store import Store

SECONDS = 12
CONTAINERS = {
    "index_first.mp4": {"options": {"movflags": "faststart"}},
    "fragments.mp4": {"options": {"movflags": "frag_keyframe+empty_moov"}},
    "index_first.mov": {"options": {"movflags": "faststart"}},
    "film.mkv": {},
    "film.webm": {"codec": "libvpx", "audio_codec": "libopus"},
    "film.avi": {"codec": "mpeg4", "audio_codec": "mp3"},
}


def film(folder: Path, name: str) -> Path:
    pictures = bad_media.film(SECONDS * bad_media.FPS)
    sound = bad_media.sweep(SECONDS)
    return bad_media.write(folder / name, pictures, sound, **CONTAINERS[name])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_file_that_was_cut_off_is_told_from_a_whole_one(name: str, tmp_path: Path) -> None:
    path = film(tmp_path, name)
    whole = path.read_bytes()
    assert incomplete(probe(path)) is None
    path.write_bytes(whole + b"what somebody wrote behind it")
    assert incomplete(probe(path)) is None
    for share in (0.4, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        said = incomplete(probe(path))
        assert said is not None
        assert said.startswith("incomplete: the file ends before its data does, by ")
        assert said.endswith("fetch or export it again")


@pytest.mark.parametrize("name", ["index_first.mp4", "index_first.mov"])
def test_a_file_of_the_right_size_that_was_not_filled(name: str, tmp_path: Path) -> None:
    path = film(tmp_path, name)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3] + bytes(len(whole) - len(whole) // 3))
    said = incomplete(probe(path))
    assert said is not None
    assert said.startswith("incomplete: neither picture nor sound decodes in its last 5 s")


def test_where_packets_show_it_the_length_is_told(tmp_path: Path) -> None:
    path = film(tmp_path, "film.mkv")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3] + bytes(len(whole) - len(whole) // 3))
    media = probe(path)
    assert media.duration_ms < SECONDS * 500
    assert media.notes[-1].startswith("ends early: after ")


def test_pictures_or_sound_alone_to_the_end_are_enough(tmp_path: Path) -> None:
    still = bad_media.write(
        tmp_path / "still.mp4", bad_media.film(bad_media.FPS), bad_media.sweep(SECONDS)
    )
    mute = bad_media.write(tmp_path / "mute.mkv", bad_media.film(SECONDS * bad_media.FPS))
    short = bad_media.write(tmp_path / "short.mp4", bad_media.film(5), bad_media.sweep(0.2))
    assert [incomplete(probe(path)) for path in (still, mute, short)] == [None] * 3


def test_no_file_people_made_is_called_incomplete(shared: Path) -> None:
    looked = 0
    for path in sorted([*(shared / "clips").iterdir(), *(shared / "clips_labelled").iterdir()]):
        try:
            media = probe(path)
        except MediaError:  # no video
            continue
        assert incomplete(media) is None, path
        looked += 1
    assert looked >= 13


def test_it_stands_on_the_video_that_is_labelled_as_far_as_it_goes(tmp_path: Path) -> None:
    path = film(tmp_path, "index_first.mp4")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    store = Store(tmp_path / "store")
    [found] = find_videos([str(path)], load_config(), store)
    [row] = store.read(ingest(found, load_config(), store)).to_pylist()
    assert row["status"] == "ok"
    assert row["note"].startswith("ends early: after ")
    assert "incomplete" not in row["note"]  # said once
