"""Videos to measure on: a real clip repeated without encoding it again, and captions for it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.bad_media import looped

# A sentence every four seconds, as in ordinary talk.
_EVERY_S = 4
_SENTENCES = (
    "I have used this phone for a month now.",
    "The battery is a disappointment, frankly.",
    "But the camera makes up for it, I love it.",
    "They ship it in a plain brown box.",
    "Would I buy it again?",
    "I am really not sure about that.",
)


def clips() -> Path:
    """The folder of real clips (VSA_SHARED names another place than ../shared)."""
    repo = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("VSA_SHARED", repo.parent / "shared")) / "data" / "clips"
    if not folder.is_dir():
        raise SystemExit(f"no clips at {folder}: set VSA_SHARED to the folder above data/")
    return folder


def talking_head(path: Path, seconds: float) -> Path:
    """640×360 at 24 fps, one face, as long as asked for, with captions beside it."""
    source = clips() / "pyfeat_WolfgangLanger_Pexels.mp4"
    length_s = 19.69
    times = max(1, round(seconds / length_s))
    path.parent.mkdir(parents=True, exist_ok=True)
    looped(source, path, times)
    cues = []
    for i in range(int(times * length_s / _EVERY_S)):
        start, end = i * _EVERY_S, i * _EVERY_S + 3
        cues.append(
            f"{start // 3600:02}:{start // 60 % 60:02}:{start % 60:02}.000 --> "
            f"{end // 3600:02}:{end // 60 % 60:02}:{end % 60:02}.000\n"
            f"{_SENTENCES[i % len(_SENTENCES)]}\n"
        )
    path.with_suffix(".vtt").write_text("WEBVTT\n\n" + "\n".join(cues), encoding="utf-8")
    return path
