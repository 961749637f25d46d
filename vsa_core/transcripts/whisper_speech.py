"""What both Whisper transcribers share: what the model hears, what of it is believed, and when.

Whisper invents text in silence and music (github.com/openai/whisper/discussions/1838), so it
hears only what voice activity takes for speech, and what it is itself unsure of is left out.
Windows of up to 30 s are heard side by side and each without the text before it, as WhisperX does
(Bain et al. 2023, arxiv.org/abs/2303.00747): a loop in one does not spread to the next.
"""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vsa_core.cues import Cue, Transcript
from vsa_core.errors import ConfigError, ModelError
from vsa_core.media import Media
from vsa_core.transcripts.whisper_windows import Timed, Window, windows
from vsa_core.voice import speech_spans

# Spans with their padding stay below the window; twice the padding is the pause heard between two.
_SPANS = {"max_span_ms": 28_000, "min_silence_ms": 600, "pad_ms": 300}
# The language is voted on by this many windows, and not told below this mean probability.
LANGUAGE_WINDOWS = 4
SURE = 0.5
# A text that zlib makes this many times smaller repeats itself: Whisper's own threshold.
_LOOP_RATIO = 2.4
# Raise it when the same weights and options would give other words.
_CODE_VERSION = 1

# BCP 47 and Whisper's own codes, where they differ.
_WHISPER_CODES = {"jv": "jw", "nb": "no", "iw": "he", "fil": "tl", "cmn": "zh"}
_BCP_47 = {"jw": "jv"}
# Written without spaces, so that Whisper's tokenizer takes each character for a word.
_UNSPACED = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


@dataclass(frozen=True, slots=True)
class Options:
    """What a person may set of either transcriber.

    Attributes:
        language: BCP 47 tag of what is spoken; None to find out.
        batch_size: windows heard at once; does not change what is heard.
        beam_size: hypotheses kept while decoding; 1 is greedy.
        no_speech: a window with a higher probability of no speech, and at the same time an
            average log-probability under `min_logprob`, has no words; in [0, 1].
        min_logprob: average log-probability of a window's tokens under which it is decoded again;
            at most 0.
    """

    language: str | None
    batch_size: int
    beam_size: int
    no_speech: float
    min_logprob: float

    def check(self, name: str) -> None:
        """Raises ConfigError for what is out of range."""
        if self.language is not None and not isinstance(self.language, str):
            # YAML reads an unquoted no as false.
            raise ConfigError(
                f"{name}: language is {self.language!r}: give a tag in quotes, as 'no'"
            )
        for option, at_most in (("batch_size", 64), ("beam_size", 16)):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= at_most:
                raise ConfigError(f"{name}: {option} is {value!r}: give 1 to {at_most}")
        if not _is_number(self.no_speech) or not 0 <= self.no_speech <= 1:
            raise ConfigError(f"{name}: no_speech is {self.no_speech!r}: give 0 to 1")
        if not _is_number(self.min_logprob) or not -100 <= self.min_logprob <= 0:
            raise ConfigError(f"{name}: min_logprob is {self.min_logprob!r}: give -100 to 0")

    def code(self, name: str, model: str, languages: Sequence[str]) -> str | None:
        """Whisper's code of the language to decode; None when it is to be found out.

        Args:
            name: the transcriber's.
            model: the model as it was asked for.
            languages: codes of those it speaks; one that speaks only one never has to find out.

        Raises:
            ConfigError: it does not speak the language.
        """
        if self.language is None:
            return languages[0] if len(languages) == 1 else None
        primary = self.language.replace("_", "-").partition("-")[0].lower()
        code = _WHISPER_CODES.get(primary, primary)
        if code not in languages:
            speaks = "only English" if len(languages) == 1 else f"{len(languages)} other languages"
            raise ConfigError(
                f"{name}: language is {self.language!r}, and {model} speaks {speaks}: "
                "give another language or model"
            )
        return code

    def is_silence(self, decoded: Decoded) -> bool:
        """Whether the model takes a window for silence and is unsure of the text it has for it."""
        return decoded.no_speech_prob > self.no_speech and decoded.avg_logprob < self.min_logprob

    def fails(self, decoded: Decoded) -> bool:
        """Whether decoding is worth another try: it loops, or is unsure, and not silence."""
        unsure = decoded.avg_logprob < self.min_logprob
        return (decoded.loops or unsure) and not self.is_silence(decoded)

    def believes(self, decoded: Decoded) -> bool:
        """Whether a window's last text stands: it says something, and is neither silence nor loop.

        A text that is only unsure stands, as it does in Whisper itself: there was a voice.
        """
        says = any(map(str.isalnum, decoded.text))
        return says and not decoded.loops and not self.is_silence(decoded)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a model makes of one window.

    Attributes:
        tokens: its text tokens, without special ones.
        text: the same as text.
        avg_logprob: log-probability, averaged over the tokens and the end.
        no_speech_prob: how likely the model takes it for no speech.
    """

    tokens: list[int]
    text: str
    avg_logprob: float
    no_speech_prob: float

    @property
    def loops(self) -> bool:
        """Whether the text goes round in circles."""
        raw = self.text.encode()
        return len(raw) > _LOOP_RATIO * len(zlib.compress(raw))


class Engine(Protocol):
    """A Whisper model in memory. Any of these may be called from several threads at once.

    Attributes:
        attempts: how often a window can be decoded, each time in another way.
    """

    attempts: int

    def encode(self, windows: Sequence[NDArray[np.float32]]) -> Any:
        """B windows of at most 30 s at 16 kHz, as the methods below want them."""

    def language_probs(self, encoded: Any) -> list[dict[str, float]]:
        """For each window, how likely it is each language that the model speaks."""

    def decode(
        self, encoded: Any, rows: Sequence[int], language: str, attempt: int
    ) -> list[Decoded]:
        """The text of those windows; the same for the same window and attempt, in any batch."""

    def words(self, encoded: Any, tokens: Sequence[list[int]], language: str) -> list[list[Timed]]:
        """When the words of all B windows are said, in order; none where there are no tokens."""


def spoken_language(
    probs: Sequence[Mapping[str, float]], seconds: Sequence[float]
) -> tuple[str, float]:
    """The likeliest language of some windows and its probability, weighted by their length."""
    mean = {
        code: sum(p[code] * s for p, s in zip(probs, seconds, strict=True)) / sum(seconds)
        for code in probs[0]
    }
    best = max(mean, key=mean.__getitem__)
    return best, mean[best]


_Batch = tuple[list[Window], Any]  # and the same encoded


class WhisperTranscriber:
    """Words with times, one cue per span of speech; safe to use from several threads.

    The model is loaded when first somebody speaks. A video is taken to be in one language, which
    the first two minutes of speech decide unless it is given; where Whisper is unsure it decodes
    in the likeliest one, and the transcript does not name it.
    """

    def __init__(
        self,
        id_: str,
        options: Options,
        code: str | None,
        engine: Callable[[], Engine],
    ) -> None:
        """
        Args:
            id_: name@hash.
            options: checked ones.
            code: Whisper's code of the language; None to find out.
            engine: loads the model.
        """
        self.id = id_
        self._source = f"asr:{id_.partition('@')[0]}"
        self.language = options.language or (_BCP_47.get(code, code) if code else None)
        self._options = options
        self._code = code
        self._load = engine
        self._loaded: Engine | None = None
        self._loading = threading.Lock()

    def unload(self) -> None:
        """Free the model, after what is being heard now; the next speech loads it again."""
        with self._loading:
            self._loaded = None

    def _engine(self) -> Engine:
        with self._loading:
            self._loaded = self._loaded or self._load()
            return self._loaded

    def transcribe(self, media: Media) -> Transcript:
        """What is said in a video, in flat memory; see `Transcriber.transcribe`."""
        found = windows(speech_spans(media.audio(), **_SPANS))
        first = next(found, None)
        if first is None:
            return Transcript((), self._source, self.language)
        engine = self._engine()
        try:
            return self._heard(engine, self._encoded(engine, chain([first], found)))
        except RuntimeError as error:  # torch's and CTranslate2's
            raise ModelError(
                f"transcriber {self.id} failed: {error!s:.200}: if memory is short, give a smaller "
                "batch_size or model"
            ) from error

    def _encoded(self, engine: Engine, found: Iterator[Window]) -> Iterator[_Batch]:
        while batch := list(islice(found, self._options.batch_size)):
            yield batch, engine.encode([window.samples for window in batch])

    def _heard(self, engine: Engine, batches: Iterator[_Batch]) -> Transcript:
        notes: list[str] = []
        code, language = self._code, self.language
        if code is None:
            held: list[_Batch] = []
            for each in batches:
                held.append(each)
                if sum(len(batch) for batch, _ in held) >= LANGUAGE_WINDOWS:
                    break
            code, share = _vote(engine, held)
            language = _BCP_47.get(code, code) if share >= SURE else None
            if language is None:
                notes.append(f"speech sounds most like {code}, but only to {share:.0%}")
            batches = chain(held, batches)
        cues: list[Cue] = []
        spans = 0
        for batch, encoded in batches:
            cues += self._cues(engine, batch, encoded, code)
            spans += sum(len(window.spans) for window in batch)
        if silent := spans - len(cues):
            notes.append(f"{silent} of {spans} stretches of speech gave no words to rely on")
        return Transcript(tuple(cues), self._source, language, "; ".join(notes) or None)

    def _cues(
        self, engine: Engine, batch: Sequence[Window], encoded: Any, code: str
    ) -> Iterator[Cue]:
        decoded = self._decoded(engine, encoded, len(batch), code)
        tokens = [each.tokens if self._options.believes(each) else [] for each in decoded]
        words = engine.words(encoded, tokens, code) if any(tokens) else [[] for _ in batch]
        for window, said in zip(batch, words, strict=True):
            yield from window.cues(said, spaced=code not in _UNSPACED)

    def _decoded(self, engine: Engine, encoded: Any, count: int, code: str) -> list[Decoded]:
        """The first decoding of each window that does not fail, or the likeliest without a loop."""
        tried = [[each] for each in engine.decode(encoded, range(count), code, 0)]
        for attempt in range(1, engine.attempts):
            rows = [row for row in range(count) if self._options.fails(tried[row][-1])]
            if not rows:
                break
            for row, again in zip(rows, engine.decode(encoded, rows, code, attempt), strict=True):
                tried[row].append(again)
        return [
            max(each, key=lambda one: (not one.loops, one.avg_logprob))
            if self._options.fails(each[-1])
            else each[-1]
            for each in tried
        ]


def _vote(engine: Engine, batches: Sequence[_Batch]) -> tuple[str, float]:
    """The language of the first windows, and its probability."""
    probs = [each for _, encoded in batches for each in engine.language_probs(encoded)]
    seconds = [window.seconds for batch, _ in batches for window in batch]
    return spoken_language(probs[:LANGUAGE_WINDOWS], seconds[:LANGUAGE_WINDOWS])


def transcriber_id(name: str, options: Options, *parts: str) -> str:
    """name@hash over this code's version and all that can change a word.

    Args:
        name: the transcriber's.
        options: what is set; of these the batch size changes no word.
        parts: the weights' hash, their precision, the versions of the packages.
    """
    thresholds = (float(options.no_speech), float(options.min_logprob))
    given = (options.language, options.beam_size, *thresholds)
    digest = hashlib.sha256(json.dumps([_CODE_VERSION, *given, *parts]).encode()).hexdigest()
    return f"{name}@{digest[:12]}"
