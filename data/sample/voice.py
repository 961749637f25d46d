"""Synthetic voices: espeak-ng, one voice per person, faster, louder or lower with the emotion."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 22_050  # what espeak-ng writes
MISSING = (
    "espeak-ng, which speaks the lines, is not installed (only re-making the sample needs it): "
    "apt-get install espeak-ng, dnf install espeak-ng or brew install espeak-ng"
)


@dataclass(frozen=True, slots=True)
class Voice:
    """An espeak-ng voice, its speed in words a minute and its pitch (0 to 99)."""

    name: str
    speed: int
    pitch: int


VOICES: dict[str, Voice] = {
    "ana": Voice("en-us+f3", 165, 52),
    "ben": Voice("en-us+m3", 160, 40),
    "cho": Voice("en-us+f2", 160, 50),
    "dev": Voice("en-gb+m7", 165, 44),
    "eli": Voice("en-us", 140, 38),
    "fay": Voice("en-us+f4", 170, 55),
}
# meaning -> change of speed, of pitch, and loudness (espeak-ng's 0 to 200)
MANNERS: dict[str, tuple[float, int, int]] = {
    "anger": (1.06, 6, 150),
    "disgust": (0.96, -4, 115),
    "fear": (1.08, 10, 90),
    "joy": (1.05, 8, 125),
    "neutral": (1.0, 0, 100),
    "sadness": (0.88, -8, 75),
    "surprise": (1.05, 12, 130),
}


def say(text: str, voice: Voice, emotion: str) -> NDArray[np.float32]:
    """A line spoken, (samples,) float32 in [-1, 1] at `RATE_HZ`, without silence around it."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SystemExit(MISSING)
    speed, pitch, loudness = MANNERS[emotion]
    command = [
        program, "--stdout", "-v", voice.name, "-s", str(round(voice.speed * speed)),
        "-p", str(voice.pitch + pitch), "-a", str(loudness), text,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=True)
    with wave.open(io.BytesIO(done.stdout)) as file:
        if file.getframerate() != RATE_HZ:
            raise SystemExit(f"espeak-ng wrote {file.getframerate()} Hz, not {RATE_HZ}")
        pcm = np.frombuffer(file.readframes(1 << 30), np.int16)
    heard = np.flatnonzero(np.abs(pcm) > 150)
    return pcm[heard[0] : heard[-1] + 1].astype(np.float32) / 32768


def loudness(sound: NDArray[np.float32], times_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """How loud a sound is around each time, (n,), 0 to 1 relative to its louder moments."""
    half = int(0.03 * RATE_HZ)
    power = np.concatenate([[0.0], np.cumsum(np.square(sound, dtype=np.float64))])
    at = (times_s * RATE_HZ).astype(int)
    low, high = np.clip(at - half, 0, len(sound)), np.clip(at + half, 0, len(sound))
    rms = np.sqrt((power[high] - power[low]) / (2 * half))
    spoken = rms[rms > 1e-3]
    reference = np.percentile(spoken, 90) if len(spoken) else 1.0
    return np.clip(rms / reference, 0, 1)
