"""Frames and 16 kHz mono audio of a video file, streamed with PyAV; a video is never held whole."""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core.errors import MediaError

SAMPLE_RATE_HZ = 16_000
# Frames beyond this are a decompression bomb, not a video of somebody talking (8K is 33 MP).
MAX_FRAME_PX = 64_000_000
_FRAMES_AHEAD = 6
# How far before a start frames are decoded again after a seek, and from where on seeking pays.
_RUN_UP_MS = 2000


@dataclass(frozen=True, slots=True)
class Frame:
    """One upright video frame.

    Attributes:
        time_ms: presentation time from the start of the video.
        rgb: (height, width, 3) uint8, rotated as the container says; scaled so that the longer
            side is at most what was asked for.
        full_px: width and height before that scaling, upright.
    """

    time_ms: int
    rgb: NDArray[np.uint8]
    full_px: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Media:
    """What `probe` found out about a file, and the way to its frames and sound.

    Attributes:
        path: the file.
        duration_ms: the longest stream's length.
        width, height: upright size in px; None without video.
        fps: average frame rate; None without video.
        has_video, has_audio: a decodable stream with at least one frame.
    """

    path: Path
    duration_ms: int
    width: int | None
    height: int | None
    fps: float | None
    has_video: bool
    has_audio: bool

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
        return frames(self.path, per_s, max_side_px, start_ms, end_ms)

    def audio(self, block_s: float = 10.0) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """`audio` of this file; empty without audio."""
        return audio(self.path, block_s) if self.has_audio else iter(())

    def audio_between(self, start_ms: int, end_ms: int) -> NDArray[np.float32]:
        """`audio_between` of this file; empty without audio."""
        if not self.has_audio:
            return np.zeros(0, np.float32)
        return audio_between(self.path, start_ms, end_ms)


# Only containers of sound and pictures: a playlist or a script in disguise (hls, concat, …) would
# make FFmpeg open other files and addresses on behalf of whoever made the "video".
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,ogg,asf,"
    "wav,mp3,aac,flac,mxf,ivf,nut"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}


def probe(path: Path) -> Media:
    """Open a file, decode a first frame of each kind, and say what there is.

    Raises:
        MediaError: missing, unreadable, empty, not a known container, or nothing in it decodes.
    """
    try:
        if path.stat().st_size == 0:
            raise MediaError(f"{_shown(path)} is empty (0 bytes): fetch or export it again")
    except OSError as error:
        raise MediaError(f"{_shown(path)} cannot be read: {error.strerror}") from error
    with _opened(path) as container:
        video = _video_stream(container)
        first = next(_decoded(container, video), None) if video else None
        fps = float(video.average_rate or 0) if video else 0.0
    with _opened(path) as container:
        sound = _audio_stream(container)
        has_audio = sound is not None and next(_decoded(container, sound), None) is not None
        duration_ms = _duration_ms(container)
    if first is None and not has_audio:
        raise MediaError(
            f"{_shown(path)} has no picture and no sound that decodes: fetch or export it again"
        )
    width = height = None
    if first is not None:
        if first.width * first.height > MAX_FRAME_PX:
            raise MediaError(
                f"{_shown(path)} has frames of {first.width}×{first.height} px, over the limit of "
                f"{MAX_FRAME_PX // 1_000_000} megapixels: export it smaller"
            )
        width, height = _upright_size(first)
    if not duration_ms:
        duration_ms = _scanned_duration_ms(path)
    return Media(
        path=path,
        duration_ms=duration_ms,
        width=width,
        height=height,
        fps=(fps or None) if first is not None else None,
        has_video=first is not None,
        has_audio=has_audio,
    )


def frames(
    path: Path,
    per_s: float,
    max_side_px: int | None = None,
    start_ms: int = 0,
    end_ms: int | None = None,
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

    Raises:
        MediaError: the file cannot be opened any more.
    """
    # While one frame is looked at, the next ones are decoded.
    sampling = _sampled(path, per_s, max_side_px, start_ms, end_ms)
    with closing(sampling) as sampled, ThreadPoolExecutor(1) as pool:
        ahead = deque(pool.submit(next, sampled, None) for _ in range(_FRAMES_AHEAD))
        while (frame := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, sampled, None))
            yield frame


def _sampled(
    path: Path, per_s: float, max_side_px: int | None, start_ms: int, end_ms: int | None
) -> Generator[Frame, None, None]:
    found = None
    if start_ms > _RUN_UP_MS:
        found = yield from _sampled_from(path, per_s, max_side_px, start_ms, end_ms, seek=True)
    if not found:  # near the start, or the container cannot seek that exactly
        yield from _sampled_from(path, per_s, max_side_px, start_ms, end_ms, seek=False)


def _sampled_from(
    path: Path,
    per_s: float,
    max_side_px: int | None,
    start_ms: int,
    end_ms: int | None,
    *,
    seek: bool,
) -> Generator[Frame, None, bool]:
    """False when a seek landed behind the start, and nothing was given."""
    import av

    with _opened(path) as container:
        stream = _video_stream(container)
        if stream is None:
            return True
        if float(stream.average_rate or 0) >= 4 * per_s:
            # Frames nothing else refers to are not needed to decode the ones that are sampled.
            stream.codec_context.skip_frame = "NONREF"
        zero_s = _start_s(container)
        if seek:
            # The run-up lets slots begin as they would have without a seek.
            from_s = (start_ms - _RUN_UP_MS / 2) / 1000 + zero_s
            try:
                container.seek(round(from_s / stream.time_base), stream=stream)
            except av.error.FFmpegError:
                return False
        step = -1
        last_s = -1.0 / per_s
        landed = not seek
        for frame in _decoded(container, stream):
            if not landed:
                if frame.time is None or 1000 * (frame.time - zero_s) > start_ms - 500:
                    return False
                landed = True
            time_s = last_s + 1.0 / per_s if frame.time is None else max(0.0, frame.time - zero_s)
            if end_ms is not None and round(1000 * time_s) > end_ms:
                break
            if math.floor(time_s * per_s + 1e-6) <= step:
                continue
            step, last_s = math.floor(time_s * per_s + 1e-6), time_s
            if round(1000 * time_s) < start_ms or frame.width * frame.height > MAX_FRAME_PX:
                continue
            width, height = _fitted(frame.width, frame.height, max_side_px)
            rgb = frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
            turns = _quarter_turns(frame)
            yield Frame(
                time_ms=round(time_s * 1000),
                rgb=np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb,
                full_px=_upright_size(frame),
            )
        return landed


def audio(path: Path, block_s: float = 10.0) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """16 kHz mono sound in blocks: (index of the first sample from the video's start, samples).

    Blocks follow one another without a hole: a stream that starts late or has gaps is filled with
    silence, so that an index is a time.

    Args:
        path: a file `probe` found audio in.
        block_s: length of a block; the last one is shorter.

    Raises:
        MediaError: the file cannot be opened any more.
    """
    size = max(1, int(block_s * SAMPLE_RATE_HZ))
    with _opened_for_sound(path) as container:
        pending: list[NDArray[np.float32]] = []
        held = first = 0
        for _, piece in _samples(container, start_s=0.0):
            pending.append(piece)
            held += len(piece)
            while held >= size:
                joined = np.concatenate(pending)
                yield first, joined[:size]
                first += size
                pending, held = [joined[size:]], held - size
        if held:
            yield first, np.concatenate(pending)


def audio_between(path: Path, start_ms: int, end_ms: int) -> NDArray[np.float32]:
    """16 kHz mono float32 samples of one span; shorter, or empty, where the sound ends earlier.

    Raises:
        MediaError: the file cannot be opened any more.
    """
    start, end = (ms * SAMPLE_RATE_HZ // 1000 for ms in (start_ms, end_ms))
    found = _span(path, start, end, seek=start_ms > 2000)
    if found is None:  # the container cannot seek that exactly: decode up to the span
        found = _span(path, start, end, seek=False)
    return np.zeros(0, np.float32) if found is None else found


def _span(path: Path, start: int, end: int, *, seek: bool) -> NDArray[np.float32] | None:
    """Samples [start, end); None when a seek landed behind the span's start."""
    pieces: list[NDArray[np.float32]] = []
    with _opened_for_sound(path) as container:
        # Some run-up lets the decoder (mp3 refers back up to nine frames) and the resampler settle.
        run_up_s = max(0.0, start / SAMPLE_RATE_HZ - 0.4) if seek else 0.0
        for index, piece in _samples(container, start_s=run_up_s):
            if index > start and not pieces:
                return None
            if index >= end:
                break
            if index + len(piece) > start:
                pieces.append(piece[max(0, start - index) : end - index])
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _samples(container: Any, start_s: float) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """(index, samples) from about `start_s` on, contiguous, silence where the stream has none."""
    import av

    stream = _audio_stream(container)
    if stream is None:
        return
    zero_s = _start_s(container)
    if start_s > 0:
        try:
            container.seek(round((start_s + zero_s) / stream.time_base), stream=stream)
        except av.error.FFmpegError:
            return
    limit = round(container.duration / 1e6 * SAMPLE_RATE_HZ) if container.duration else None
    resampler: Any = None
    setup = None
    at: int | None = 0 if start_s <= 0 else None
    slack = 0  # the first sound lies exactly where it belongs
    for frame in _decoded(container, stream):
        due = at if frame.time is None else round((frame.time - zero_s) * SAMPLE_RATE_HZ)
        if at is None:
            at = due
        # Small steps are rounding; a hole is filled, but never beyond the file's own length.
        if due is not None and at is not None and due - at > slack:
            hole = (due if limit is None else min(due, limit)) - at
            while hole > 0:
                size = min(hole, 10 * SAMPLE_RATE_HZ)
                yield at, np.zeros(size, np.float32)
                at, hole = at + size, hole - size
        slack = SAMPLE_RATE_HZ // 50
        ready: list[Any] = []
        if setup != (frame.format.name, frame.layout.name, frame.sample_rate):
            # The first frame, or a joined or damaged stream that changes in the middle.
            ready = resampler.resample(None) if resampler else []
            setup = (frame.format.name, frame.layout.name, frame.sample_rate)
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
        for out in (*ready, *resampler.resample(frame)):
            piece = out.to_ndarray()[0]
            yield at or 0, piece
            at = (at or 0) + len(piece)
    if resampler is not None and at is not None:
        for out in resampler.resample(None):
            piece = out.to_ndarray()[0]
            yield at, piece
            at += len(piece)


def _opened(path: Path, **options: str) -> Any:
    import av

    av.logging.set_level(None)  # what FFmpeg thinks of a file is told by our own errors
    try:
        # An absolute path, so that a colon in a name is not taken for a protocol.
        return av.open(str(path.absolute()), options=_OPTIONS | options, metadata_errors="ignore")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            f"{_shown(path)} is not a video this can decode ({reason}): "
            "play it to check, fetch or export it again"
        ) from error


def _opened_for_sound(path: Path) -> Any:
    """Opened without decoding a first picture, which at 1080p costs ten times the rest.

    Only mp4 and its kin tell in their index when each stream starts; elsewhere FFmpeg has to
    decode a picture to know, and the file is opened in full.
    """
    container = _opened(path, codec_whitelist=_audio_decoders())
    if container.format.name.startswith("mov,"):
        return container
    container.close()
    return _opened(path)


@functools.cache
def _audio_decoders() -> str:
    import av

    names = []
    for name in sorted(av.codec.codecs_available):
        try:
            if av.codec.Codec(name, "r").type == "audio":
                names.append(name)
        except av.codec.codec.UnknownCodecError:  # it can only encode
            continue
    return ",".join(names)


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames of one stream; what does not decode is passed over, a torn end is the end."""
    import av

    # Sampling skips most frames, so that threads of one decoder only wait for one another.
    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            yield from packet.decode()
        except (av.error.FFmpegError, ValueError):
            continue


def _video_stream(container: Any) -> Any | None:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # a cover is no video
            return stream
    return None


def _audio_stream(container: Any) -> Any | None:
    return container.streams.audio[0] if container.streams.audio else None


def _start_s(container: Any) -> float:
    return float(container.start_time or 0) / 1e6


def _duration_ms(container: Any) -> int:
    return round((container.duration or 0) / 1000)


def _scanned_duration_ms(path: Path) -> int:
    """The end of the last packet, for containers that do not tell their length."""
    end_s = 0.0
    with _opened(path) as container:
        zero_s = _start_s(container)
        streams = [s for s in (_video_stream(container), _audio_stream(container)) if s is not None]
        for packet in container.demux(streams):
            if packet.pts is not None and packet.time_base is not None:
                end_s = max(
                    end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - zero_s
                )
    return round(end_s * 1000)


def _quarter_turns(frame: Any) -> int:
    """How often to turn the picture left by 90° so that it stands upright."""
    return round((frame.rotation or 0) / 90) % 4


def _upright_size(frame: Any) -> tuple[int, int]:
    size = (frame.width, frame.height)
    return (size[1], size[0]) if _quarter_turns(frame) % 2 else size


def _fitted(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    longest = max(width, height)
    if max_side_px is None or longest <= max_side_px:
        return width, height
    return (
        max(1, round(width * max_side_px / longest)),
        max(1, round(height * max_side_px / longest)),
    )


def _shown(path: Path) -> str:
    """A path on one line, whatever is in its name."""
    return repr(str(path)) if not str(path).isprintable() else str(path)


# --- captions inside a file ---------------------------------------------------------------


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
        MediaError: the file cannot be opened any more.
    """
    import av
    from av.stream import Disposition

    with _opened(path) as container:
        streams = list(container.streams.subtitles)
        packets: dict[int, list[tuple[int, int, bytes]]] = {s.index: [] for s in streams}
        zero_s, left = _start_s(container), max_bytes
        try:
            for packet in container.demux(streams) if streams else ():
                left -= packet.size
                if left < 0:
                    break
                if packet.size and packet.pts is not None and packet.time_base is not None:
                    start_ms = round((float(packet.pts * packet.time_base) - zero_s) * 1000)
                    length_ms = round(float((packet.duration or 0) * packet.time_base) * 1000)
                    packets[packet.stream.index].append(
                        (start_ms, start_ms + length_ms, bytes(packet))
                    )
        except (av.error.FFmpegError, ValueError):
            pass  # what came before the damage stands
        partial = Disposition.forced | Disposition.comment
        return [
            Subtitles(
                stream.codec_context.name if stream.codec_context else "unknown",
                str(stream.metadata.get("language", "")),
                str(stream.metadata.get("title", "")),
                bool(stream.disposition & partial),
                tuple(packets[stream.index]),
            )
            for stream in streams
        ]
