"""Soft-edged painting: outlines in canvas pixels, filled, blurred and laid over a float picture."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Points = NDArray[np.float64]
Colour = tuple[float, float, float]  # RGB, 0 to 1

UNIT_PX = 64  # pixels per face unit on the canvas a face is painted on
CANVAS_PX = (284, 308)  # its width and height
SOFT_PX = UNIT_PX / 84  # pixels per step of softness of an edge


@lru_cache(maxsize=64)
def _blend(controls: int, count: int) -> Points:
    """The matrix, (count, controls), that makes a Catmull-Rom line of its control points."""
    t = np.linspace(0, controls - 1 - 1e-9, count)
    i = t.astype(int)
    u = t - i
    weights = 0.5 * np.stack(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, u**3 - u**2]
    )
    padded = np.zeros((count, controls + 2))
    for k in range(4):
        padded[np.arange(count), i + k] += weights[k]
    blend = padded[:, 1:-1].copy()  # the points beyond the ends mirror the last but one
    blend[:, 0] += 2 * padded[:, 0]
    blend[:, 1] -= padded[:, 0]
    blend[:, -1] += 2 * padded[:, -1]
    blend[:, -2] -= padded[:, -1]
    return blend


def curve(control: Points, count: int = 24) -> Points:
    """A smooth line of `count` points through control points (n, 2)."""
    return _blend(len(control), count) @ control


def ribbon(line: Points, widths: Points) -> Points:
    """The outline, (2n, 2), of a stroke along a line (n, 2) with a width at each point (n,)."""
    along = np.empty_like(line)
    along[1:-1] = line[2:] - line[:-2]
    along[0], along[-1] = line[1] - line[0], line[-1] - line[-2]
    half = 0.5 * widths / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    across = np.empty_like(line)
    across[:, 0], across[:, 1] = -along[:, 1] * half, along[:, 0] * half
    return np.concatenate([line + across, (line - across)[::-1]])


def ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Points:
    """An ellipse's outline, (28, 2)."""
    angle = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    px, py = rx * np.cos(angle), ry * np.sin(angle)
    return np.stack(
        [x + px * np.cos(tilt) - py * np.sin(tilt), y + px * np.sin(tilt) + py * np.cos(tilt)], 1
    )


def paint(
    image: Image,
    outline: Points,
    colour: Colour,
    alpha: float = 1.0,
    blur: float = 0.6,
    *,
    multiply: bool = False,
    within: Points | None = None,
) -> None:
    """Fill an outline (n, 2, canvas pixels) in place, with an edge softened by `blur` steps.

    With `multiply` the colour tints what is there (a shadow) in place of covering it; `within`
    is a second outline the paint does not leave.
    """
    if alpha < 0.004:
        return
    box = _around(outline, blur)
    mask = _soft_mask(outline, box, blur)
    if within is not None:
        mask *= _mask(within, box)
    mask = (mask * np.float32(min(alpha, 1.0)))[..., None]
    region = image[box[1] : box[3], box[0] : box[2]]
    target = region * np.float32(colour) if multiply else np.float32(colour)
    region += (target - region) * mask


def _around(outline: Points, blur: float) -> tuple[int, int, int, int]:
    """Left, top, right, bottom, inside the canvas, of what an outline and its soft edge cover."""
    margin = int(3 * blur * SOFT_PX) + 2
    (left, top), (right, bottom) = outline.min(0), outline.max(0)
    x0 = min(max(int(left) - margin, 0), CANVAS_PX[0] - 1)
    y0 = min(max(int(top) - margin, 0), CANVAS_PX[1] - 1)
    x1 = min(max(int(right) + margin + 1, x0 + 1), CANVAS_PX[0])
    y1 = min(max(int(bottom) + margin + 1, y0 + 1), CANVAS_PX[1])
    return x0, y0, x1, y1


def _mask(outline: Points, box: tuple[int, int, int, int]) -> Image:
    x0, y0, x1, y1 = box
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fixed = np.round((outline - (x0, y0)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, lineType=cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


def _soft_mask(outline: Points, box: tuple[int, int, int, int], blur: float) -> Image:
    mask = _mask(outline, box)
    return cv2.GaussianBlur(mask, (0, 0), blur * SOFT_PX) if blur * SOFT_PX > 0.3 else mask


def shade(colour: Colour, factor: float) -> Colour:
    """A colour made darker (below 1) or lighter (above 1)."""
    r, g, b = (float(np.clip(c * factor, 0, 1)) for c in colour)
    return r, g, b


@lru_cache(maxsize=32)
def _strands(seed: int) -> Image:
    """Hair texture around 1, (height, width)."""
    width, height = CANVAS_PX
    noise = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    streaks = cv2.GaussianBlur(noise, (0, 0), sigmaX=0.8, sigmaY=7)
    return 1 + 0.13 * streaks / streaks.std()


def cover(alpha: Image, outline: Points, blur: float = 0.8) -> None:
    """Make what lies in an outline opaque."""
    x0, y0, x1, y1 = box = _around(outline, blur)
    region = alpha[y0:y1, x0:x1]
    np.maximum(region, _soft_mask(outline, box, blur), out=region)


def comb(image: Image, outline: Points, seed: int, within: Points | None = None) -> None:
    """Draw strands of hair into an outline, and not outside a second one."""
    x0, y0, x1, y1 = box = _around(outline, 1.0)
    mask = _soft_mask(outline, box, 1.0)
    if within is not None:
        mask *= _mask(within, box)
    strands = _strands(seed)[y0:y1, x0:x1] - 1
    image[y0:y1, x0:x1] *= (1 + mask * strands)[..., None]
