"""The data set of a supervised model: utterances to tensors, augmented in training, and batches"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from vsa_core.media import SAMPLE_RATE_HZ
from vsa_core.supervised.batch import Batch
from vsa_core.supervised.features import (
    DENSITY,
    HEIGHT_PX,
    WIDTH_PX,
    FeatureCache,
    Features,
    decoded,
)
from vsa_core.supervised.recipe import Recipe
from vsa_core.supervised.tokens import Random, Tokens
from vsa_core.supervised.utterances import TARGETS, UNKNOWN, Utterance

CROP_PX = 112
# Where a crop of the middle begins; torchvision rounds halves to even.
_MIDDLE = round((HEIGHT_PX - CROP_PX) / 2), round((WIDTH_PX - CROP_PX) / 2)
_WINDOW, _HOP, _FFT = 400, 160, 512  # 25 ms, 10 ms
_LOW_HZ, _HIGH_HZ = 60.0, 7600.0
_FLOOR = 1e-6  # of the power in a band, below the noise of 16 bits
_CROPPED_SHARE = 0.1  # of the sound in training, at most


@dataclass(frozen=True, slots=True)
class Sample:
    """One utterance as tensors.

    Attributes:
        row: its number in the data set.
        present: by modality of the recipe, whether it has it.
        tokens: (L,) int64, and `own` (L,) bool as in `Batch`; None where the recipe has no text.
        frames: (T, 3, 112, 112) uint8, 0 where there are none; None where the recipe has no video.
        sound: (M, F) log-mel frames or (N,) waveform, float32, short and 0 where there is none;
            None where the recipe has no audio.
        labels: by target of the recipe the class; -1 where it is not known.
        weight: of its loss.
    """

    row: int
    present: dict[str, bool]
    tokens: Tensor | None
    own: Tensor | None
    frames: Tensor | None
    sound: Tensor | None
    labels: dict[str, int]
    weight: float


class UtteranceDataset(Dataset[Sample]):
    """Utterances as a recipe wants them; `collate` makes batches of them.

    What training changes at random depends on the recipe's seed, the epoch and the row, and on
    nothing else: not on the order, nor on how many workers there are.

    Args:
        utterances: n of them.
        recipe: what is wanted of them, and how it is augmented.
        cache: of their frames and sound; None where the recipe has text alone, or only text is to
            be read.
        train: whether to augment.
        tokens: made before, of the same recipe; None makes them.

    Raises:
        BackendError: the text encoder's tokenizer is not here, or lacks a special token.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        recipe: Recipe,
        cache: FeatureCache | None,
        train: bool,
        tokens: Tokens | None = None,
    ) -> None:
        self.utterances = list(utterances)
        self.recipe = recipe
        self._cache = cache
        self._train = train
        text = recipe.encoders.text
        self._text = None if text is None else tokens or Tokens(text)
        # In shared memory, so that workers that outlive an epoch hear of the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.utterances)

    def set_epoch(self, epoch: int) -> None:
        """What is random is that of this epoch from now on."""
        self._epoch.fill_(epoch)

    def token_lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each utterance with its context; 1 where the recipe has no text."""
        if self._text is None:
            return np.ones(len(self), np.int64)
        return np.array([len(self._text.of(u)[0]) for u in self.utterances], np.int64)

    def __getitem__(self, row: int) -> Sample:
        """One utterance.

        Raises:
            StoreError: its features cannot be written.
        """
        utterance = self.utterances[row]
        encoders, changes = self.recipe.encoders, self.recipe.augmentation
        found = Features() if self._cache is None else self._cache.get(utterance)
        present: dict[str, bool] = {}
        tokens = own = frames = sound = None
        if self._text is not None:
            ids, ours, present["text"] = self._text.of(utterance)
            if self._train and changes.token_dropout:
                ids = self._text.dropped(ids, changes.token_dropout, self._random(row, 0))
            tokens, own = torch.tensor(ids), torch.tensor(ours)
        if encoders.video is not None:
            present["video"] = found.frames is not None
            if found.frames is None:
                frames = torch.zeros(encoders.video.frames, 3, CROP_PX, CROP_PX, dtype=torch.uint8)
            else:
                random = self._random(row, 1) if self._train else None
                frames = self._pictures(found.frames, random)
        if encoders.audio is not None:
            present["audio"] = found.sound is not None
            if found.sound is not None:
                random = self._random(row, 2) if self._train else None
                sound = self._heard(found.sound, random)
            elif encoders.audio.network == "wav2vec2":
                sound = torch.zeros(_WINDOW)
            else:
                sound = torch.zeros(1, encoders.audio.mels)
        labels = {target: utterance.labels.get(target, UNKNOWN) for target in self.recipe.targets}
        return Sample(row, present, tokens, own, frames, sound, labels, utterance.weight)

    def _random(self, row: int, modality: int) -> Random:
        """Each modality draws on its own, so that one that is missing changes no other."""
        return np.random.default_rng([self.recipe.seed, int(self._epoch), row, modality])

    def _pictures(self, jpegs: Sequence[bytes], random: Random | None) -> Tensor:
        changes = self.recipe.augmentation
        top, left = _MIDDLE
        shift, flipped = 0, False
        if random is not None:
            most = round(DENSITY * changes.time_shift)
            shift = int(random.integers(-most, most + 1))
            if changes.crop:
                top = int(random.integers(HEIGHT_PX - CROP_PX + 1))
                left = int(random.integers(WIDTH_PX - CROP_PX + 1))
            flipped = changes.flip and random.random() < 0.5
        chosen = np.arange(0, len(jpegs), DENSITY) + shift
        pictures = np.stack([decoded(jpegs[at]) for at in chosen.clip(0, len(jpegs) - 1)])
        cut = pictures[:, top : top + CROP_PX, left : left + CROP_PX]
        cut = cut[:, :, ::-1] if flipped else cut
        return torch.from_numpy(np.ascontiguousarray(cut.transpose(0, 3, 1, 2)))

    def _heard(self, sound: NDArray[np.int16], random: Random | None) -> Tensor:
        settings, changes = self.recipe.encoders.audio, self.recipe.augmentation
        assert settings is not None
        wave = torch.from_numpy(sound.astype(np.float32) / 32_768)
        if random is not None and changes.time_shift:
            cropped = int(len(wave) * _CROPPED_SHARE * random.random())
            first = int(random.integers(cropped + 1))
            left = len(wave) - cropped
            if left >= _WINDOW:
                wave = wave[first : first + left]
        if settings.network == "wav2vec2":
            return (wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt()
        mel = log_mel(wave, settings.mels)
        if random is not None:
            frames = int(random.integers(round(100 * changes.time_mask_s) + 1))
            frames = min(frames, len(mel) // 2)
            at = int(random.integers(len(mel) - frames + 1))
            mel[at : at + frames] = 0
            bands = int(random.integers(min(changes.mel_mask, settings.mels // 2) + 1))
            at = int(random.integers(settings.mels - bands + 1))
            mel[:, at : at + bands] = 0
        return mel


# --- the voice ----------------------------------------------------------------------------


def log_mel(wave: Tensor, mels: int) -> Tensor:
    """A spectrogram of 25 ms windows every 10 ms, each band of mean 0 and variance 1 over time.

    Args:
        wave: (N,) samples at 16 kHz, at least 400.
        mels: bands F, from 60 to 7600 Hz.

    Returns:
        (1 + N // 160, F) float32; a band that does not change is 0.
    """
    spectrum = torch.stft(
        wave,
        _FFT,
        _HOP,
        _WINDOW,
        torch.hann_window(_WINDOW),
        center=True,
        pad_mode="reflect",
        return_complex=True,
    )
    power = spectrum.real.square() + spectrum.imag.square()
    found = (power.T @ _filters(mels)).clamp(min=_FLOOR).log()
    return (found - found.mean(dim=0)) / found.std(dim=0, correction=0).clamp(min=0.05)


@functools.cache
def _filters(mels: int) -> Tensor:
    """(257, F) triangles evenly spaced on the HTK mel scale, at least one bin wide each."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (_LOW_HZ, _HIGH_HZ))
    edges = 700 * (10 ** (torch.linspace(low, high, mels + 2) / 2595) - 1)
    bin_hz = SAMPLE_RATE_HZ / _FFT
    hz = torch.arange(_FFT // 2 + 1)[:, None] * bin_hz
    # A side narrower than a bin reaches as far as one, else no bin might lie in it.
    sides = edges.diff().clamp(min=bin_hz)
    rise = 1 - (edges[1:-1] - hz) / sides[:-1]
    fall = 1 - (hz - edges[1:-1]) / sides[1:]
    return torch.minimum(rise, fall).clamp(min=0)


# --- batches ------------------------------------------------------------------------------


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples of one data set as a batch, padded with 0."""
    inputs: dict[str, Tensor] = {}
    present = {
        name: torch.tensor([s.present[name] for s in samples]) for name in samples[0].present
    }
    if "text" in present:
        # An utterance without text still has its first token.
        inputs["text_tokens"], inputs["text_mask"] = _padded([s.tokens for s in samples])
        inputs["text_own"] = _padded([s.own for s in samples])[0]
    if "video" in present:
        inputs["video_frames"] = _padded([s.frames for s in samples])[0] / 255
        places = inputs["video_frames"].shape[1]
        inputs["video_mask"] = present["video"][:, None].expand(-1, places).clone()
    if "audio" in present:
        sound, mask = _padded([s.sound for s in samples])
        inputs["audio_mel" if sound.ndim == 3 else "audio_wave"] = sound
        inputs["audio_mask"] = mask & present["audio"][:, None]
    labels = {t: torch.tensor([s.labels[t] for s in samples]) for t in samples[0].labels}
    weight = torch.tensor([s.weight for s in samples], dtype=torch.float32)
    return Batch(inputs, present, labels, weight, torch.tensor([s.row for s in samples]))


def _padded(rows: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """(B, L, …) filled up with 0, and (B, L) bool of what is there."""
    held = [row for row in rows if row is not None]
    lengths = torch.tensor([len(row) for row in held])
    mask = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    return pad_sequence(held, batch_first=True), mask


def class_counts(utterances: Sequence[Utterance], target: str) -> NDArray[np.int64]:
    """(K,) utterances of each class of a target; nothing is decoded, unknown ones do not count."""
    known = [u.labels[target] for u in utterances if u.labels.get(target, UNKNOWN) != UNKNOWN]
    return np.bincount(np.array(known, np.int64), minlength=len(TARGETS[target]))
