"""Voice activity: silero-vad's 16 kHz network in plain torch, and spans of speech from a stream.

The package's own loader sets torch to one thread when imported, keeps its state inside the model
and hears one window per call. Here its weights are read from the wheel, state is passed explicitly
(any number of threads may listen at once) and windows go through the network in batches.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vsa_core.errors import BackendError
from vsa_core.media import SAMPLE_RATE_HZ

WINDOW = 512  # samples, 32 ms
CONTEXT = 64  # samples of the window before that the network sees again
# A span opens at the first and closes below the second probability: silero's own hysteresis.
OPEN_AT = 0.5
CLOSE_BELOW = 0.35

# Its wheel has the current weights as TorchScript only (the safetensors beside them are an older
# version). That archive is a zip with one raw little-endian float32 file per tensor, numbered as
# below in the file of this hash; nothing else in it is read, so nothing is unpickled or run.
_WEIGHTS = "data/silero_vad.jit"
WEIGHTS_SHA256 = "e1122837f4154c511485fe0b9c64455f7b929c96fbb8d79fbdb336383ebd3720"
_TENSORS = "VADr_v6_10_25_noths_re/data/{}"
_FIRST_TENSOR = 2
_PARAMETERS = (
    "stft_conv.weight",
    "conv1.weight",
    "conv1.bias",
    "conv2.weight",
    "conv2.bias",
    "conv3.weight",
    "conv3.bias",
    "conv4.weight",
    "conv4.bias",
    "lstm.weight_ih_l0",
    "lstm.weight_hh_l0",
    "lstm.bias_ih_l0",
    "lstm.bias_hh_l0",
    "final_conv.weight",
    "final_conv.bias",
)
_WINDOWS_AT_ONCE = 1024  # bounds the network's intermediate arrays to a few MB


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of speech.

    Attributes:
        start_ms, end_ms: from the start of the audio, padding included.
        samples: (n,) float32 at 16 kHz, the sound between the two.
    """

    start_ms: int
    end_ms: int
    samples: NDArray[np.float32]


class _Network(nn.Module):
    """Silero VAD v6, 16 kHz: a learned STFT, four convolutions, one LSTM, one probability."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(
        self, windows: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(T, 64 + 512) consecutive windows with their context → (T,) probabilities, new state."""
        x = F.pad(windows.unsqueeze(1), (0, CONTEXT), mode="reflect")
        x = self.stft_conv(x)  # (T, 258, 4): real parts over imaginary parts
        x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
        x = self.conv2(self.conv1(x).relu()).relu()
        x = self.conv4(self.conv3(x).relu()).relu()  # (T, 128, 1)
        hidden, state = self.lstm(x.squeeze(-1), state)  # (T, 128)
        x = self.final_conv(hidden.relu().unsqueeze(-1)).sigmoid()
        return x.flatten(), state


@functools.cache
def _network() -> _Network:
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise BackendError(
            "voice activity needs the package 'silero-vad': pip install silero-vad==6.2.3"
        )
    path = Path(spec.submodule_search_locations[0]) / _WEIGHTS
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BackendError(
            f"voice activity cannot read its weights {path} ({error.strerror}): "
            "pip install --force-reinstall silero-vad==6.2.3"
        ) from error
    if hashlib.sha256(raw).hexdigest() != WEIGHTS_SHA256:
        raise BackendError(
            f"the voice activity weights {path} are not the expected ones (SHA-256 differs): "
            "pip install --force-reinstall silero-vad==6.2.3"
        )
    network = _Network()
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    weights = {}
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        for number, name in enumerate(_PARAMETERS, _FIRST_TENSOR):
            values = np.frombuffer(archive.read(_TENSORS.format(number)), "<f4")
            weights[name] = torch.from_numpy(values.reshape(shapes[name]).astype(np.float32))
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


class _Ear:
    """The network's memory of one continuous stretch of audio."""

    def __init__(self) -> None:
        self._state: tuple[Tensor, Tensor] | None = None
        self._context = np.zeros(CONTEXT, np.float32)

    def hear(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """(T, 512) windows that follow those heard before → (T,) float32 probabilities."""
        parts = [np.zeros(0, np.float32)]
        for first in range(0, len(windows), _WINDOWS_AT_ONCE):
            batch = windows[first : first + _WINDOWS_AT_ONCE]
            contexts = np.vstack([self._context, batch[:-1, -CONTEXT:]])
            with torch.inference_mode():
                probs, self._state = _network()(
                    torch.from_numpy(np.hstack([contexts, batch])), self._state
                )
            self._context = batch[-1, -CONTEXT:].copy()
            parts.append(probs.numpy())
        return np.concatenate(parts)


def _windows(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n,) samples → (ceil(n / 512), 512), the last one filled up with silence."""
    # One NaN from a damaged float stream would otherwise stay in the network's memory for good.
    finite = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
    padded: NDArray[np.float32] = np.pad(finite, (0, -len(finite) % WINDOW))
    return padded.reshape(-1, WINDOW)


def speech_probability(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """How likely each 32 ms of a bounded piece of audio is speech.

    Args:
        samples: (n,) float32 mono at 16 kHz, in [-1, 1].

    Returns:
        (ceil(n / 512),) float32 in [0, 1]; the last window is filled up with silence. Each call
        starts anew, so any number of threads may call at once.

    Raises:
        BackendError: the silero-vad package or its weights are missing or altered.
    """
    return _Ear().hear(_windows(np.asarray(samples, np.float32)))


def speech_spans(
    blocks: Iterable[tuple[int, NDArray[np.float32]]],
    *,
    max_span_ms: int = 20_000,
    min_speech_ms: int = 250,
    min_silence_ms: int = 300,
    pad_ms: int = 100,
) -> Iterator[Span]:
    """Spans of speech in a stream of audio, in order and without overlap, in flat memory.

    At most `max_span_ms` of audio and one block are held. A longer stretch is cut where it is
    least like speech, in its second half; nothing is lost at such a cut.

    Args:
        blocks: (first sample's index, (n,) float32 mono at 16 kHz), one following the other
            without a hole, as `Media.audio` gives them.
        max_span_ms: the longest span, padding not counted.
        min_speech_ms: a shorter burst of speech is not a span.
        min_silence_ms: how long speech must pause for a span to end; at least twice `pad_ms`, so
            that neighbours' padding never overlaps.
        pad_ms: sound kept before and after the speech itself.

    Raises:
        BackendError: the silero-vad package or its weights are missing or altered.
    """
    if min_silence_ms < 2 * pad_ms:
        raise ValueError(f"min_silence_ms {min_silence_ms} is under twice pad_ms {pad_ms}")
    scan = _Scan(max_span_ms, min_speech_ms, min_silence_ms, pad_ms)
    ear = _Ear()
    waiting = np.zeros(0, np.float32)  # less than a window, after the last one heard
    end = 0
    for first_sample, samples in blocks:
        if end == 0:
            scan.move_to(first_sample)
        end = first_sample + len(samples)
        waiting = np.concatenate([waiting, samples])
        whole = len(waiting) // WINDOW * WINDOW
        windows, waiting = _windows(waiting[:whole]), waiting[whole:]
        yield from scan.feed(windows, ear.hear(windows))
    windows = _windows(waiting)
    yield from scan.feed(windows, ear.hear(windows))
    yield from scan.finish(end)


class _Scan:
    """Hysteresis over window probabilities; holds the windows of the span that is open."""

    def __init__(
        self, max_span_ms: int, min_speech_ms: int, min_silence_ms: int, pad_ms: int
    ) -> None:
        self._max = max(4, _windows_in(max_span_ms))  # `_cut` looks at three windows of the half
        self._min_speech = _windows_in(min_speech_ms)
        self._min_silence = _windows_in(min_silence_ms)
        self._pad = pad_ms * SAMPLE_RATE_HZ // 1000
        self._lead = -(-self._pad // WINDOW)  # windows kept in silence, for the padding
        self.move_to(0)

    def move_to(self, first_sample: int) -> None:
        """Start anew at that sample."""
        self._held: list[NDArray[np.float32]] = []  # windows from sample `_from` on
        self._probs: list[float] = []
        self._from = first_sample
        self._start: int | None = None  # index into `_held` where speech began; None in silence
        self._quiet = 0  # windows of silence at the end of `_held`
        self._continues = False  # the open span is what followed a cut

    def feed(self, windows: NDArray[np.float32], probs: NDArray[np.float32]) -> Iterator[Span]:
        """(T, 512) windows and their (T,) probabilities → the spans they complete."""
        for window, prob in zip(windows, probs.tolist(), strict=True):
            self._held.append(window)
            self._probs.append(prob)
            if self._start is None:
                if prob >= OPEN_AT:
                    self._start, self._quiet = len(self._held) - 1, 0
                else:
                    self._forget(len(self._held) - self._lead)
                continue
            if prob >= OPEN_AT or (self._quiet == 0 and prob >= CLOSE_BELOW):
                self._quiet = 0
            else:
                self._quiet += 1
            if self._quiet >= self._min_silence:
                yield from self._close(self._from + len(self._held) * WINDOW)
            elif len(self._held) - self._start >= self._max:
                yield self._cut()

    def finish(self, end_sample: int) -> Iterator[Span]:
        """The span still open when the audio ends at that sample."""
        if self._start is not None:
            yield from self._close(end_sample)

    def _close(self, end_sample: int) -> Iterator[Span]:
        assert self._start is not None
        speech_end = len(self._held) - self._quiet
        least = 1 if self._continues else self._min_speech
        if speech_end - self._start >= least:
            last = min(self._from + speech_end * WINDOW + self._pad, end_sample)
            yield self._span(last)
        self._start, self._continues = None, False
        self._forget(len(self._held) - self._lead)

    def _cut(self) -> Span:
        """The part up to the least speech-like 96 ms in the second half; the rest stays open."""
        assert self._start is not None
        first = self._start + (len(self._held) - self._start) // 2
        smooth = np.convolve(self._probs[first - 1 :], np.ones(3), "valid")  # centres from `first`
        cut = first + int(np.argmin(smooth))
        span = self._span(self._from + cut * WINDOW)
        self._forget(cut)
        self._start, self._continues = 0, True
        self._quiet = min(self._quiet, len(self._held))
        return span

    def _span(self, end_sample: int) -> Span:
        assert self._start is not None
        first = self._from + self._start * WINDOW
        if not self._continues:
            first = max(first - self._pad, self._from)
        audio = np.concatenate(self._held)
        return Span(
            first * 1000 // SAMPLE_RATE_HZ,
            end_sample * 1000 // SAMPLE_RATE_HZ,
            audio[first - self._from : end_sample - self._from],
        )

    def _forget(self, windows: int) -> None:
        if windows > 0:
            del self._held[:windows], self._probs[:windows]
            self._from += windows * WINDOW


def _windows_in(duration_ms: int) -> int:
    return max(1, round(duration_ms * SAMPLE_RATE_HZ / 1000 / WINDOW))
