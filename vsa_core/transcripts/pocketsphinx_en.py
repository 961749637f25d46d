"""English speech recognition with PocketSphinx and the model inside its wheel."""

from __future__ import annotations

import hashlib
import re
import threading
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pocketsphinx

from vsa_core.cues import Cue, Transcript, Word
from vsa_core.errors import BackendError, ModelError
from vsa_core.media import Media
from vsa_core.voice import Span, speech_spans

NAME = "pocketsphinx"

_FRAME_MS = 10
_FILLERS = ("<", "[", "+")  # <s>, <sil>, [NOISE], ++BREATH++
_PRONUNCIATION = re.compile(r"\(\d+\)$")  # "to(3)": the third way the dictionary says "to"


class PocketSphinx:
    """Words with times, one cue per span of speech; poor grammar, but nothing to download.

    One decoder, loaded when first something is heard, for all threads, which take turns span by
    span: the package holds the interpreter's lock while it decodes, so a second one would only
    cost memory. What it learnt about the loudness and noise of one span is forgotten before the
    next, so that the order of videos changes no word.
    """

    language: str | None = "en"

    def __init__(self) -> None:
        self._model = Path(pocketsphinx.__file__).parent / "model" / "en-us"
        self.id = f"{NAME}@{_model_hash(self._model)}"
        self._turn = threading.Lock()

    @cached_property
    def _decoder(self) -> Any:
        """Loaded under `_turn`; raises BackendError when its model does not load."""
        try:
            return pocketsphinx.Decoder(
                hmm=str(self._model / "en-us"),
                lm=str(self._model / "en-us.lm.bin"),
                dict=str(self._model / "cmudict-en-us.dict"),
                cmn="batch",
                loglevel="FATAL",
            )
        except RuntimeError as error:
            raise BackendError(
                f"transcriber {NAME!r} cannot load its model in {self._model}: "
                "pip install --force-reinstall pocketsphinx"
            ) from error

    def transcribe(self, media: Media) -> Transcript:
        """What is said in a video, in flat memory; see `Transcriber.transcribe`."""
        heard = ((span, self._words(span)) for span in speech_spans(media.audio()))
        return Transcript(
            cues=tuple(
                Cue(span.start_ms, span.end_ms, " ".join(word.text for word in words), words)
                for span, words in heard
                if words
            ),
            source=f"asr:{NAME}",
            language=self.language,
        )

    def _words(self, span: Span) -> tuple[Word, ...]:
        samples = np.clip(span.samples, -1.0, 1.0) * 32767
        with self._turn:
            try:
                self._decoder.reinit_feat()
                self._decoder.start_utt()
                self._decoder.process_raw(samples.astype("<i2").tobytes(), full_utt=True)
                self._decoder.end_utt()
                found = [
                    (segment.word, segment.start_frame, segment.end_frame + 1)
                    for segment in self._decoder.seg() or ()
                ]
            except RuntimeError as error:
                raise ModelError(
                    f"transcriber {NAME!r} failed at {span.start_ms} ms: {error}"
                ) from error
        return tuple(
            Word(
                span.start_ms + first * _FRAME_MS,
                min(span.start_ms + end * _FRAME_MS, span.end_ms),
                _PRONUNCIATION.sub("", word),
            )
            for word, first, end in found
            if not word.startswith(_FILLERS)
        )


def load() -> PocketSphinx:
    """The transcriber; it has no options.

    Raises:
        BackendError: the model inside the package is missing or broken.
    """
    return PocketSphinx()


def _model_hash(model: Path) -> str:
    """8 hex digits over the package's version and its model files' names and sizes."""
    parts = [version("pocketsphinx")]
    for path in sorted(model.rglob("*")):
        if path.is_file():
            parts.append(f"{path.relative_to(model).as_posix()} {path.stat().st_size}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
