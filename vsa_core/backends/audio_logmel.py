"""The voice as numbers: log-mel statistics and prosody of the spoken parts of a segment, no vote.

The embedding describes how something is said and leaves what that means to the fusion network,
which learns it where the other modalities agree. The microphone's gain cancels out of all of it,
but for the little that voice activity hears differently.

Dimensions, in order, for M mel bands (D = 3 M + 19 = 211 by default). Statistics are taken over
the 25 ms frames, one each 10 ms, that voice activity calls speech. A bel is 10 dB.

    0 … M-1       mean of each band's level, in bels, the mean over all bands taken away
    M … 2M-1      standard deviation of each band's level over time, in bels
    2M … 3M-1     standard deviation of each band's change within 20 ms, in bels
    3M … 3M+18    `PROSODY`, in that order

Pitch follows Boersma (1993): the autocorrelation of a windowed frame divided by the window's own;
syllables follow de Jong and Wempe (2009): voiced peaks of the level with a dip of 2 dB before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from vsa_core import voice
from vsa_core.backends import Clip, Prediction
from vsa_core.backends.hearing import FRAME, HOP, Voice, frame_power, listen
from vsa_core.errors import ConfigError
from vsa_core.labels import Modality
from vsa_core.media import SAMPLE_RATE_HZ

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

PROSODY: tuple[str, ...] = (
    "rise",  # level of the speech over the segment's quietest tenth, bels
    "level_std",  # bels
    "level_range",  # 5th to 95th percentile, bels
    "level_trend",  # how far a line through the levels rises from start to end, bels
    "crossings_mean",  # zero crossings per ms
    "crossings_std",
    "centroid_mean",  # centre of gravity of the power spectrum, kHz
    "centroid_std",
    "flatness_mean",  # geometric over arithmetic mean of the power spectrum, log10
    "flatness_std",
    "pitch_mean",  # octaves over 100 Hz, voiced frames only; 0 when none is voiced
    "pitch_std",  # octaves
    "pitch_range",  # 5th to 95th percentile, octaves
    "pitch_trend",  # how far a line through the pitch rises from start to end, octaves
    "harmonicity",  # mean of the autocorrelation at the pitch period, 0 to 1
    "voiced_share",  # of the spoken frames
    "speech_share",  # spoken share of the segment
    "pauses_per_s",  # silences of at least 0.2 s between speech, per second of the segment
    "syllables_per_s",  # per second of speech
)

# Part of the id: raise it with any change to what comes out.
_CODE_VERSION = 1

_FFT = 512
_LOW_HZ, _HIGH_HZ = 60.0, 7600.0
_DYNAMIC_BELS = 7.0  # what lies further below the loudest band of a segment is cut off

# Pitch is looked for at half the rate, which is enough for it and costs half as much.
_PITCH_RATE_HZ = SAMPLE_RATE_HZ // 2
_PITCH_WINDOW = 320  # samples, 40 ms: three periods of the lowest pitch
_PITCH_FFT = 512
_SHORTEST, _LONGEST = _PITCH_RATE_HZ // 500, _PITCH_RATE_HZ // 70  # period in samples
_VOICED_AT = 0.55  # normalised autocorrelation
_OCTAVE_COST = 0.02  # per octave, so that a period is not mistaken for two

_SYLLABLE_DIP_BELS = 0.2
_PAUSE_FRAMES = 20


class AudioLogmel:
    """Log-mel statistics and prosody; never votes."""

    modality = Modality.AUDIO

    def __init__(self, n_mels: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.dim = 3 * n_mels + len(PROSODY)
        self._mel = _mel_filters(n_mels)
        made_of = repr((_CODE_VERSION, n_mels, voice.WEIGHTS_SHA256))
        self.id = f"audio-logmel@{hashlib.sha256(made_of.encode()).hexdigest()[:12]}"

    def read(self, clip: Clip) -> Voice | None:
        """The segment's sound; None where nobody speaks in it, as `hearing.listen` has it.

        Raises:
            MediaError: the file cannot be opened any more, or its sound holds NaN or infinity.
        """
        return listen(clip)

    def predict(self, samples: Sequence[Voice]) -> Prediction:
        """Embeddings (B, D), each from its own sample alone; no sentiment, no emotion."""
        embedding = np.zeros((len(samples), self.dim), np.float32)
        for row, sample in enumerate(samples):
            embedding[row] = self._embed(sample)
        return Prediction(sentiment_probs=None, emotion_probs=None, embedding=embedding)

    def _embed(self, sample: Voice) -> Floats:
        x = sample.samples - sample.samples.mean()
        power = frame_power(x)  # (T,)
        blocks = [_spectrum(frames, _FFT) for frames in _blocks(x, FRAME, HOP)]
        spectrum = np.concatenate(blocks)  # (T, 257)
        centres = np.arange(len(power)) * HOP + FRAME // 2
        likely = sample.speech[centres // voice.WINDOW]
        spoken: Mask = likely >= min(voice.OPEN_AT, float(likely.max()))

        mel = spectrum @ self._mel  # (T, M)
        peak = max(float(mel[spoken].max()), 1e-20)
        bels = np.log10(np.maximum(mel, peak * 10**-_DYNAMIC_BELS))
        mean = bels[spoken].mean(axis=0)
        change = (bels[2:] - bels[:-2])[spoken[1:-1]]
        return np.concatenate(
            [
                mean - mean.mean(),
                bels[spoken].std(axis=0),
                change.std(axis=0) if len(change) else np.zeros_like(mean),
                _prosody(x, power, spectrum, spoken),
            ]
        ).astype(np.float32)


def load(n_mels: int = 64, batch_size: int = 32) -> AudioLogmel:
    """The audio backend.

    Args:
        n_mels: mel bands, 8 to 80; part of the id.
        batch_size: how many segments `predict` is given at most; changes no result.

    Raises:
        ConfigError: an option outside its range.
        BackendError: the voice activity weights are missing or altered.
    """
    if not 8 <= n_mels <= 80:
        raise ConfigError(f"audio-logmel: n_mels is {n_mels}, allowed are 8 to 80")
    if batch_size < 1:
        raise ConfigError(f"audio-logmel: batch_size is {batch_size}, at least 1 is needed")
    voice.speech_probability(np.zeros(voice.WINDOW, np.float32))  # missing weights show here
    return AudioLogmel(n_mels, batch_size)


def _prosody(x: Floats, power: Floats, spectrum: Floats, spoken: Mask) -> Floats:
    """(len(PROSODY),) from n samples, T frame powers, (T, 257) spectra and T speech flags."""
    level = np.log10(np.maximum(power, max(float(power.max()), 1e-20) * 10**-_DYNAMIC_BELS))
    signs = np.signbit(x)
    crossed = np.concatenate([[0], np.cumsum(signs[1:] != signs[:-1])])
    starts = np.arange(len(power)) * HOP
    crossings = (crossed[starts + FRAME - 1] - crossed[starts]) / (FRAME / SAMPLE_RATE_HZ * 1e3)
    khz = np.arange(spectrum.shape[1], dtype=np.float32) * (SAMPLE_RATE_HZ / _FFT / 1000)
    total = np.maximum(spectrum.sum(axis=1), 1e-20)
    centroid = spectrum @ khz / total
    floored = np.maximum(spectrum, total[:, None] * 1e-9)
    flatness = np.log10(floored).mean(axis=1) - np.log10(total / spectrum.shape[1])

    octaves, clarity = _pitch(x, len(power))
    voiced: Mask = spoken & (clarity >= _VOICED_AT)
    spoken_s = spoken.sum() * HOP / SAMPLE_RATE_HZ
    described = {
        "rise": level[spoken].mean() - np.percentile(level, 10),
        "level_std": level[spoken].std(),
        "level_range": _range(level[spoken]),
        "level_trend": _trend(level, spoken),
        "crossings_mean": crossings[spoken].mean(),
        "crossings_std": crossings[spoken].std(),
        "centroid_mean": centroid[spoken].mean(),
        "centroid_std": centroid[spoken].std(),
        "flatness_mean": flatness[spoken].mean(),
        "flatness_std": flatness[spoken].std(),
        "pitch_mean": octaves[voiced].mean() if voiced.any() else 0.0,
        "pitch_std": octaves[voiced].std() if voiced.any() else 0.0,
        "pitch_range": _range(octaves[voiced]),
        "pitch_trend": _trend(octaves, voiced),
        "harmonicity": clarity[spoken].mean(),
        "voiced_share": voiced.sum() / spoken.sum(),
        "speech_share": spoken.mean(),
        "pauses_per_s": _pauses(spoken) / (len(x) / SAMPLE_RATE_HZ),
        "syllables_per_s": _syllables(level, voiced) / spoken_s,
    }
    return np.array([described[name] for name in PROSODY], np.float32)


def _blocks(x: Floats, window: int, hop: int) -> Iterator[Floats]:
    """(n,) samples → Hann-windowed frames (up to 64, window), which stay in the cache."""
    frames = sliding_window_view(x, window)[::hop]
    shape = np.hanning(window).astype(np.float32)
    for first in range(0, len(frames), 64):
        yield frames[first : first + 64] * shape


def _spectrum(frames: Floats, size: int) -> Floats:
    """(T, window) frames → (T, size / 2 + 1) power spectra."""
    spectrum = np.fft.rfft(frames, size)
    return (spectrum.real**2 + spectrum.imag**2).astype(np.float32)


def _autocorrelation(frames: Floats, longest: int) -> Floats:
    """(T, window) frames → (T, longest + 1), each row from lag 0 and divided by its first."""
    correlation = np.fft.irfft(_spectrum(frames, _PITCH_FFT))[:, : longest + 1]
    return (correlation / np.maximum(correlation[:, :1], 1e-12)).astype(np.float32)


def _pitch(x: Floats, n_frames: int) -> tuple[Floats, Floats]:
    """Pitch and its clarity in each frame.

    Args:
        x: (n,) samples.
        n_frames: T, the number of 25 ms frames; the longer ones used here have the same centres.

    Returns:
        (T,) octaves over 100 Hz, of use only where clear, and (T,) autocorrelation, 0 to 1.
    """
    slow = x[: len(x) // 2 * 2].reshape(-1, 2).mean(axis=1)
    margin, hop = (_PITCH_WINDOW - FRAME // 2) // 2, HOP // 2
    slow = np.pad(slow, (margin, margin + hop))
    of_window = _autocorrelation(np.hanning(_PITCH_WINDOW)[None].astype(np.float32), _LONGEST + 1)
    found = [
        _best_period(_autocorrelation(frames, _LONGEST + 1) / of_window)
        for frames in _blocks(slow, _PITCH_WINDOW, hop)
    ]
    periods, clarity = (np.concatenate(parts)[:n_frames] for parts in zip(*found, strict=True))
    octaves = np.log2(_PITCH_RATE_HZ / periods / 100)
    # A single frame an octave off is a slip of the method, not of the voice.
    smooth = np.median(sliding_window_view(np.pad(octaves, 2, mode="edge"), 5), axis=1)
    return smooth.astype(np.float32), clarity


def _best_period(likeness: Floats) -> tuple[Floats, Floats]:
    """(T, longest + 2) autocorrelations → (T,) periods in samples, (T,) how clear they are."""
    before, at, after = (likeness[:, _SHORTEST + k : _LONGEST + 1 + k] for k in (-1, 0, 1))
    # A slope at the edge of the range is no period: only true peaks may win. Their tops lie
    # between two lags, on the parabola through three.
    is_peak = (at >= before) & (at >= after)
    bend = np.minimum(before - 2 * at + after, -1e-9)
    shift = np.clip(0.5 * (before - after) / bend, -0.5, 0.5)
    top = np.where(is_peak, at - 0.25 * (before - after) * shift, 0)
    lags = np.arange(_SHORTEST, _LONGEST + 1, dtype=np.float32)
    best = np.argmax(top - _OCTAVE_COST * np.log2(lags / _SHORTEST), axis=1)
    rows = np.arange(len(best))
    return lags[best] + shift[rows, best], np.clip(top[rows, best], 0, 1)


def _range(values: Floats) -> float:
    if not len(values):
        return 0.0
    low, high = np.percentile(values, [5, 95])
    return float(high - low)


def _trend(values: Floats, use: Mask) -> float:
    """Rise of the least-squares line through the used values, over the time they span."""
    time = np.flatnonzero(use).astype(np.float32)
    if len(time) < 3:
        return 0.0
    centred = time - time.mean()
    return float(centred @ values[use] / (centred @ centred) * (time[-1] - time[0]))


def _pauses(spoken: Mask) -> int:
    """How many gaps of at least 0.2 s lie between spoken frames."""
    return int((np.diff(np.flatnonzero(spoken)) > _PAUSE_FRAMES).sum())


def _syllables(level: Floats, voiced: Mask) -> int:
    """Voiced peaks of the smoothed level that rise over the lowest level of the 0.1 s before."""
    window = np.hanning(9 + 2)[1:-1]
    smooth = np.convolve(np.pad(level, 4, mode="edge"), window / window.sum(), mode="valid")
    padded = np.pad(smooth, (10, 0), mode="edge")
    dip = sliding_window_view(padded, 11).min(axis=1)
    peak = (smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:])
    return int((peak & voiced[1:-1] & (smooth - dip >= _SYLLABLE_DIP_BELS)[1:-1]).sum())


def _mel_filters(n_mels: int) -> Floats:
    """(257, n_mels) triangles of equal area, evenly spaced on the HTK mel scale."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (_LOW_HZ, _HIGH_HZ))
    mel = np.linspace(low, high, n_mels + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hz = np.arange(_FFT // 2 + 1)[:, None] * (SAMPLE_RATE_HZ / _FFT)
    rising = (hz - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return weights.astype(np.float32)
