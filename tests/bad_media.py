"""Makes broken and odd media files, the kind real folders hold, small and the same every time.

`make(name, folder)` writes one of `NAMES` and returns its path. The files of `UNDECODABLE` hold
nothing that can be decoded; every other file is odd but has to work.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
FPS = 25
WIDTH_PX, HEIGHT_PX = 96, 64

# 16.16 and 2.30 fixed-point display matrices of the mp4 track header, by clockwise turn.
_TURN: dict[int, tuple[int, ...]] = {
    0: (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30),
    90: (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30),
    180: (-1 << 16, 0, 0, 0, -1 << 16, 0, 0, 0, 1 << 30),
    270: (0, -1 << 16, 0, 1 << 16, 0, 0, 0, 0, 1 << 30),
}


def picture(index: int, width: int = WIDTH_PX, height: int = HEIGHT_PX) -> NDArray[np.uint8]:
    """Frame `index` of the test film, (height, width, 3) RGB: a red top left corner, a green top
    right one, and a grey level that grows by 2 with the index, so that a frame tells its place."""
    rgb = np.full((height, width, 3), 40 + (2 * index) % 180, np.uint8)
    rgb[: height // 2, : width // 2] = (220, 20, 20)
    rgb[: height // 2, width // 2 :] = (20, 220, 20)
    return rgb


def film(n: int, width: int = WIDTH_PX, height: int = HEIGHT_PX) -> Iterable[NDArray[np.uint8]]:
    """The first n pictures."""
    return (picture(index, width, height) for index in range(n))


def sweep(seconds: float, rate: int = RATE_HZ, gain: float = 0.3) -> NDArray[np.float32]:
    """A tone rising from 200 Hz by 100 Hz per second, (n,) float32: no two places are alike."""
    time = np.arange(round(seconds * rate)) / rate
    return (gain * np.sin(2 * np.pi * (200 * time + 50 * time**2))).astype(np.float32)


def write(
    path: Path,
    pictures: Iterable[NDArray[np.uint8]] | None = None,
    samples: NDArray[np.float32] | None = None,
    *,
    rate: int = RATE_HZ,
    size: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    audio_codec: str = "aac",
    times_ms: Iterable[int] | None = None,
    fps: int = FPS,
    options: dict[str, str] | None = None,
    pixel: Fraction | None = None,
    captions: Iterable[tuple[str, str, str, Iterable[tuple[int, int, bytes]]]] = (),
) -> Path:
    """Writes a media file.

    Args:
        path: what to write; the ending chooses the container.
        pictures: frames; None for no video stream, empty for a stream without a packet.
        samples: mono sound in [-1, 1]; None for no audio stream, empty for one without a packet.
        rate: of the samples, in Hz.
        size: width and height of the pictures.
        codec, pixels: video encoder and its pixel format.
        audio_codec: audio encoder.
        times_ms: the time of each picture (variable frame rate); None for a steady `fps`.
        fps: frames per second.
        options: of the container, such as {"movflags": "faststart"}.
        pixel: how many times as wide as high a pixel is shown; None does not say.
        captions: streams of them: codec, language, title, and (start_ms, end_ms, bytes) of each.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        video = audio = None
        if pictures is not None:
            video = container.add_stream(codec, rate=fps)
            video.width, video.height = size
            video.pix_fmt = pixels
            video.time_base = Fraction(1, 1000)
            video.codec_context.time_base = Fraction(1, 1000)
            video.codec_context.gop_size = 12
            if pixel is not None:
                video.codec_context.sample_aspect_ratio = pixel
            if codec == "libx264":
                video.codec_context.options = {"preset": "ultrafast", "bf": "0"}
        if samples is not None:
            audio = container.add_stream(audio_codec, rate=rate)
            audio.codec_context.layout = "mono"
        texts = [_captions(container, *stream) for stream in captions]
        container.start_encoding()
        if video is not None and pictures is not None:
            times = iter(times_ms) if times_ms is not None else None
            for index, rgb in enumerate(pictures):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)
                frame.pts = next(times) if times is not None else round(index * 1000 / fps)
                frame.time_base = Fraction(1, 1000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None and samples is not None and samples.size:
            step = 1024
            for start in range(0, samples.size, step):
                block = np.ascontiguousarray(samples[None, start : start + step], np.float32)
                sound = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                sound.sample_rate, sound.pts = rate, start
                container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
        for packets in texts:
            container.mux(packets)
    return path


_HEADER = b"[Script Info]\n[V4+ Styles]\nFormat: Name\nStyle: Default\n[Events]\nFormat: Text\n"


def _captions(
    container: Any, codec: str, language: str, title: str, cues: Iterable[tuple[int, int, bytes]]
) -> list[av.Packet]:
    """A new stream of captions, and the packets to put into it."""
    stream = container.add_stream(codec)
    stream.time_base = Fraction(1, 1000)
    stream.codec_context.subtitle_header = _HEADER
    stream.metadata.update({"language": language, "title": title})
    packets = []
    for start_ms, end_ms, raw in cues:
        packet = av.Packet(raw)
        packet.pts = packet.dts = start_ms
        packet.duration, packet.time_base, packet.stream = (
            end_ms - start_ms,
            Fraction(1, 1000),
            stream,
        )
        packets.append(packet)
    return packets


def turned(path: Path, clockwise: int) -> Path:
    """Rewrites the display matrix of every track of an mp4, so that players turn the picture."""
    data = bytearray(path.read_bytes())
    old = struct.pack(">9i", *_TURN[0])
    at = data.find(b"tkhd")
    while at != -1:
        # version 0: 4 bytes type, 4 version and flags, 32 up to the matrix
        matrix = at + 4 + 4 + 36
        assert data[matrix : matrix + 36] == old, "no plain matrix where one was expected"
        data[matrix : matrix + 36] = struct.pack(">9i", *_TURN[clockwise])
        at = data.find(b"tkhd", matrix)
    path.write_bytes(bytes(data))
    return path


def torn(path: Path, share: float) -> Path:
    """Keeps the first `share` of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def scratched(path: Path, start: float, end: float) -> Path:
    """Overwrites a file's bytes between two shares of its length with noise."""
    data = bytearray(path.read_bytes())
    low, high = int(len(data) * start), int(len(data) * end)
    data[low:high] = np.random.default_rng(0).bytes(high - low)
    path.write_bytes(bytes(data))
    return path


def _empty_file(folder: Path) -> Path:
    path = folder / "empty.mp4"
    path.write_bytes(b"")
    return path


def _text_file(folder: Path) -> Path:
    path = folder / "notes.mp4"
    path.write_text("Dear all,\nthis is no video.\n" * 50, encoding="utf-8")
    return path


def _playlist(folder: Path) -> Path:
    path = folder / "playlist.mp4"
    path.write_text("#EXTM3U\n#EXTINF:2,\nfile:secret.mp4\n#EXT-X-ENDLIST\n", encoding="utf-8")
    return path


def _no_packets(folder: Path) -> Path:
    return write(folder / "no packets.mp4", [], np.zeros(0, np.float32), options=_FRAGMENTED)


def _torn_index_last(folder: Path) -> Path:
    return torn(write(folder / "torn.mp4", film(100), sweep(4)), 0.6)


def _torn_index_first(folder: Path) -> Path:
    path = write(folder / "torn.faststart.mp4", film(100), sweep(4), options=_FASTSTART)
    return torn(path, 0.6)


def _scratched(folder: Path) -> Path:
    path = write(folder / "scratched.mp4", film(100), sweep(4), options=_FASTSTART)
    return scratched(path, 0.5, 0.6)


def _audio_only(folder: Path) -> Path:
    return write(folder / "audio only.mp4", None, sweep(2))


def _video_only(folder: Path) -> Path:
    return write(folder / "video only.mp4", film(50))


def _zero_length_audio(folder: Path) -> Path:
    path = folder / "zero audio.mp4"
    return write(path, film(50), np.zeros(0, np.float32), options=_FRAGMENTED)


def _silent(folder: Path) -> Path:
    return write(folder / "silent.mp4", film(50), np.zeros(2 * RATE_HZ, np.float32))


def _one_pixel(folder: Path) -> Path:
    path = folder / "one pixel.mkv"
    return write(path, film(25, 1, 1), size=(1, 1), codec="ffv1", pixels="bgr0")


def _one_frame(folder: Path) -> Path:
    return write(folder / "one frame.mp4", film(1))


def _wide_8k(folder: Path) -> Path:
    size = (7680, 4320)
    return write(folder / "8k.mp4", film(2, *size), size=size)


def _turned(clockwise: int) -> Callable[[Path], Path]:
    def make_turned(folder: Path) -> Path:
        return turned(write(folder / f"turned {clockwise}.mp4", film(50), sweep(2)), clockwise)

    return make_turned


def _variable_rate(folder: Path) -> Path:
    return write(folder / "variable rate.mp4", film(len(VARIABLE_MS)), times_ms=VARIABLE_MS)


def _late_sound(folder: Path) -> Path:
    """The picture starts 1.5 s before the sound does."""
    path = folder / "late sound.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=RATE_HZ)
        audio.codec_context.layout = "mono"
        for rgb in film(100):
            container.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(video.encode(None))
        samples = (sweep(2.5)[None] * 32767).astype(np.int16)
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        sound.sample_rate, sound.pts = RATE_HZ, LATE_SOUND_MS * RATE_HZ // 1000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def _cover(folder: Path) -> Path:
    """A song whose only picture is its cover."""
    from av.stream import Disposition

    path = folder / "song with cover.mp3"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("libmp3lame", rate=44_100)
        audio.codec_context.layout = "mono"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(picture(0), format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(image))
        container.mux(cover.encode(None))
        sound = av.AudioFrame.from_ndarray(sweep(2, 44_100)[None], format="fltp", layout="mono")
        sound.sample_rate = 44_100
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return path


def _joined(folder: Path) -> Path:
    """Two recordings one after the other, where time starts again and the sound changes rate."""
    first = write(folder / "first.ts", film(50), sweep(2))
    second = write(folder / "second.ts", film(50), sweep(2, 44_100), rate=44_100)
    path = folder / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def _odd_name(folder: Path) -> Path:
    made = write(folder / "plain.mp4", film(50), sweep(2))
    return made.rename(folder / "a: 'b' \"c\"\n%20 –  😀 #1 ?x=[1].mp4")


_FASTSTART = {"movflags": "faststart"}
_FRAGMENTED = {"movflags": "empty_moov+frag_keyframe"}

# Frame times of the file with a variable frame rate: 25 a second, then two seconds of standstill,
# then 4 a second.
VARIABLE_MS = (*range(0, 1000, 40), *range(3000, 5000, 250))
LATE_SOUND_MS = 1500

_MAKERS: dict[str, Callable[[Path], Path]] = {
    "empty": _empty_file,
    "text": _text_file,
    "playlist": _playlist,
    "no packets": _no_packets,
    "torn, index last": _torn_index_last,
    "torn, index first": _torn_index_first,
    "scratched": _scratched,
    "audio only": _audio_only,
    "video only": _video_only,
    "zero-length audio": _zero_length_audio,
    "silent": _silent,
    "one pixel": _one_pixel,
    "one frame": _one_frame,
    "8k": _wide_8k,
    "turned 90": _turned(90),
    "turned 180": _turned(180),
    "turned 270": _turned(270),
    "variable rate": _variable_rate,
    "late sound": _late_sound,
    "cover": _cover,
    "joined": _joined,
    "odd name": _odd_name,
}
NAMES = tuple(_MAKERS)
UNDECODABLE = ("empty", "text", "playlist", "no packets", "torn, index last")


def make(name: str, folder: Path) -> Path:
    """Writes the file of that name into a folder and returns its path."""
    return _MAKERS[name](folder)


def with_tracks(
    path: Path, tracks: Iterable[tuple[NDArray[np.float32], str, str, int]], rate: int = RATE_HZ
) -> Path:
    """A Matroska file of several sound tracks and a picture.

    Args:
        path: what to write.
        tracks: the samples of each, (C, n), its layout, its language and its disposition.
        rate: of the samples, in Hz.
    """
    with av.open(str(path), "w", options={"default_mode": "passthrough"}) as container:
        made = []
        for samples, layout, language, disposition in tracks:
            stream = container.add_stream("flac", rate=rate)
            stream.codec_context.layout, stream.codec_context.format = layout, "s16"
            stream.metadata["language"] = language
            stream.disposition = disposition
            packed = np.ascontiguousarray((samples * 32767).astype(np.int16).T.reshape(1, -1))
            sound = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
            sound.sample_rate, sound.pts = rate, 0
            made.append((stream, sound))
        video = container.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for rgb in film(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(video.encode(None))
        for stream, sound in made:
            container.mux(stream.encode(sound))
            container.mux(stream.encode(None))
    return path


def looped(source: Path, path: Path, times: int) -> Path:
    """A clip repeated without encoding it again, as long as one likes."""
    with av.open(str(source)) as clip, av.open(str(path), "w") as container:
        copies = {
            stream.index: container.add_stream_from_template(stream)
            for stream in clip.streams
            if stream.type in ("audio", "video")
        }
        ends = dict.fromkeys(copies, 0)
        for _ in range(times):
            clip.seek(0)
            begins = dict(ends)
            for packet in clip.demux():
                if packet.dts is None or packet.stream_index not in copies:
                    continue
                index = packet.stream_index
                packet.pts, packet.dts = packet.pts + begins[index], packet.dts + begins[index]
                ends[index] = max(ends[index], packet.pts + (packet.duration or 0))
                packet.stream = copies[index]
                container.mux(packet)
    return path
