"""What recognising speech costs: openai-whisper against faster-whisper on the same sound."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from benchmarks.material import clips
from benchmarks.measure import Spent, scratch, timed

# As Whisper tiny, 39 million weights.
_TINY = {"width": 384, "heads": 6, "layers": 4}
# What the model says to every window: as much as somebody says in half a minute, 73 words in 85
# tokens. Its weights are no trained ones, so that it would otherwise stop at once or never.
_TEXT = (
    " When the first settlers came down to this valley there was nothing here but grass, wind and "
    "one slow brown river. They built their houses from what they could carry, timber, clay, some "
    "iron nails. My grandmother used to say that nobody who lived through those winters ever "
    "complained about cold again, and looking at old photographs today, children barefoot outside "
    "a school with broken windows, I finally believe her stories completely now."
)


def speech(minutes: float = 5) -> None:
    """Real-time factors with one size of model, which says as many words in both."""
    import torch
    from transformers.utils import logging

    from tests.small_whisper import ctranslate2_folder, openai_file, state
    from vsa_core.media import probe
    from vsa_core.transcripts.asr import load_transcriber

    torch.set_num_threads(1)  # as in a run
    logging.disable_progress_bar()
    weights = state(_TEXT, **_TINY)
    with scratch() as folder:
        media = probe(_spoken(folder / "speech.wav", minutes * 60))
        seconds = media.duration_ms / 1000
        models = {
            "whisper": str(openai_file(folder / "tiny.pt", weights, **_TINY)),
            "faster-whisper": str(ctranslate2_folder(folder / "tiny", weights, **_TINY)),
        }

        def spent(name: str, beam_size: int) -> Spent:
            options = {"model": models[name], "language": "en", "beam_size": beam_size}
            transcriber = load_transcriber(name, options | {"device": "cpu"})
            transcriber.transcribe(warm)
            transcript, spent = timed(lambda: transcriber.transcribe(media))
            assert len(transcript.cues) > minutes
            return spent

        warm = probe(_spoken(folder / "warm.wav", 11))
        openai = spent("whisper", 1)
        greedy, beams = spent("faster-whisper", 1), spent("faster-whisper", 5)
    print(
        f"speech: {seconds:.0f} s of talk, models of Whisper tiny's size, 85 tokens and their "
        "times for each window of 30 s, voice activity included: "
        + "; ".join(
            f"{name} {one.wall / seconds:.3f} × real time ({one.cpu / seconds:.3f} in processor "
            f"time, {openai.cpu / one.cpu:.2f} × as fast as whisper)"
            for name, one in (
                ("whisper (float32, greedy)", openai),
                ("faster-whisper (int8, greedy)", greedy),
                ("faster-whisper (int8, five beams, as by default)", beams),
            )
        )
    )


def _spoken(path: Path, seconds: float) -> Path:
    """A real recording of 11 s again and again."""
    from vsa_core.media import SAMPLE_RATE_HZ, probe

    once = probe(clips().parent / "speech" / "whisper_jfk.flac")
    samples = np.concatenate([samples for _, samples in once.audio()])
    times = max(1, round(seconds * SAMPLE_RATE_HZ / len(samples)))
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        file.writeframes((np.tile(samples, times) * 32767).astype("<i2").tobytes())
    return path
