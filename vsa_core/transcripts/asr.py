"""What a transcriber is, and the lazy registry of those that exist."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from vsa_core.cues import Transcript
from vsa_core.media import Media
from vsa_core.registry import Registry


@runtime_checkable
class Transcriber(Protocol):
    """Speech recognition for a whole video.

    Attributes:
        id: name@model-hash, part of every fingerprint.
        language: BCP 47 tag of what it understands; None when it finds out by itself.
    """

    id: str
    language: str | None

    def transcribe(self, media: Media) -> Transcript:
        """What is said in a video, `source` being `asr:<name>`; no cues where nobody speaks.

        May be called from several threads; the same sound gives the same words.

        Raises:
            MediaError: the sound cannot be decoded.
            ModelError: the model fails.
        """


TRANSCRIBERS: Registry[Transcriber] = Registry(
    "transcriber",
    {
        "faster-whisper": "vsa_core.transcripts.whisper_ct2:load",
        "pocketsphinx": "vsa_core.transcripts.pocketsphinx_en:load",
        "whisper": "vsa_core.transcripts.whisper_openai:load",
    },
)


def load_transcriber(name: str, options: Mapping[str, Any] | None = None) -> Transcriber:
    """The transcriber of that name, loaded once per process and set of options.

    Raises:
        ConfigError: no such transcriber, or an option it does not have.
        BackendError: a package or its model is missing or altered.
    """
    return TRANSCRIBERS.load(name, options)
