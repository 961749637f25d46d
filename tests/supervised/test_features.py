"""Frames and sound of utterances: the right ones, once, and none where there are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests import bad_media
from vsa_core import progress
from vsa_core.errors import StoreError
from vsa_core.media import audio_between
from vsa_core.progress import Steps
from vsa_core.supervised.features import FeatureCache, Features, decoded
from vsa_core.supervised.recipe import Audio, Video
from vsa_core.supervised.utterances import Utterance

FRAMES = 4
VIDEO = Video(frames=FRAMES, learning_rate=1e-4)
AUDIO = Audio(max_s=2.0, learning_rate=1e-4)
LENGTH_S = 3


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """3 s whose pictures and sound tell their place."""
    count = LENGTH_S * bad_media.FPS
    path = tmp_path / "clip.mp4"
    return bad_media.write(path, bad_media.film(count), bad_media.sweep(LENGTH_S))


@pytest.fixture
def cache(tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "features", VIDEO, AUDIO)


def said_in(media: Path | None, start_ms: int = 0, end_ms: int = 1000 * LENGTH_S) -> Utterance:
    return Utterance("u", "g", media=media, start_ms=start_ms, end_ms=end_ms)


def places(found: Features) -> list[float]:
    """Which picture of the film each frame is, from the grey of its lower half."""
    assert found.frames is not None
    greys = [decoded(jpeg)[100:].mean() for jpeg in found.frames]
    return [(grey - 40) / 2 for grey in greys]


def files(cache: FeatureCache) -> list[Path]:
    return sorted(path for path in cache.folder.rglob("*") if path.is_file())


class TestFrames:
    @pytest.mark.parametrize(("start_ms", "end_ms"), [(0, 3_000), (1_000, 3_000), (1_900, 2_700)])
    def test_they_lie_evenly_over_the_whole_utterance(
        self, clip: Path, cache: FeatureCache, start_ms: int, end_ms: int
    ) -> None:
        found = places(cache.get(said_in(clip, start_ms, end_ms)))
        assert len(found) == 2 * FRAMES
        parts = (np.arange(2 * FRAMES) + 0.5) / (2 * FRAMES)
        wanted = (start_ms + parts * (end_ms - start_ms)) / 1000 * bad_media.FPS
        # Half a frame, and what a codec does to a grey.
        assert np.abs(np.array(found) - wanted).max() < 1.6

    def test_they_are_upright_rgb_of_one_size_whatever_the_aspect(
        self, clip: Path, cache: FeatureCache
    ) -> None:
        found = cache.get(said_in(clip))
        assert found.frames is not None
        picture = decoded(found.frames[0])
        assert (picture.shape, picture.dtype) == ((128, 171, 3), np.uint8)
        red, green = picture[:50, :70].mean(axis=(0, 1)), picture[:50, 100:].mean(axis=(0, 1))
        assert red[0] > 150 > 80 > red[1]
        assert green[1] > 150 > 80 > green[0]

    def test_a_short_utterance_repeats_its_frames(self, clip: Path, cache: FeatureCache) -> None:
        found = cache.get(said_in(clip, 1_000, 1_150))
        assert found.frames is not None
        assert len(found.frames) == 2 * FRAMES
        assert len(set(found.frames)) < 2 * FRAMES

    def test_no_end_is_the_end_of_the_file(self, clip: Path, cache: FeatureCache) -> None:
        assert places(cache.get(said_in(clip, 0, 0)))[-1] > 0.85 * LENGTH_S * bad_media.FPS


class TestSound:
    def test_of_a_long_one_the_middle_is_heard(self, clip: Path, cache: FeatureCache) -> None:
        sound = cache.get(said_in(clip)).sound
        assert sound is not None
        assert (len(sound), sound.dtype) == (32_000, np.int16)
        wanted = audio_between(clip, 500, 2_500)
        assert np.abs(sound / 32_767 - wanted).max() < 1e-4

    def test_of_a_short_one_all(self, clip: Path, cache: FeatureCache) -> None:
        sound = cache.get(said_in(clip, 500, 1_250)).sound
        assert sound is not None
        assert len(sound) == 12_000


class TestWhatIsMissing:
    def test_nothing_is_made_up(self, tmp_path: Path, cache: FeatureCache) -> None:
        mute = bad_media.write(tmp_path / "mute.mp4", bad_media.film(20))
        dark = bad_media.write(tmp_path / "dark.mp4", None, bad_media.sweep(2))
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no film" * 100)
        seen, heard = cache.get(said_in(mute)), cache.get(said_in(dark))
        assert (seen.sound, seen.note) == (None, "no sound decodes in it")
        assert (heard.frames, heard.note) == (None, "no picture decodes in it")
        assert seen.frames is not None
        assert heard.sound is not None
        for nothing, why in (
            (said_in(None), "it has no clip"),
            (said_in(tmp_path / "gone.mp4"), "cannot be read"),
            (said_in(broken), "is not a video this can decode"),
        ):
            found = cache.get(nothing)
            assert (found.frames, found.sound) == (None, None)
            assert why in str(found.note)

    def test_what_no_recipe_asks_for_is_not_missing(self, clip: Path, tmp_path: Path) -> None:
        found = FeatureCache(tmp_path / "f", None, AUDIO).get(said_in(clip))
        assert (found.frames, found.note) == (None, None)

    def test_a_place_behind_the_end_has_nothing(self, clip: Path, cache: FeatureCache) -> None:
        found = cache.get(said_in(clip, 9_000, 9_900))
        assert (found.frames, found.sound) == (None, None)
        assert found.note == "no picture decodes in it; no sound decodes in it"


def same(one: Features, other: Features) -> bool:
    sounds = (one.sound is None) == (other.sound is None) and (
        one.sound is None or bool((one.sound == other.sound).all())
    )
    return sounds and (one.frames, one.note) == (other.frames, other.note)


class TestCache:
    def test_what_was_decoded_once_outlives_its_media(
        self, clip: Path, cache: FeatureCache
    ) -> None:
        made = cache.get(said_in(clip))
        assert len(files(cache)) == 1
        clip.unlink()
        again = FeatureCache(cache.folder, VIDEO, AUDIO)
        assert same(again.get(said_in(clip)), made)
        assert again.get(said_in(clip, 0, 2_000)).frames is None  # that was never decoded

    def test_media_that_changed_are_decoded_again(self, clip: Path, cache: FeatureCache) -> None:
        before = places(cache.get(said_in(clip)))
        bad_media.write(clip, [bad_media.picture(70)] * 40, bad_media.sweep(LENGTH_S))
        os.utime(clip, ns=(1, 1))
        after = places(cache.get(said_in(clip)))
        assert before[0] < 10 < 60 < after[0]
        assert len(files(cache)) == 1

    @pytest.mark.parametrize("damage", ["torn", "flipped", "empty", "other"])
    def test_a_damaged_file_is_made_again(
        self, clip: Path, cache: FeatureCache, damage: str
    ) -> None:
        made = cache.get(said_in(clip))
        (path,) = files(cache)
        whole = path.read_bytes()
        at = len(whole) // 2
        path.write_bytes(
            {
                "torn": whole[:at],
                "flipped": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
                "empty": b"",
                "other": b"not at all what it was" * 10,
            }[damage]
        )
        assert same(cache.get(said_in(clip)), made)
        clip.unlink()
        assert same(cache.get(said_in(clip)), made)

    def test_each_place_and_each_recipe_has_a_file_of_its_own(
        self, clip: Path, cache: FeatureCache
    ) -> None:
        cache.get(said_in(clip))
        cache.get(said_in(clip, 0, 2_000))
        more = VIDEO.model_copy(update={"frames": 2})
        FeatureCache(cache.folder, more, AUDIO).get(said_in(clip))
        assert len(files(cache)) == 3

    def test_fill_makes_all_and_says_what_is_missing(self, clip: Path, cache: FeatureCache) -> None:
        heard: list[float] = []

        class Ear:
            def begin(self, stage: str, total: int) -> None: ...

            def advance(self, stage: str, items: float) -> None:
                heard.append(items)

        there = [Utterance(f"u{n}", "g", media=clip, end_ms=500 + n) for n in range(4)]
        token = progress.LISTENER.set(Ear())
        try:
            notes = cache.fill([*there, said_in(None)], 2, Steps("features"))
        finally:
            progress.LISTENER.reset(token)
        assert notes == {"u": "it has no clip"}
        assert len(files(cache)) == 4
        assert sum(heard) == pytest.approx(1)
        assert cache.fill([], 2, Steps("features")) == {}

    def test_someone_who_stops_it_is_heard(self, clip: Path, cache: FeatureCache) -> None:
        class Stop:
            def begin(self, stage: str, total: int) -> None: ...

            def advance(self, stage: str, items: float) -> None:
                raise progress.Interrupted

        there = [Utterance(f"u{n}", "g", media=clip, end_ms=500 + n) for n in range(40)]
        token = progress.LISTENER.set(Stop())
        try:
            with pytest.raises(progress.Interrupted):
                cache.fill(there, 1, Steps("features"))
        finally:
            progress.LISTENER.reset(token)
        assert len(files(cache)) < 40
        assert all(path.suffix == ".safetensors" for path in files(cache))

    def test_a_place_that_cannot_be_written_is_one_line(self, clip: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        cache = FeatureCache(tmp_path / "file" / "below", VIDEO, AUDIO)
        with pytest.raises(StoreError, match="cannot be written"):
            cache.get(said_in(clip))
