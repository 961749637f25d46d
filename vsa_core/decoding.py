"""What FFmpeg makes of a media file, in a process of its own that serves `decoders`"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import queue
import select
import signal
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from vsa_core.decoders import shown
from vsa_core.errors import MediaError
from vsa_core.media import SAMPLE_RATE_HZ

# What an operation gives: headers with the bytes that belong to them, then how it ended.
Answer = Generator[tuple[dict[str, Any], Any], None, dict[str, Any]]
Sound = NDArray[np.float32]

# How far before a start frames are decoded again after a seek, and from where on seeking pays.
_RUN_UP_MS = 2000
# Containers with an index; in others the time of what lies at the end is only counted or guessed.
_INDEXED = ("mov,", "matroska,", "avi", "flv", "asf")
_OFF_BY_MS = 250  # a length further from what the packets say is wrong
# Shapes of pixels beyond this are damage: two to one is the widest that is filmed.
_WIDEST_PIXEL = 4.0
_IDLE_S = 60.0
# Threads that scale; by itself FFmpeg takes one for each core, and memory for the stack of each.
_SCALERS = min(4, os.cpu_count() or 1)

# Only containers of sound and pictures: a playlist or a script in disguise (hls, concat, …) would
# make FFmpeg open other files and addresses on behalf of whoever made the "video".
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,m4v,h264,hevc,flv,ogg,asf,"
    "wav,mp3,aac,flac,mxf,ivf,nut"
)
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}

# --- what there is ------------------------------------------------------------------------


def probe(path: str, max_px: int) -> Answer:
    """Decode a first frame of each kind, and say what there is; see `media.probe`."""
    with _opened(path) as container:
        streams = [*_video_streams(container)[:1], *_sound_streams(container)]
        for stream in streams:
            if stream.type == "video":
                _check_size(path, stream, max_px)
        missing = [_without_decoder(s) for s in container.streams if s.codec_context is None]
        counted = not container.format.name.startswith(_INDEXED)
        packets = _Packets(container, streams)
        first = packets.first_frames()
        declared_ms = round((container.duration or 0) / 1000)
        if counted or not declared_ms:
            measured_ms: int | None = packets.end_ms()
        else:
            measured_ms = _end_ms(container, streams, declared_ms)
        if measured_ms is None:  # cannot seek there, or something else lies there
            with _opened(path) as again:
                measured_ms = _Packets(
                    again, [again.streams[stream.index] for stream in streams]
                ).end_ms()
        found: dict[str, Any] = {"duration_ms": declared_ms, "missing": [m for m in missing if m]}
        if abs(measured_ms - declared_ms) > _OFF_BY_MS and measured_ms:
            found["duration_ms"] = measured_ms
            if declared_ms > measured_ms + 1000 and not _is_estimate(path, container):
                found["declared_ms"] = declared_ms
        for stream in streams:
            frame = first.get(stream.index)
            if stream.type == "video" and frame is not None:
                _check_size(path, frame, max_px)
                found["size"] = _upright_size(frame, _pixel_shape(stream))
                found["fps"] = float(stream.average_rate or 0)
        found["sound"] = [
            {
                "track": container.streams.audio.index(stream),
                "decodes": stream.index in first,
                "default": bool(stream.disposition & Disposition.default),
                "aside": bool(stream.disposition & _ASIDE),
                **_called(stream),
            }
            for stream in _sound_streams(container)
        ]
    yield from ()
    return found


class _Packets:
    """The packets of some streams, read once: for a frame of each, and for where they end."""

    def __init__(self, container: Any, streams: list[Any]) -> None:
        self._streams = streams
        self._zero_s = _start_s(container)
        self._clocks = {stream.index: _Clock(container) for stream in streams}
        self._packets = _demuxed(container, streams) if streams else iter(())
        self._end_s = 0.0

    def first_frames(self) -> dict[int, Any]:
        """By index of the stream; a stream without one is left out."""
        found: dict[int, Any] = {}
        for stream in self._streams:
            stream.codec_context.thread_count = 1
        for packet in self._packets:
            self._note(packet)
            if packet.stream.index not in found:
                frame = next(_frames_of(packet), None)
                if frame is not None:
                    found[packet.stream.index] = frame
                    if len(found) == len(self._streams):
                        break
        return found

    def end_ms(self) -> int:
        """Where the last packet ends, from the start of the video."""
        for packet in self._packets:
            self._note(packet)
        return round(self._end_s * 1000)

    def _note(self, packet: Any) -> None:
        at = packet.pts if packet.pts is not None else packet.dts
        if at is not None and packet.time_base is not None and packet.size:
            length_s = float((packet.duration or 0) * packet.time_base)
            start_s = self._clocks[packet.stream.index].at(float(at * packet.time_base), length_s)
            self._end_s = max(self._end_s, start_s - self._zero_s + length_s)


class _Clock:
    """Time that goes on where a recording that was joined to another starts its own again."""

    _BACK_S = 1.0  # less is the order of frames

    def __init__(self, container: Any) -> None:
        self._joins = container.format.name in ("mpegts", "mpeg")
        self._last_s = self._offset_s = -math.inf

    def at(self, time_s: float, length_s: float) -> float:
        if not self._joins:
            return time_s
        if self._offset_s == -math.inf:
            self._offset_s = 0.0
        elif time_s + self._offset_s < self._last_s - self._BACK_S:
            self._offset_s = self._last_s - time_s
        self._last_s = max(self._last_s, time_s + self._offset_s + length_s)
        return time_s + self._offset_s


def _end_ms(container: Any, streams: list[Any], declared_ms: int) -> int | None:
    """Where the file ends, read from its last seconds; None where that says something else."""
    zero_s = _start_s(container)
    try:
        container.seek(round((declared_ms / 1000 + zero_s) * 1e6))
    except av.error.FFmpegError:
        return None
    end_s = 0.0
    for packet in _demuxed(container, streams):
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            end_s = max(end_s, end - zero_s)
    near = abs(end_s * 1000 - declared_ms) <= _OFF_BY_MS
    return declared_ms if near else None


def _is_estimate(path: str, container: Any) -> bool:
    """Whether the length was not in the header, but guessed of the size and the first bit rate."""
    rates = [s.codec_context.bit_rate or 0 for s in container.streams if s.codec_context]
    if len(container.streams) != 1 or not rates[:1] or not rates[0]:
        return False
    guess_s = 8 * Path(path).stat().st_size / rates[0]
    return abs(guess_s - container.duration / 1e6) <= 0.02 * guess_s


def _check_size(path: str, picture: Any, max_px: int) -> None:
    """Of a stream, as its header says, or of a frame."""
    width, height = picture.width or 0, picture.height or 0
    if width * height > max_px:
        raise MediaError(
            f"{shown(path)} has frames of {width}×{height} px, over the limit of "
            f"{max_px / 1e6:.0f} megapixels: export it smaller"
        )


def _without_decoder(stream: Any) -> str | None:
    """One line on a stream that nothing here decodes."""
    kind = {"video": "picture", "audio": "sound"}.get(stream.type)
    return f"no decoder for its {kind} (stream {stream.index})" if kind else None


# --- pictures -----------------------------------------------------------------------------


def frames(
    path: str,
    per_s: float,
    max_side_px: int | None,
    start_ms: int,
    end_ms: int | None,
    max_px: int,
) -> Answer:
    """Upright RGB frames at a steady rate; see `media.frames`."""
    found = None
    if start_ms > _RUN_UP_MS:
        found = yield from _frames_from(
            path, per_s, max_side_px, start_ms, end_ms, max_px, seek=True
        )
    if not found:  # near the start, or the container cannot seek that exactly
        yield from _frames_from(path, per_s, max_side_px, start_ms, end_ms, max_px, seek=False)
    return {}


def _frames_from(
    path: str,
    per_s: float,
    max_side_px: int | None,
    start_ms: int,
    end_ms: int | None,
    max_px: int,
    *,
    seek: bool,
) -> Generator[tuple[dict[str, Any], Any], None, bool]:
    """False when a seek landed behind the start, and nothing was given."""
    with _opened(path) as container:
        stream = next(iter(_video_streams(container)), None)
        if stream is None or stream.width * stream.height > max_px:
            return True
        if float(stream.average_rate or 0) >= 4 * per_s:
            # Frames nothing else refers to are not needed to decode the ones that are sampled.
            stream.codec_context.skip_frame = "NONREF"
        zero_s = _start_s(container)
        clock = _Clock(container)
        shape = _pixel_shape(stream)
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
            shown_s = None if frame.time is None else clock.at(frame.time, 0.0) - zero_s
            if not landed:
                if shown_s is None or 1000 * shown_s > start_ms - 500:
                    return False
                landed = True
            time_s = last_s + 1.0 / per_s if shown_s is None else max(0.0, shown_s)
            if end_ms is not None and round(1000 * time_s) > end_ms:
                break
            if math.floor(time_s * per_s + 1e-6) <= step:
                continue
            step, last_s = math.floor(time_s * per_s + 1e-6), time_s
            full = _display_size(frame, shape)
            if round(1000 * time_s) < start_ms or full[0] * full[1] > max_px:
                continue
            width, height = _fitted(*full, max_side_px)
            small = frame.reformat(width=width, height=height, format="rgb24", threads=_SCALERS)
            rgb = small.to_ndarray()
            turns = _quarter_turns(frame)
            rgb = np.ascontiguousarray(np.rot90(rgb, turns))  # rows may have been padded, too
            about = {
                "time_ms": round(time_s * 1000),
                "shape": rgb.shape,
                "full_px": _upright_size(frame, shape),
            }
            yield about, rgb
        return landed


def _pixel_shape(stream: Any) -> float:
    """How many times as wide as high a pixel is."""
    shape = float(stream.sample_aspect_ratio or 1)
    return shape if 1 / _WIDEST_PIXEL <= shape <= _WIDEST_PIXEL else 1.0


def _display_size(frame: Any, pixel: float) -> tuple[int, int]:
    """Width and height in square pixels, before it is turned; no pixel is thrown away for it."""
    if pixel >= 1:
        return round(frame.width * pixel), frame.height
    return frame.width, round(frame.height / pixel)


def _upright_size(frame: Any, pixel: float) -> tuple[int, int]:
    width, height = _display_size(frame, pixel)
    return (height, width) if _quarter_turns(frame) % 2 else (width, height)


def _quarter_turns(frame: Any) -> int:
    """How often to turn the picture left by 90° so that it stands upright."""
    return round((frame.rotation or 0) / 90) % 4


def _fitted(width: int, height: int, max_side_px: int | None) -> tuple[int, int]:
    longest = max(width, height)
    if max_side_px is None or longest <= max_side_px:
        return width, height
    return (
        max(1, round(width * max_side_px / longest)),
        max(1, round(height * max_side_px / longest)),
    )


# --- sound --------------------------------------------------------------------------------


def audio(path: str, block_s: float, track: int | None, duration_ms: int | None) -> Answer:
    """16 kHz mono sound in blocks; see `media.audio`."""
    size = max(1, int(block_s * SAMPLE_RATE_HZ))
    with _opened_for_sound(path) as container:
        pending: list[Sound] = []
        held = first = 0
        for _, piece in _samples(container, track, 0, duration_ms):
            pending.append(piece)
            held += len(piece)
            while held >= size:
                joined = np.concatenate(pending)
                yield {"first": first}, joined[:size]
                first += size
                pending, held = [joined[size:]], held - size
        if held:
            yield {"first": first}, np.concatenate(pending)
    return {}


def audio_between(
    path: str, start_ms: int, end_ms: int, track: int | None, duration_ms: int | None
) -> Answer:
    """16 kHz mono samples of one span, piece by piece; see `media.audio_between`."""
    start, end = (ms * SAMPLE_RATE_HZ // 1000 for ms in (start_ms, end_ms))
    found = False
    if start_ms > 2000:
        found = yield from _span(path, start, end, track, duration_ms, seek=True)
    if not found:  # near the start, or the container cannot seek that exactly
        yield from _span(path, start, end, track, duration_ms, seek=False)
    return {}


def _span(
    path: str, start: int, end: int, track: int | None, duration_ms: int | None, *, seek: bool
) -> Generator[tuple[dict[str, Any], Any], None, bool]:
    """Samples [start, end); False when a seek landed behind the span's start."""
    found = False
    with _opened_for_sound(path) as container:
        for index, piece in _samples(container, track, start if seek else 0, duration_ms):
            if index > start and not found:
                return False
            if index >= end:
                break
            if index + len(piece) > start:
                found = True
                part = piece[max(0, start - index) : end - index]
                yield {"first": index}, np.ascontiguousarray(part)
    return found or not seek


# A mix that has less than this share of what channels that have nothing to do with one another
# would give: they cancel. A voice in one channel only, or louder in one, does not come near.
_CANCELS = 0.25
_MIXED = SAMPLE_RATE_HZ // 2  # samples over which that is told, from one half second to the next
_FADE = SAMPLE_RATE_HZ // 50
_PIECE = 4096  # samples that come out of the resampler at a time
# Where speech is in a film's sound; what is not named counts as the surround does.
_SHARES = {"FC": 1.0, "FL": 0.71, "FR": 0.71, "LFE": 0.0, "LFE2": 0.0}
_SURROUND = 0.5


def _samples(
    container: Any, track: int | None, start: int, duration_ms: int | None
) -> Iterator[tuple[int, Sound]]:
    """(index, mono samples) from before sample `start` on, contiguous, silence where is none."""
    streams = _sound_streams(container)
    stream = container.streams.audio[track] if track is not None else next(iter(streams), None)
    if stream is None or stream not in streams:
        return
    many = stream.codec_context.layout.nb_channels > 1
    # Some run-up lets the decoder (mp3 refers back up to nine frames) and the resampler settle,
    # and channels be mixed from where they would have been.
    from_s = (max(0, start // _MIXED - 1) * _MIXED if many else start) / SAMPLE_RATE_HZ - 0.4
    mixer = _Mixer()
    for index, channels, names in _channels(container, stream, max(0.0, from_s), duration_ms):
        yield from mixer.mix(index, channels, names)
    yield from mixer.rest()


class _Mixer:
    """Mixes channels to one; where they would cancel, the loudest of them is taken.

    That is told of each half second, so that it does not depend on where decoding began.
    """

    def __init__(self) -> None:
        self._held: list[Sound] = []
        self._names: tuple[str, ...] = ()
        self._at = self._count = 0
        self._before: Sound | None = None

    def mix(
        self, index: int, channels: Sound, names: tuple[str, ...]
    ) -> Iterator[tuple[int, Sound]]:
        """(C, n) samples that follow those before → what is ready, (index, (n,))."""
        if names != self._names:
            yield from self.rest()
            self._names, self._before = names, None
        if len(channels) == 1:
            yield index, channels[0]
            return
        if not self._held:
            self._at = index
        self._held.append(channels)
        self._count += channels.shape[1]
        size = _MIXED - self._at % _MIXED
        while self._count >= size:
            joined = np.concatenate(self._held, axis=1)
            yield self._at, self._mixed(joined[:, :size])
            self._at += size
            self._held, self._count = [joined[:, size:]], self._count - size
            size = _MIXED

    def rest(self) -> Iterator[tuple[int, Sound]]:
        """What waits for the end of its half second."""
        if self._count:
            yield self._at, self._mixed(np.concatenate(self._held, axis=1))
        self._held, self._count = [], 0

    def _mixed(self, channels: Sound) -> Sound:
        shares = np.array([_SHARES.get(name, _SURROUND) for name in self._names], np.float32)
        shares = shares / shares.sum() if shares.sum() else np.full_like(shares, 1 / len(shares))
        mixed: Sound = shares @ channels
        with np.errstate(over="ignore", invalid="ignore"):  # damaged streams of floats
            power = np.einsum("ct,ct->c", channels, channels)
            if mixed @ mixed < _CANCELS * float(shares**2 @ power):
                shares = np.eye(len(shares), dtype=np.float32)[int(np.argmax(power))]
                mixed = shares @ channels
        before, self._before = self._before, shares
        if before is not None and (before != shares).any():
            fade = np.linspace(0, 1, min(_FADE, len(mixed)), dtype=np.float32)
            until = (before @ channels)[: len(fade)]
            mixed[: len(fade)] = fade * mixed[: len(fade)] + (1 - fade) * until
        return mixed


def _channels(
    container: Any, stream: Any, start_s: float, duration_ms: int | None
) -> Iterator[tuple[int, Sound, tuple[str, ...]]]:
    """(index, (C, n) samples at 16 kHz, the channels' names) from about `start_s` on."""
    zero_s = _start_s(container)
    if start_s > 0:
        try:
            container.seek(round((start_s + zero_s) / stream.time_base), stream=stream)
        except av.error.FFmpegError:
            return
    end_ms = duration_ms or (container.duration or 0) / 1000
    limit = round(end_ms * SAMPLE_RATE_HZ / 1000) if end_ms else None
    resampler: Any = None
    setup = None
    names: tuple[str, ...] = ()
    at = 0  # the next sample's index
    heard = 0.0 if start_s <= 0 else None  # the next frame's, which may wait in the resampler
    slack = 0  # the first sound lies exactly where it belongs
    for frame in _decoded(container, stream):
        due = None if frame.time is None else round((frame.time - zero_s) * SAMPLE_RATE_HZ)
        if heard is None:
            at = due or 0
            heard = float(at)
        # Small steps are rounding; a hole is filled, but never beyond the file's own length.
        hole = due is not None and due - heard > slack
        if hole or setup != (frame.format.name, frame.layout.name, frame.sample_rate):
            # The first frame, or a joined or damaged stream that changes in the middle.
            for piece in _resampled(resampler, None):
                yield at, piece, names
                at += piece.shape[1]
            setup = (frame.format.name, frame.layout.name, frame.sample_rate)
            names = tuple(channel.name for channel in frame.layout.channels)
            names = names or ("",) * frame.layout.nb_channels
            resampler = av.AudioResampler("fltp", frame.layout, SAMPLE_RATE_HZ, _PIECE)
        if hole and due is not None:
            left = (due if limit is None else min(due, limit)) - at
            while left > 0:
                size = min(left, 10 * SAMPLE_RATE_HZ)
                yield at, np.zeros((len(names), size), np.float32), names
                at, left = at + size, left - size
            heard = max(heard, float(at))
        slack = SAMPLE_RATE_HZ // 50
        heard += frame.samples * SAMPLE_RATE_HZ / frame.sample_rate
        for piece in _resampled(resampler, frame):
            yield at, piece, names
            at += piece.shape[1]
    for piece in _resampled(resampler, None):
        yield at, piece, names
        at += piece.shape[1]


def _resampled(resampler: Any, frame: Any) -> Iterator[Sound]:
    """(C, n) samples that are ready; with None for a frame what is left."""
    for out in resampler.resample(frame) if resampler is not None else ():
        yield out.to_ndarray()


# --- captions inside the file -------------------------------------------------------------


def subtitles(path: str, max_bytes: int) -> Answer:
    """The packets of every stream of captions, undecoded; see `media.subtitles`."""
    with _opened(path) as container:
        streams = list(container.streams.subtitles)
        zero_s, left = _start_s(container), max_bytes
        for packet in _demuxed(container, streams) if streams else ():
            left -= packet.size
            if left < 0:
                break
            if packet.size and packet.pts is not None and packet.time_base is not None:
                start_ms = round((float(packet.pts * packet.time_base) - zero_s) * 1000)
                length_ms = round(float((packet.duration or 0) * packet.time_base) * 1000)
                about = {"stream": packet.stream.index, "start_ms": start_ms}
                yield about | {"end_ms": start_ms + length_ms}, bytes(packet)
        partial = Disposition.forced | Disposition.comment
        return {
            "streams": [
                {
                    "index": stream.index,
                    "codec": stream.codec_context.name if stream.codec_context else "unknown",
                    "partial": bool(stream.disposition & partial),
                    **_called(stream),
                }
                for stream in streams
            ]
        }


def _called(stream: Any) -> dict[str, str]:
    """What a stream says of itself; empty where it says nothing."""
    return {name: str(stream.metadata.get(name, ""))[:200] for name in ("language", "title")}


# --- files and streams --------------------------------------------------------------------

# Sound for those who cannot see, or about the film instead of of it.
_ASIDE = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.descriptions
    | Disposition.karaoke
    | Disposition.clean_effects
    | Disposition.non_diegetic
)
_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image


def _opened(path: str, **options: str) -> Any:
    try:
        return av.open(path, options=_OPTIONS | options, metadata_errors="ignore")
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaError(
            f"{shown(path)} is not a video this can decode ({reason}): "
            "play it to check, fetch or export it again"
        ) from error


def _opened_for_sound(path: str) -> Any:
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
    # Sampling skips most frames, so that threads of one decoder only wait for one another.
    stream.codec_context.thread_count = 1
    for packet in _demuxed(container, stream):
        yield from _frames_of(packet)


def _demuxed(container: Any, streams: Any) -> Iterator[Any]:
    packets = container.demux(streams)
    while True:
        try:
            yield next(packets)
        except MemoryError:
            raise
        except (StopIteration, av.error.FFmpegError):
            return


def _frames_of(packet: Any) -> Iterator[Any]:
    try:
        yield from packet.decode()
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError):
        # Decoders call what they have no memory for invalid.
        context = packet.stream.codec_context
        np.empty(4 * getattr(context, "width", 0) * getattr(context, "height", 0), np.uint8)
        return


def _video_streams(container: Any) -> list[Any]:
    """Those that decode, the one that players show first."""
    able = [s for s in container.streams.video if s.codec_context is not None]
    able = [s for s in able if not s.disposition & _PICTURES]  # a cover is no video
    return sorted(able, key=lambda s: not s.disposition & Disposition.default)


def _sound_streams(container: Any) -> list[Any]:
    """Those that decode, the one that players play first."""
    able = [s for s in container.streams.audio if s.codec_context is not None]
    return sorted(
        able,
        key=lambda s: (bool(s.disposition & _ASIDE), not s.disposition & Disposition.default),
    )


def _start_s(container: Any) -> float:
    return float(container.start_time or 0) / 1e6


# --- the process --------------------------------------------------------------------------

_OPERATIONS: dict[str, Callable[..., Answer]] = {
    "probe": probe,
    "frames": frames,
    "audio": audio,
    "audio_between": audio_between,
    "subtitles": subtitles,
}


def serve(parent: int, memory_bytes: int) -> None:
    """Answer requests until nobody is there to ask, or none came for a minute.

    A request is a line of JSON on standard input: an operation of `_OPERATIONS`, its arguments and
    the seconds of processor time it may take. An answer is any number of messages on standard
    output, each a length, a header in JSON and the bytes it speaks of; the last one says so.
    `stop` ends an answer early.
    """
    out = io.FileIO(os.dup(1), "w")
    with Path(os.devnull).open("w", encoding="ascii") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # whatever a library prints, it is no message
        os.dup2(nowhere.fileno(), 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    av.logging.set_level(None)  # what FFmpeg thinks of a file is told by our own errors
    _bound(memory_bytes)
    requests: queue.Queue[dict[str, Any]] = queue.Queue()
    stopped = threading.Event()
    threading.Thread(target=_listen, args=(parent, requests, stopped), daemon=True).start()
    while True:
        try:
            request = requests.get(timeout=_IDLE_S)
        except queue.Empty:
            return
        stopped.clear()
        _allow(request.pop("cpu_s"))
        try:
            end = _answered(out, _OPERATIONS[request.pop("op")](**request), stopped)
        except MediaError as error:
            end = {"error": str(error)}
        except MemoryError:
            end = {"out_of_memory": True}
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001 - a file made FFmpeg's binding raise it
            end = {"failed": f"{type(error).__name__}: {error}"[:300]}
        _put(out, {"end": True, **end}, b"")
        if "out_of_memory" in end:
            return


def _answered(out: io.FileIO, answer: Answer, stopped: threading.Event) -> dict[str, Any]:
    with contextlib.closing(answer):
        while not stopped.is_set():
            try:
                header, data = next(answer)
            except StopIteration as stop:
                return stop.value or {}
            _put(out, header, data)
    return {}


def _put(out: io.FileIO, header: dict[str, Any], data: Any) -> None:
    body = memoryview(data).cast("B")
    head = json.dumps({**header, "bytes": len(body)}).encode()
    for part in (memoryview(struct.pack("<I", len(head)) + head), body):
        while part:
            part = part[out.write(part) :]


def _listen(parent: int, requests: queue.Queue[dict[str, Any]], stopped: threading.Event) -> None:
    """Hand on what is asked, and end the process when nobody can ask any more.

    A killed parent leaves the pipe open where a process it forked still holds it.
    """
    waiting = b""
    while os.getppid() == parent:
        if not select.select([0], [], [], 2.0)[0]:
            continue
        read = os.read(0, 1 << 16)
        if not read:
            break
        *lines, waiting = (waiting + read).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["op"] == "stop":
                stopped.set()
            else:
                requests.put(request)
    os._exit(0)


def _bound(memory_bytes: int) -> None:
    """No more memory than that on top of what is used now, no files written, no core left."""
    with contextlib.suppress(OSError):  # where memory is short this process is to go, not the run
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    try:
        import resource
    except ImportError:
        return
    used = 0
    with contextlib.suppress(OSError):
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
        used = int(pages) * resource.getpagesize()
    limits = {"CORE": 0, "FSIZE": 0, "NOFILE": 64, "AS": used + memory_bytes}
    for name, limit in limits.items():
        # Not every system has each of them, or lets them be set.
        with contextlib.suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))


def _allow(seconds: float) -> None:
    """So much processor time from now on, then SIGXCPU."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_CPU)
        limit = math.ceil(time.process_time() + seconds)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, most))
