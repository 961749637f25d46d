"""One clip: its lines spoken and timed, its frames drawn, and both put into an mp4 file."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from cast import EXPRESSIONS, PEOPLE, speaking
from face import blink, draw, stand
from numpy.typing import NDArray
from portrait import Expression, Pose
from scene import room, slide
from voice import RATE_HZ, VOICES, loudness, say

PAUSE_S = (0.95, 1.4)
LINE_S = (1.5, 6.0)
CRF = "30"
AUDIO_BITS = 24_000


@dataclass(frozen=True, slots=True)
class Line:
    """One spoken line; `face` is an expression of `EXPRESSIONS`, None where no face is seen."""

    meaning: str
    face: str | None
    text: str
    kind: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Take:
    """A clip as it will be filmed.

    Attributes:
        spec: its entry in lines.yaml.
        lines: in order of time.
        silences: start and end in s of the long pauses.
        sound: (samples,) float32 at `RATE_HZ`.
    """

    spec: dict[str, Any]
    lines: tuple[Line, ...]
    silences: tuple[tuple[float, float], ...]
    sound: NDArray[np.float32]

    @property
    def duration_s(self) -> float:
        return len(self.sound) / RATE_HZ

    @property
    def fps(self) -> Fraction:
        return Fraction(self.spec["fps"])

    @cached_property
    def seed(self) -> int:
        return zlib.crc32(self.spec["name"].encode())


def rehearse(spec: dict[str, Any]) -> Take:
    """Speak a clip's lines one after another, with pauses between them.

    Raises:
        SystemExit: a line is shorter or longer than `LINE_S` when spoken, or there is no voice.
    """
    rng = np.random.default_rng(zlib.crc32(spec["name"].encode()))
    voice = VOICES[spec.get("person") or spec["speaker"]]
    at_s, lines, silences, sounds = 0.8, [], [], [np.zeros(int(0.8 * RATE_HZ), np.float32)]
    for entry in spec["lines"]:
        if isinstance(entry, dict):
            sound = np.zeros(int(entry["silence_s"] * RATE_HZ), np.float32)
            silences.append((at_s, at_s + len(sound) / RATE_HZ))
        else:
            meaning, face, text, *kind = entry
            sound = say(text, voice, meaning.rstrip("+-"))
            length_s = len(sound) / RATE_HZ
            if not LINE_S[0] <= length_s <= LINE_S[1]:
                raise SystemExit(f"{spec['name']}: {length_s:.2f} s is no length for: {text}")
            shown = None if face == "none" else face
            kind = kind[0] if kind else spec.get("kind", "agree")
            lines.append(Line(meaning, shown, text, kind, at_s, at_s + length_s))
        pause = np.zeros(int(rng.uniform(*PAUSE_S) * RATE_HZ), np.float32)
        sounds += [sound, pause]
        at_s += (len(sound) + len(pause)) / RATE_HZ
    return Take(spec, tuple(lines), tuple(silences), np.concatenate(sounds))


def frames(take: Take) -> Iterator[NDArray[np.uint8]]:
    """A take's frames in order, (height, width, 3) RGB, upright."""
    times = np.arange(int(np.ceil(take.duration_s * take.fps))) / float(take.fps)
    if "slides" in take.spec:
        starts = np.array([line.start_s - 0.5 for line in take.lines])
        for t in times:
            number = max(int(np.searchsorted(starts, t)) - 1, 0)
            kind = take.spec["slides"][number]
            yield slide(kind, number, take.spec["title"], tuple(take.spec["size"]))
        return
    behind = room(take.spec["room"], tuple(take.spec["size"]), take.seed)
    performers = [_Performer(take, times, take.spec["person"])]
    if "guest" in take.spec:
        performers.insert(0, _Performer(take, times, take.spec["guest"], listens=True))
    for number in range(len(times)):
        frame = behind.copy()
        for performer in performers:
            performer.appear(frame, number)
        yield frame


class _Performer:
    """One person in a take: where they are and what their face does at each frame."""

    def __init__(
        self, take: Take, times: NDArray[np.float64], name: str, *, listens: bool = False
    ) -> None:
        rng = np.random.default_rng((take.seed, sum(name.encode())))
        width, height = take.spec["size"]
        self.take, self.times, self.listens = take, times, listens
        self.person = PEOPLE[name]
        self.light = float(rng.uniform(-0.35, 0.1))
        if listens:  # further back and to the side
            self.unit_px, self.centre_px = 0.135 * height, (0.83 * width, 0.52 * height)
        elif height > width:
            self.unit_px, self.centre_px = 0.205 * width, (0.5 * width, 0.4 * height)
        else:
            x = 0.41 if "guest" in take.spec else rng.uniform(0.47, 0.53)
            self.unit_px = float(rng.uniform(0.19, 0.205)) * height
            self.centre_px = (x * width, 0.45 * height)
        self.sway = {
            name: _drift(rng, times, size)
            for name, size in
            (("yaw", 0.09), ("pitch", 0.05), ("roll", 0.03), ("x", 0.05), ("y", 0.03))
        }  # fmt: skip
        self.voice = np.zeros(len(times)) if listens else loudness(take.sound, times)
        self.rounding = _drift(rng, times, 1.0, hz=2.3)
        self.lids = _blinks(rng, times)
        self.expressions = [
            _varied(EXPRESSIONS["neutral" if listens else line.face or "neutral"], rng)
            for line in take.lines
        ]

    def appear(self, frame: NDArray[np.uint8], number: int) -> None:
        """Draw this person into a frame, in place."""
        t = float(self.times[number])
        sway = {name: float(values[number]) for name, values in self.sway.items()}
        away = max((_during(t, line.start_s, line.end_s, 0.8) for line in self.take.lines
                    if line.kind == "looks_away"), default=0.0)  # fmt: skip
        busy = max((_during(t, start + 1, end - 1, 0.8) for start, end in self.take.silences),
                   default=0.0)  # fmt: skip
        nod = 0.03 * float(self.voice[number])
        pose = Pose(
            yaw=sway["yaw"] + 0.9 * away,
            pitch=sway["pitch"] + nod + 0.28 * busy,
            roll=sway["roll"],
        )
        expression = self._expression(t)
        expression = expression.towards(Expression(furrow=0.3, eye_open=-0.3, gaze_y=1.0), busy)
        if self.voice[number] > 0.02:
            expression = speaking(
                expression, float(self.voice[number]), float(self.rounding[number])
            )
        expression = blink(expression, float(self.lids[number]))
        x = self.centre_px[0] + sway["x"] * self.unit_px + away * frame.shape[1]
        y = self.centre_px[1] + sway["y"] * self.unit_px
        figure = draw(self.person, expression, pose, self.light)
        stand(frame, figure, (x, y), self.unit_px, pose.roll)

    def _expression(self, t: float) -> Expression:
        """The face of the line being said; between lines a trace of the last one."""
        shown = Expression()
        for line, expression in zip(self.take.lines, self.expressions, strict=True):
            share = _during(t, line.start_s, line.end_s, 0.4)
            shown = shown.towards(expression, share)
        return shown


def _during(t: float, start_s: float, end_s: float, ramp_s: float) -> float:
    """1 within a span, 0 away from it, smooth over `ramp_s` outside its ends."""
    x = np.clip(1 - max(start_s - t, t - end_s, 0.0) / ramp_s, 0, 1)
    return float(x * x * (3 - 2 * x))


def _drift(
    rng: np.random.Generator, times: NDArray[np.float64], size: float, hz: float = 0.22
) -> NDArray[np.float64]:
    """A slow wandering around 0, (n,), seldom beyond `size`."""
    total = np.zeros(len(times))
    for share, factor in ((0.6, 1.0), (0.4, 2.3)):
        rate = hz * factor * rng.uniform(0.8, 1.2)
        total += share * np.sin(2 * np.pi * (rate * times + rng.uniform()))
    return size * total


def _blinks(rng: np.random.Generator, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the lids are down at each time, (n,), 0 to 1."""
    down, at = np.zeros(len(times)), float(rng.uniform(0.5, 3))
    while at < times[-1]:
        down = np.maximum(down, np.clip(1.3 - np.abs(times - at) / 0.09, 0, 1))
        at += float(rng.uniform(2.2, 5.5))
    return down


def _varied(expression: Expression, rng: np.random.Generator) -> Expression:
    """An expression a little weaker or stronger and a little uneven, as no two are alike."""
    strength = rng.uniform(0.8, 1.05)
    names = [f.name for f in fields(expression) if not f.name.startswith("gaze")]
    noise = dict(zip(names, rng.normal(0, 0.06, len(names)), strict=True))
    moved = {n: strength * getattr(expression, n) + noise[n] for n in names}
    return Expression(**moved)


def shoot(take: Take, path: Path) -> None:
    """Draw and encode a take: H.264 and AAC in mp4. A portrait picture is stored on its side with
    a rotation flag, as phones do."""
    width, height = take.spec["size"]
    portrait = height > width
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video: Any = container.add_stream("libx264", rate=take.fps)
        video.width, video.height = (height, width) if portrait else (width, height)
        video.pix_fmt = "yuv420p"
        video.codec_context.thread_count = 1
        # x264's macroblock tree does not come out the same twice, even on one thread.
        video.options = {
            "crf": CRF, "preset": "slow", "g": str(round(8 * take.fps)),
            "x264-params": "no-mbtree=1",
        }  # fmt: skip
        if portrait:
            video.set_display_rotation(90)
        audio: Any = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        audio.bit_rate = AUDIO_BITS
        heard = 0
        for number, rgb in enumerate(frames(take)):
            picture = cv2.rotate(rgb, cv2.ROTATE_90_CLOCKWISE) if portrait else rgb
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = number, 1 / take.fps
            container.mux(video.encode(frame))
            until = min(int((number + 1) / take.fps * RATE_HZ), len(take.sound))
            container.mux(audio.encode(_audio_frame(take.sound, heard, until)))
            heard = until
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def _audio_frame(sound: NDArray[np.float32], start: int, end: int) -> av.AudioFrame:
    pcm = np.clip(sound[start:end] * 32767, -32768, 32767).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
    return frame
