"""Speech recognition with faster-whisper: CTranslate2 folders, in 8-bit integers on the processor.

Source: github.com/SYSTRAN/faster-whisper (MIT) over github.com/OpenNMT/CTranslate2 (MIT). Its
batched decoding is called directly: what the package wraps around it wants a whole file's sound at
once and decodes nothing a second time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import weights
from vsa_core.errors import BackendError, ConfigError
from vsa_core.transcripts.whisper_speech import (
    Decoded,
    Options,
    WhisperTranscriber,
    transcriber_id,
)
from vsa_core.transcripts.whisper_windows import CLOSES, OPENS, Timed

NAME = "faster-whisper"

_FILES = ("model.bin", "config.json", "tokenizer.json")
_LARGEST_LIST = 16_000_000  # bytes; a vocabulary has one million
_ENGLISH_VOCABULARY = 51_864
_LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")
_VOCABULARIES = (51_864, 51_865, 51_866)
# What Whisper's features are; a folder that asks for others is none.
_FEATURES = {
    "feature_size": (80, 128),
    "sampling_rate": (16_000,),
    "hop_length": (160,),
    "chunk_length": (30,),
    "n_fft": (400,),
}
_CONTEXT = 447  # tokens of a text with its marks; one place is left for its end
# CTranslate2's sampling cannot be seeded twice in a process, so that a window is not sampled when
# it is decoded again, as openai-whisper does: words that would come for a third time are
# forbidden, and others made likelier.
_AGAIN = {"no_repeat_ngram_size": 3, "repetition_penalty": 1.1}
_PRECISIONS = ("auto", "float32", "float16", "bfloat16", "int8")


def load(
    model: str = "faster-whisper-small",
    language: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 8,
    beam_size: int = 5,
    no_speech: float = 0.6,
    min_logprob: float = -1.0,
) -> WhisperTranscriber:
    """The transcriber; its folder is checked now and read when first somebody speaks.

    Args:
        model: `faster-whisper-*` of the model store, a folder that CTranslate2 converted, or
            `hf:` and a repository with one.
        language: BCP 47 tag of what is spoken; None to find out, for each video.
        device: `auto` (a GPU where there is one), `cpu` or `cuda`.
        precision: `auto` (int8 on the processor, float16 on a GPU), `float32`, `float16`,
            `bfloat16` or `int8`, as far as the device computes in it.
        batch_size: windows of 30 s heard at once.
        beam_size: hypotheses kept while decoding; 5 is the package's own default, 1 is greedy.
        no_speech: a window that is no speech with a higher probability, and of whose text the
            model is less sure than `min_logprob`, has no words.
        min_logprob: average log-probability of a token under which a window is decoded again.

    Raises:
        ConfigError: an option out of range, a language the model does not speak, no such device.
        BackendError: the package is missing, the folder is missing, or no Whisper.
    """
    options = Options(language, batch_size, beam_size, no_speech, min_logprob)
    options.check(NAME)
    device, precision = _resolved(device, precision)
    path = weights.resolve(model)
    code = options.code(NAME, model, _languages(path))
    parts = (*map(version, ("faster-whisper", "ctranslate2")), weights.digest(path), precision)
    return WhisperTranscriber(
        transcriber_id(NAME, options, *parts),
        options,
        code,
        lambda: FasterWhisper(path, device, precision, beam_size),
    )


def _resolved(device: str, precision: str) -> tuple[str, str]:
    """Device and compute type."""
    try:
        import ctranslate2
        import faster_whisper  # noqa: F401 - it is missing here or not at all
    except ImportError as error:
        raise BackendError(
            f"transcriber {NAME!r} needs {error.name}: pip install 'vsa[faster-whisper]'"
        ) from error
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"{NAME}: device is {device!r}: give auto, cpu or cuda")
    gpus = ctranslate2.get_cuda_device_count()
    if device == "cuda" and not gpus:
        raise ConfigError(
            f"{NAME}: device is 'cuda', and CTranslate2 finds none here: give auto or cpu"
        )
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    if precision not in _PRECISIONS:
        raise ConfigError(
            f"{NAME}: precision is {precision!r}: give {', '.join(_PRECISIONS[:-1])} or int8"
        )
    able = ctranslate2.get_supported_compute_types(device)
    if precision == "auto":
        wish = ("int8", "float32") if device == "cpu" else ("float16", "float32")
        precision = next(each for each in wish if each in able)
    if precision not in able:
        raise ConfigError(
            f"{NAME}: this {device} does not compute in {precision}: give auto or one of "
            f"{', '.join(sorted(able & set(_PRECISIONS)))}"
        )
    return device, precision


# --- the folder ---------------------------------------------------------------------------


def _languages(path: Path) -> tuple[str, ...]:
    """Whisper's codes of the languages a folder's model speaks; raises BackendError for others."""
    if missing := [name for name in _FILES if not (path / name).is_file()]:
        raise _unfit(path, f"it has no {missing[0]}")
    features = path / "preprocessor_config.json"
    if features.is_file():
        asked = _json(features)
        for name, known in _FEATURES.items():
            if not isinstance(asked, dict) or asked.get(name, known[0]) not in known:
                raise _unfit(path, f"its {features.name} asks for other features than Whisper's")
    words = _vocabulary(path)
    if len(words) not in _VOCABULARIES:
        raise _unfit(path, f"its vocabulary has {len(words)} words, and Whisper's {_VOCABULARIES}")
    if len(words) == _ENGLISH_VOCABULARY:
        return ("en",)
    return tuple(sorted(word[2:-2] for word in words if _LANGUAGE.fullmatch(word)))


def _vocabulary(path: Path) -> set[str]:
    listed = path / "vocabulary.json"
    if listed.is_file():
        words = _json(listed)
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return set(words)
    elif (path / "vocabulary.txt").is_file():  # as older converters wrote it
        return set(_text(path / "vocabulary.txt").split("\n")) - {""}
    raise _unfit(path, "it has no vocabulary")


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise _unfit(path.parent, f"{path.name} is not JSON") from error


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_LIST:
            raise _unfit(path.parent, f"{path.name} is too large")
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _unfit(path.parent, f"{path.name} cannot be read") from error


def _unfit(path: Path, reason: str) -> BackendError:
    return BackendError(
        f"{path} is no Whisper folder of CTranslate2 ({reason}): convert it again with "
        "ct2-transformers-converter --copy_files tokenizer.json, or give a name that "
        "`vsa models list` shows"
    )


# --- the model ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Windows for CTranslate2.

    Attributes:
        mel: (B, bands, 3000) float32.
        frames: how many of each one's 3000 frames are of sound.
        states: CTranslate2's own array of (B, 1500, width).
    """

    mel: NDArray[np.float32]
    frames: list[int]
    states: Any


class FasterWhisper:
    """A CTranslate2 Whisper in memory; see `Engine`."""

    attempts = 2

    def __init__(self, path: Path, device: str, precision: str, beam_size: int) -> None:
        """Reads a folder; raises BackendError when its model or tokenizer does not load."""
        from faster_whisper import WhisperModel
        from faster_whisper.feature_extractor import FeatureExtractor

        _languages(path)
        # Calls queue one behind the other, so that each may have all the cores.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        try:
            self._whisper = WhisperModel(
                str(path),
                device=device,
                compute_type=precision,
                cpu_threads=cores,
                local_files_only=True,
            )
        except Exception as error:  # the tokenizer's own errors are of no class of their own
            raise _unfit(path, f"it does not load: {error!s:.120}") from error
        self._model = self._whisper.model
        self._features = FeatureExtractor(feature_size=self._model.n_mels)
        self._path = path
        self._beam_size = beam_size

    def encode(self, windows: Sequence[NDArray[np.float32]]) -> _Encoded:
        """See `Engine.encode`."""
        from faster_whisper.audio import pad_or_trim

        mels = [self._features(window)[:, :-1] for window in windows]
        mel = np.stack([pad_or_trim(mel) for mel in mels])
        frames = [max(2, each.shape[1]) for each in mels]
        return _Encoded(mel, frames, self._whisper.encode(mel))

    def language_probs(self, encoded: _Encoded) -> list[dict[str, float]]:
        """See `Engine.language_probs`."""
        found = [
            {token[2:-2]: prob for token, prob in probs}
            for probs in self._model.detect_language(encoded.states)
        ]
        if not all(found):
            raise BackendError(
                f"{self._path / 'config.json'} has no lang_ids, so that {NAME} cannot find out "
                "the language: set language, or convert the model again"
            )
        return found

    def _tokenizer(self, language: str) -> Any:
        from faster_whisper.tokenizer import Tokenizer

        multilingual = self._model.is_multilingual
        return Tokenizer(self._whisper.hf_tokenizer, multilingual, "transcribe", language)

    def decode(
        self, encoded: _Encoded, rows: Sequence[int], language: str, attempt: int
    ) -> list[Decoded]:
        """By beam search, the second time without repetitions."""
        from faster_whisper.transcribe import get_suppressed_tokens

        tokenizer = self._tokenizer(language)
        prompt = self._whisper.get_prompt(tokenizer, [], without_timestamps=True)
        results = self._model.generate(
            encoded.states if attempt == 0 else self._whisper.encode(encoded.mel[list(rows)]),
            [prompt] * len(rows),
            beam_size=self._beam_size,
            max_length=_CONTEXT,
            return_scores=True,
            return_no_speech_prob=True,
            suppress_tokens=get_suppressed_tokens(tokenizer, [-1]),
            **(_AGAIN if attempt else {}),
        )
        return [self._decoded(tokenizer, result) for result in results]

    @staticmethod
    def _decoded(tokenizer: Any, result: Any) -> Decoded:
        said = result.sequences_ids[0]
        tokens = [token for token in said if token < tokenizer.eot]
        # The score is a mean over the tokens; Whisper's counts the end as well.
        logprob = result.scores[0] * len(said) / (len(said) + 1)
        return Decoded(tokens, tokenizer.decode(tokens).strip(), logprob, result.no_speech_prob)

    def words(
        self, encoded: _Encoded, tokens: Sequence[list[int]], language: str
    ) -> list[list[Timed]]:
        """See `Engine.words`."""
        from faster_whisper.transcribe import merge_punctuations

        found = self._whisper.find_alignment(
            self._tokenizer(language), list(tokens), encoded.states, encoded.frames
        )
        for words in found:
            merge_punctuations(words, OPENS, CLOSES)
        return [
            [
                Timed(word["word"], float(word["start"]), float(word["end"]))
                for word in words
                if word["word"]
            ]
            for words in found
        ]
