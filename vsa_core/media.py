"""Frames and 16 kHz mono audio of a video file, streamed; a video is never held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.decoders import Answer, ask, shown
from vsa_core.errors import MediaError
from vsa_core.language import near, tag_of

SAMPLE_RATE_HZ = 16_000
# Frames beyond this are a decompression bomb, not a video of somebody talking (8K is 33 MP).
MAX_FRAME_PX = 64_000_000
ENDS_EARLY = "ends early: "  # begins the note on a file that holds less than its header says


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright video frame.

    Attributes:
        time_ms: presentation time from the start of the video.
        rgb: (height, width, 3) uint8, rotated as the container says and as wide as it is shown;
            scaled so that the longer side is at most what was asked for.
        full_px: width and height before that scaling, upright, in square pixels.
    """

    time_ms: int
    rgb: NDArray[np.uint8]
    full_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Media:
    """What `probe` found out about a file, and the way to its frames and sound.

    Attributes:
        path: the file.
        duration_ms: the longest stream's length, as its packets have it.
        width, height: upright size in px, as it is shown; None without video.
        fps: average frame rate; None without video.
        has_video, has_audio: a decodable stream with at least one frame.
        sound_track: which of several sound tracks is heard, from 0; None where there is no choice.
        notes: what is odd about the file, one line each.
    """

    path: Path
    duration_ms: int
    width: int | None
    height: int | None
    fps: float | None
    has_video: bool
    has_audio: bool
    sound_track: int | None = None
    notes: tuple[str, ...] = ()

    def frames(
        self,
        per_s: float,
        max_side_px: int | None = None,
        start_ms: int = 0,
        end_ms: int | None = None,
    ) -> Iterator[Frame]:
        """`frames` of this file; empty without video."""
        if not self.has_video:
            return iter(())
        return frames(self.path, per_s, max_side_px, start_ms, end_ms, self.duration_ms)

    def audio(self, block_s: float = 10.0) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """`audio` of this file; empty without audio."""
        if not self.has_audio:
            return iter(())
        return audio(self.path, block_s, self.sound_track, self.duration_ms)

    def audio_between(self, start_ms: int, end_ms: int) -> NDArray[np.float32]:
        """`audio_between` of this file; empty without audio."""
        if not self.has_audio:
            return np.zeros(0, np.float32)
        return audio_between(self.path, start_ms, end_ms, self.sound_track, self.duration_ms)


def probe(path: Path, languages: Sequence[str] = ()) -> Media:
    """Open a file, decode a first frame of each kind, and say what there is.

    Args:
        path: the file.
        languages: BCP 47 tags; of several sound tracks the first that is in one of them is heard,
            the earlier language first; else the file's default. Not comments or descriptions,
            where there is another.

    Raises:
        MediaError: missing, unreadable, empty, not a known container, nothing in it decodes, or
            what decodes it crashed or took too much memory or time.
    """
    try:
        if path.stat().st_size == 0:
            raise MediaError(f"{shown(path)} is empty (0 bytes): fetch or export it again")
    except OSError as error:
        raise MediaError(f"{shown(path)} cannot be read: {error.strerror}") from error
    found = _end_of(ask(path, 0, "probe", max_px=MAX_FRAME_PX))
    tracks = [track for track in found["sound"] if track["decodes"]]
    size = found.get("size")
    if size is None and not tracks:
        reason = "; ".join(found["missing"])
        raise MediaError(
            f"{shown(path)} has no picture and no sound that decodes"
            f"{f' ({reason})' if reason else ''}: fetch or export it again"
        )
    heard = _heard(tracks, languages) if len(found["sound"]) > 1 and tracks else None
    notes = list(found["missing"])
    if "declared_ms" in found:
        notes.append(
            f"{ENDS_EARLY}after {found['duration_ms'] / 1000:.1f} s of the "
            f"{found['declared_ms'] / 1000:.1f} s its header says"
        )
    if heard is not None:
        about = [heard["language"] or "language not said", *["default"] * heard["default"]]
        notes.append(
            f"of {len(found['sound'])} sound tracks number {heard['track'] + 1} "
            f"({', '.join(about)}) is heard"
        )
    return Media(
        path=path,
        duration_ms=found["duration_ms"],
        width=size[0] if size else None,
        height=size[1] if size else None,
        fps=(found["fps"] or None) if size else None,
        has_video=size is not None,
        has_audio=bool(tracks),
        sound_track=heard["track"] if heard is not None else None,
        notes=tuple(notes),
    )


def _heard(tracks: Sequence[dict[str, Any]], languages: Sequence[str]) -> dict[str, Any]:
    """The track of some, in the order in which players take them, that is listened to."""
    of_film = [track for track in tracks if not track["aside"]] or tracks
    for wanted in languages:
        for track in of_film:
            if near(wanted, tag_of(track["language"])):
                return track
    return of_film[0]


def frames(
    path: Path,
    per_s: float,
    max_side_px: int | None = None,
    start_ms: int = 0,
    end_ms: int | None = None,
    duration_ms: int | None = None,
) -> Iterator[Frame]:
    """Upright RGB frames at a steady rate: the first one shown in each 1/per_s of a second.

    Stretches without a new frame (variable frame rate, a frozen stream) give none. Packets that
    do not decode are passed over; where four or more frames fall into a slot, those nothing else
    refers to are too, so that the one taken may be a few frames into it.

    Args:
        path: a file `probe` found video in.
        per_s: frames per second of video wanted.
        max_side_px: scale down so that the longer side is at most this; None leaves the size.
        start_ms, end_ms: only the frames shown from the one time to the other, both included; what
            lies before is not decoded where the container can seek.
        duration_ms: of the file, where it is known: decoding may take time in proportion.

    Raises:
        MediaError: the file cannot be opened any more, or what decodes it crashed or took too much
            memory or time.
    """
    for header, data in ask(
        path,
        duration_ms,
        "frames",
        per_s=per_s,
        max_side_px=max_side_px,
        start_ms=start_ms,
        end_ms=end_ms,
        max_px=MAX_FRAME_PX,
    ):
        full_width, full_height = header["full_px"]
        rgb = data.reshape(header["shape"])
        yield Frame(header["time_ms"], rgb, (full_width, full_height))


def audio(
    path: Path, block_s: float = 10.0, track: int | None = None, duration_ms: int | None = None
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """16 kHz mono sound in blocks: (index of the first sample from the video's start, samples).

    Blocks follow one another without a hole: a stream that starts late or has gaps is filled with
    silence, so that an index is a time. Channels are mixed; where they cancel one another, the
    loudest is taken.

    Args:
        path: a file `probe` found audio in.
        block_s: length of a block; the last one is shorter.
        track: which of several; None for the one that players play.
        duration_ms: of the file, where it is known: decoding may take time in proportion.

    Raises:
        MediaError: as `frames`.
    """
    answer = ask(path, duration_ms, "audio", block_s=block_s, track=track, duration_ms=duration_ms)
    for header, data in answer:
        yield header["first"], data.view(np.float32)


def audio_between(
    path: Path,
    start_ms: int,
    end_ms: int,
    track: int | None = None,
    duration_ms: int | None = None,
) -> NDArray[np.float32]:
    """16 kHz mono float32 samples of one span; shorter, or empty, where the sound ends earlier.

    Raises:
        MediaError: as `frames`.
    """
    span = {"start_ms": start_ms, "end_ms": end_ms}
    answer = ask(path, duration_ms, "audio_between", track=track, duration_ms=duration_ms, **span)
    pieces = [data.view(np.float32) for _, data in answer]
    return np.concatenate([np.zeros(0, np.float32), *pieces])


@dataclass(frozen=True, slots=True)
class Subtitles:
    """A stream of captions inside a file, as it lies there.

    Attributes:
        codec: FFmpeg's name of the format.
        language, title: what the stream says of itself; empty where it says nothing.
        partial: only what is foreign in the film, or somebody's comments on it.
        packets: (start_ms, end_ms, bytes) in the order of the file.
    """

    codec: str
    language: str
    title: str
    partial: bool
    packets: tuple[tuple[int, int, bytes], ...]


def subtitles(path: Path, max_bytes: int) -> list[Subtitles]:
    """The streams of captions in a file; nothing of them is decoded.

    Args:
        path: a file that `probe` has opened.
        max_bytes: of all packets together; what is beyond is not read.

    Raises:
        MediaError: as `frames`.
    """
    packets: dict[int, list[tuple[int, int, bytes]]] = {}

    def keep(header: dict[str, Any], data: NDArray[np.uint8]) -> None:
        packet = (header["start_ms"], header["end_ms"], data.tobytes())
        packets.setdefault(header["stream"], []).append(packet)

    found = _end_of(ask(path, None, "subtitles", max_bytes=max_bytes), keep)
    return [
        Subtitles(
            codec=stream["codec"],
            language=stream["language"],
            title=stream["title"],
            partial=stream["partial"],
            packets=tuple(packets.get(stream["index"], ())),
        )
        for stream in found["streams"]
    ]


def _end_of(
    answer: Answer, keep: Callable[[dict[str, Any], NDArray[np.uint8]], None] | None = None
) -> dict[str, Any]:
    """How an answer ends; what it gives until then is handed on."""
    while True:
        try:
            message = next(answer)
        except StopIteration as end:
            return end.value
        if keep is not None:
            keep(*message)
