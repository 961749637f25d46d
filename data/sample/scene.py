"""What is behind a person, and the slides of a clip without one."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]

WALLS: dict[str, tuple[Colour, Colour]] = {  # top and bottom
    "shelf": ((190, 180, 165), (150, 140, 128)),
    "window": ((176, 188, 198), (140, 150, 158)),
    "plain": ((186, 178, 186), (150, 142, 150)),
    "kitchen": ((206, 200, 182), (168, 160, 140)),
    "night": ((58, 60, 86), (34, 34, 52)),
}
INK = (60, 66, 78)


def room(kind: str, size: tuple[int, int], seed: int) -> Picture:
    """A room out of focus, (height, width, 3) RGB."""
    width, height = size
    top, bottom = (np.float32(c) for c in WALLS[kind])
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    picture = np.repeat(top + (bottom - top) * share, width, axis=1)
    rng = np.random.default_rng(seed)
    _FURNITURE[kind](picture, rng)
    picture = cv2.GaussianBlur(picture, (0, 0), height / 90)
    return np.clip(picture + 0.5, 0, 255).astype(np.uint8)


def _box(
    picture: NDArray[np.float32], x0: float, y0: float, x1: float, y1: float, c: Colour
) -> None:
    """A filled rectangle in shares of the picture's width and height."""
    height, width = picture.shape[:2]
    corner = (int(x0 * width), int(y0 * height))
    cv2.rectangle(picture, corner, (int(x1 * width), int(y1 * height)), c, -1)


def _shelf(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    for y in (0.24, 0.55):
        for x in (0.02, 0.74):
            at = x
            while at < x + 0.2:
                thick = rng.uniform(0.012, 0.03)
                colour = tuple(int(v) for v in rng.uniform(70, 170, 3))
                _box(picture, at, y - rng.uniform(0.13, 0.19), at + thick, y, colour)
                at += thick + 0.004
            _box(picture, x - 0.02, y, x + 0.25, y + 0.02, (108, 84, 62))


def _window(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    left = rng.uniform(0.03, 0.06)
    _box(picture, left, 0.06, left + 0.24, 0.62, (232, 236, 238))
    _box(picture, left + 0.015, 0.085, left + 0.225, 0.595, (188, 214, 232))
    _box(picture, left + 0.015, 0.42, left + 0.225, 0.595, (140, 170, 130))
    _box(picture, left + 0.112, 0.06, left + 0.128, 0.62, (232, 236, 238))
    _plant(picture, 0.88, rng)


def _plain(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    _box(picture, 0.78, 0.12, 0.95, 0.4, (120, 96, 78))
    _box(picture, 0.795, 0.145, 0.935, 0.375, (170, 160, 128))
    _plant(picture, 0.1, rng)


def _kitchen(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    for y in np.arange(0.3, 0.75, 0.09):
        cv2.line(picture, (0, int(y * height)), (width, int(y * height)), (190, 182, 164), 1)
    _box(picture, 0, 0, 1, 0.2, (150, 118, 92))
    _box(picture, 0.03, 0.42, 0.16, 0.72, (196, 196, 198))
    for x in (0.82, 0.88, 0.94):
        _box(picture, x - 0.02, 0.45 + rng.uniform(0, 0.05), x + 0.015, 0.68, (150, 96, 70))


def _night(picture: NDArray[np.float32], rng: np.random.Generator) -> None:
    _box(picture, 0.72, 0.1, 0.98, 0.14, (90, 60, 150))
    _box(picture, 0.02, 0.5, 0.16, 0.54, (40, 110, 140))
    for _ in range(6):
        x, y = rng.uniform(0.02, 0.2), rng.uniform(0.05, 0.4)
        _box(picture, x, y, x + 0.012, y + 0.016, (170, 150, 90))


def _plant(picture: NDArray[np.float32], x: float, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    _box(picture, x - 0.03, 0.62, x + 0.03, 0.76, (160, 110, 84))
    for angle in rng.uniform(-70, 70, 9):
        tip = (x + 0.09 * np.sin(np.radians(angle)), 0.62 - 0.3 * np.cos(np.radians(angle)))
        middle = (int((x + tip[0]) / 2 * width), int((0.62 + tip[1]) / 2 * height))
        axes = (int(0.15 * height), int(0.02 * height))
        cv2.ellipse(picture, middle, axes, angle - 90, 0, 360, (86, 120, 82), -1, cv2.LINE_AA)


_FURNITURE = {
    "shelf": _shelf, "window": _window, "plain": _plain, "kitchen": _kitchen, "night": _night,
}  # fmt: skip


def slide(kind: str, number: int, title: str, size: tuple[int, int]) -> Picture:
    """Slide `number` of a talk without a face: a title over a chart, a garden or a plan."""
    width, height = size
    picture = np.full((height, width, 3), (240, 240, 232), np.uint8)
    cv2.rectangle(picture, (0, 0), (width, 34), (76, 112, 92), -1)
    cv2.putText(
        picture, title, (12, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (250, 250, 245), 1, cv2.LINE_AA
    )
    _SLIDES[kind](picture, np.random.default_rng(100 + number))
    return picture


def _write(
    picture: Picture, text: str, at: tuple[int, int], size: float, colour: Colour = INK
) -> None:
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, 1, cv2.LINE_AA)


def _chart(picture: Picture, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    floor = height - 30
    cv2.line(picture, (40, floor), (width - 30, floor), INK, 2)
    step = (width - 90) // 12
    for month in range(12):
        x, tall = 48 + month * step, int(rng.uniform(20, 140))
        cv2.rectangle(picture, (x, floor - tall), (x + step - 8, floor), (96, 140, 180), -1)
        _write(picture, "JFMAMJJASOND"[month], (x + 4, floor + 16), 0.4)


def _garden(picture: Picture, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    cv2.rectangle(picture, (0, 34), (width, height), (190, 216, 232), -1)
    cv2.circle(picture, (width - 50, 74), 20, (244, 214, 110), -1, cv2.LINE_AA)
    cv2.rectangle(picture, (0, height - 80), (width, height), (116, 150, 92), -1)
    for k in range(9):
        x, tall = int((k + 0.6) * width / 9.2), int(rng.uniform(35, 95))
        foot = height - 20 - int(rng.uniform(0, 30))
        cv2.line(picture, (x, foot), (x, foot - tall), (70, 110, 60), 3, cv2.LINE_AA)
        petals = tuple(int(v) for v in rng.uniform(120, 240, 3))
        cv2.circle(picture, (x, foot - tall), 9, petals, -1, cv2.LINE_AA)


def _plan(picture: Picture, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    names = ("carrots", "beans", "onions", "peas", "leeks")
    for row, name in enumerate(names):
        y = 64 + row * (height - 90) // 5
        _write(picture, f"row {row + 1}: {name}", (24, y), 0.45)
        cv2.line(
            picture,
            (180, y - 4),
            (180 + int(rng.uniform(60, width - 220)), y - 4),
            (150, 120, 90),
            5,
        )


_SLIDES = {"chart": _chart, "garden": _garden, "plan": _plan}
