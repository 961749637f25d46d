"""Speech recognition with openai-whisper: its own `.pt` files, on the processor or on a GPU.

Source: github.com/openai/whisper; Radford et al. 2022 (arxiv.org/abs/2212.04356). The package's
decoding is used as it is; its `load_model` and `transcribe`, which download and which want a whole
file's sound at once, are not.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import weights
from vsa_core.errors import BackendError, ConfigError
from vsa_core.transcripts.whisper_file import (
    alignment_heads,
    languages,
    read_checkpoint,
    read_dimensions,
)
from vsa_core.transcripts.whisper_speech import (
    Decoded,
    Options,
    WhisperTranscriber,
    transcriber_id,
)
from vsa_core.transcripts.whisper_timing import timed_words
from vsa_core.transcripts.whisper_windows import Timed

if TYPE_CHECKING:
    import torch

NAME = "whisper"

# As the package does: each time a window is decoded again, it is sampled more freely.
_TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_SEED = 0
_MARKS = 5  # of a multilingual text at most: start, language, task, no timestamps, end


def load(
    model: str = "whisper-small",
    language: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 8,
    beam_size: int = 1,
    no_speech: float = 0.6,
    min_logprob: float = -1.0,
) -> WhisperTranscriber:
    """The transcriber; its file is checked now and read when first somebody speaks.

    Args:
        model: `whisper-*` of the model store, or a `.pt` file of openai-whisper.
        language: BCP 47 tag of what is spoken; None to find out, for each video.
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.
        precision: `auto` (float16 on a GPU, else float32), `float32`, or, on a GPU, `float16`.
        batch_size: windows of 30 s heard at once.
        beam_size: hypotheses kept while decoding; 1, the package's own default, is greedy.
        no_speech: a window that is no speech with a higher probability, and of whose text the
            model is less sure than `min_logprob`, has no words.
        min_logprob: average log-probability of a token under which a window is decoded again.

    Raises:
        ConfigError: an option out of range, a language the model does not speak, no such device.
        BackendError: the file is missing, or no Whisper checkpoint.
    """
    options = Options(language, batch_size, beam_size, no_speech, min_logprob)
    options.check(NAME)
    device, precision = _resolved(device, precision)
    path = weights.resolve(model)
    code = options.code(NAME, model, languages(read_dimensions(path)))
    parts = (version("openai-whisper"), weights.digest(path), precision)
    return WhisperTranscriber(
        transcriber_id(NAME, options, *parts),
        options,
        code,
        lambda: OpenAIWhisper(path, device, precision, beam_size),
    )


def _resolved(device: str, precision: str) -> tuple[str, str]:
    import torch

    if importlib.util.find_spec("whisper") is None:
        raise BackendError(f"transcriber {NAME!r} needs openai-whisper: pip install openai-whisper")
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"{NAME}: device is {device!r}: give auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{NAME}: device is 'cuda', and torch finds none here: give auto or cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if precision not in ("auto", "float32", "float16"):
        raise ConfigError(f"{NAME}: precision is {precision!r}: give auto, float32 or float16")
    if precision == "float16" and device == "cpu":
        raise ConfigError(
            f"{NAME}: precision 'float16' needs a GPU: give auto, or take faster-whisper for int8"
        )
    if precision == "auto":
        precision = "float16" if device == "cuda" else "float32"
    return device, precision


class OpenAIWhisper:
    """An openai-whisper model in memory; see `Engine`."""

    attempts = len(_TEMPERATURES)

    def __init__(self, path: Path, device: str, precision: str, beam_size: int) -> None:
        """Reads a `.pt` file; raises BackendError when it is no Whisper checkpoint."""
        import torch
        from whisper.model import ModelDimensions, Whisper

        dims, state = read_checkpoint(path)
        with torch.random.fork_rng(devices=[]):  # first come random weights, as in any new network
            self._model = Whisper(ModelDimensions(**dims))
        self._model.load_state_dict(state)
        heads = alignment_heads(dims)
        if heads is not None:
            self._model.set_alignment_heads(heads)
        self._half = precision == "float16"
        if self._half:
            for module in self._model.modules():
                # Not the layer norms, which the package computes in float32.
                if isinstance(module, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Embedding):
                    module.half()
        self._model.eval().requires_grad_(False).to(device)
        self._beam_size = beam_size
        # While the package decodes, its cache is hooked into the decoder, so that one thread may.
        self._turn = threading.Lock()

    def encode(self, windows: Sequence[NDArray[np.float32]]) -> list[tuple[torch.Tensor, int]]:
        """Each window's (1500, width) states, and how many of them are of sound."""
        import torch
        from whisper.audio import HOP_LENGTH, N_FRAMES, log_mel_spectrogram, pad_or_trim

        bands = self._model.dims.n_mels
        mels = [log_mel_spectrogram(torch.from_numpy(window), bands) for window in windows]
        mel = torch.stack([pad_or_trim(mel, N_FRAMES) for mel in mels]).to(self._model.device)
        with torch.inference_mode():
            states = self._model.encoder(mel.half() if self._half else mel)
        lengths = [max(1, len(window) // (2 * HOP_LENGTH)) for window in windows]
        return list(zip(states, lengths, strict=True))

    def language_probs(self, encoded: Any) -> list[dict[str, float]]:
        """See `Engine.language_probs`."""
        import torch

        with self._turn:
            _, probs = self._model.detect_language(torch.stack([states for states, _ in encoded]))
        found: list[dict[str, float]] = probs
        return found

    def decode(
        self, encoded: Any, rows: Sequence[int], language: str, attempt: int
    ) -> list[Decoded]:
        """All at once at first; then sampled one by one, each from the same seed."""
        chosen = [encoded[row][0] for row in rows]
        # The package's beam search takes one window at a time.
        together = attempt == 0 and self._beam_size == 1
        groups = [chosen] if together else [[states] for states in chosen]
        with self._turn:
            return [
                decoded
                for group in groups
                for decoded in self._decode(group, language, _TEMPERATURES[attempt])
            ]

    def _decode(
        self, states: Sequence[torch.Tensor], language: str, temperature: float
    ) -> list[Decoded]:
        import torch
        from whisper.decoding import DecodingOptions, DecodingTask

        options = DecodingOptions(
            language=language,
            temperature=temperature,
            beam_size=self._beam_size if self._beam_size > 1 and temperature == 0 else None,
            # No text before this one is heard, so that all the context is this one's own.
            sample_len=self._model.dims.n_text_ctx - _MARKS,
            without_timestamps=True,
            fp16=self._half,
        )
        task = DecodingTask(self._model, options)
        if temperature > 0:
            task.decoder = _seeded(temperature, task.tokenizer.eot, self._model.device)
        found = []
        for result in task.run(torch.stack(list(states))):
            tokens = [token for token in result.tokens if token < task.tokenizer.eot]
            text = task.tokenizer.decode(tokens).strip()
            found.append(Decoded(tokens, text, result.avg_logprob, result.no_speech_prob))
        return found

    def words(self, encoded: Any, tokens: Sequence[list[int]], language: str) -> list[list[Timed]]:
        """See `Engine.words`."""
        from whisper.tokenizer import get_tokenizer

        model = self._model
        tokenizer = get_tokenizer(
            model.is_multilingual,
            num_languages=model.num_languages,
            language=language,
            task="transcribe",
        )
        with self._turn:
            return [
                timed_words(model, tokenizer, said, states, length) if said else []
                for (states, length), said in zip(encoded, tokens, strict=True)
            ]


def _seeded(temperature: float, eot: int, device: torch.device) -> Any:
    """The package's sampling, drawing from the same random numbers each time."""
    import torch
    from whisper.decoding import GreedyDecoder

    generator = torch.Generator(device).manual_seed(_SEED)

    class Seeded(GreedyDecoder):
        def update(
            self, tokens: torch.Tensor, logits: torch.Tensor, sum_logprobs: torch.Tensor
        ) -> tuple[torch.Tensor, bool]:
            odds = (logits.float() / temperature).softmax(dim=-1)
            drawn = torch.multinomial(odds, 1, generator=generator)
            ended = tokens[:, -1] == eot
            sum_logprobs += logits.float().log_softmax(dim=-1).gather(1, drawn)[:, 0] * ~ended
            drawn[ended] = eot
            return torch.cat([tokens, drawn], dim=-1), bool((drawn == eot).all())

    return Seeded(temperature, eot)
