"""A drawn face: shaded skin under hair, with features that move with an expression.

Everything is painted from soft-edged polygons. Nothing here is random: the same arguments paint
the same pixels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
from features import draw_beard, draw_brow, draw_eye, draw_mouth, draw_nose, draw_planes
from numpy.typing import NDArray
from paint import (
    CANVAS_PX,
    UNIT_PX,
    Image,
    Points,
    comb,
    cover,
    curve,
    ellipse,
    paint,
    ribbon,
    shade,
)
from portrait import ORIGIN_PX, SIDES, Expression, Person, Portrait, Pose, flat, side_line


def draw(
    person: Person, expression: Expression, pose: Pose | None = None, light: float = -0.25
) -> NDArray[np.uint8]:
    """One person's head and shoulders.

    Args:
        light: how far from the right the light comes (-1 left .. 1 right).

    Returns:
        (308, 284, 4) uint8 RGBA; the background is transparent. Roll is not applied here.
    """
    pose = pose or Pose()
    width, height = CANVAS_PX
    drop = 0.1 * max(expression.mouth_open, 0)
    # What shows through a soft edge has the colour of what is inside it.
    image = np.empty((height, width, 3), np.float32)
    collar_px = int(ORIGIN_PX[1] + 1.65 * UNIT_PX)
    image[:collar_px] = shade(person.skin if person.hair_style == "bald" else person.hair, 0.75)
    image[collar_px:] = person.shirt
    p = Portrait(
        person,
        expression,
        pose,
        image,
        np.zeros((height, width), np.float32),
        flat(head_outline(person, drop), 0.15 * np.sin(pose.yaw)),
    )
    _draw_behind(p)
    p.back(p.outline, person.skin)
    inside = np.zeros((height, width), np.float32)
    cover(inside, p.outline, blur=0.0)
    p.image *= (1 + inside * (_skin_light(light) - 1))[..., None]
    draw_planes(p)
    if person.beard:
        draw_beard(p)
    draw_mouth(p)
    draw_nose(p)
    for side in SIDES:
        draw_eye(p, side)
        draw_brow(p, side)
    _draw_hair(p)
    rgba = np.empty((height, width, 4), np.float32)
    rgba[..., :3], rgba[..., 3] = p.image, p.alpha
    return np.clip(rgba * 255 + 0.5, 0, 255).astype(np.uint8)


def head_outline(person: Person, jaw_drop: float = 0.0) -> Points:
    """The outline of skull, cheeks and chin, face coordinates, the chin `jaw_drop` units lower."""
    w, jaw, drop = person.width, person.jaw, jaw_drop
    right = np.array(
        [
            (0.0, -1.28),
            (0.52 * w, -1.16),
            (0.88 * w, -0.72),
            (0.97 * w, -0.15),
            (0.93 * w, 0.35),
            ((0.78 + 0.08 * jaw) * w, 0.82),
            ((0.50 + 0.12 * jaw) * w, 1.16 + 0.7 * drop),
            ((0.20 + 0.08 * jaw) * w, 1.33 + drop),
            (0.0, 1.36 + drop),
        ]
    )
    left = right[::-1][1:] * (-1, 1)
    return curve(np.vstack([right, left]), 90)


@lru_cache(maxsize=32)
def _skin_light(light: float) -> Image:
    """How bright skin is at each canvas pixel, (height, width), lit from above and one side."""
    width, height = CANVAS_PX
    x = (np.arange(width) - ORIGIN_PX[0]) / UNIT_PX
    y = (np.arange(height) - ORIGIN_PX[1]) / UNIT_PX
    nx, ny = np.meshgrid(x / 1.15, y / 1.7)
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
    diffuse = np.clip(nx * light - 0.30 * ny + 0.86 * nz, 0, 1)
    return (0.42 + 0.62 * diffuse).astype(np.float32)


def _draw_behind(p: Portrait) -> None:
    """Hair behind the head, ears, neck and shoulders."""
    person, w = p.person, p.person.width
    turn = 0.25 * float(np.sin(p.pose.yaw))
    if person.hair_style == "long":
        half = [(0.0, -1.58), (0.8, -1.25), (1.16, -0.4), (1.22, 0.9), (1.05, 2.0)]
        fall = flat(
            np.vstack([side_line(half, 1, 40), side_line(half, -1, 40)[::-1]]) * (w, 1), turn * 0.3
        )
        p.back(fall, shade(person.hair, 0.75))
        comb(p.image, fall, seed=3)
    elif person.hair_style == "bun":
        p.back(flat(ellipse(0, -1.55, 0.42, 0.36), turn * 0.3), shade(person.hair, 0.75))
    torso = [(0.0, 1.70), (0.55, 1.72), (1.5, 1.92), (1.95, 2.2), (2.08, 2.8)]
    p.back(flat(np.vstack([side_line(torso, 1), side_line(torso, -1)[::-1]])), person.shirt)
    throat = [(0.52, 0.9), (0.5, 1.5), (0.62, 1.8), (0.0, 2.12)]
    neck = flat(np.vstack([side_line(throat, 1), side_line(throat, -1)[::-1]]))
    p.back(neck, shade(person.skin, 0.72))
    under_chin = flat(ellipse(0, 1.3, 0.6, 0.34))
    paint(p.image, under_chin, (0.55, 0.5, 0.5), 0.8, 9, multiply=True, within=neck)
    collar = curve(np.array([(-0.66, 1.74), (-0.3, 2.02), (0.0, 2.16), (0.3, 2.02), (0.66, 1.74)]))
    paint(p.image, flat(ribbon(collar, np.full(24, 0.12))), shade(person.shirt, 0.7), 1, 1)
    if person.hair_style == "long":
        return  # it covers the ears
    for side in SIDES:
        p.back(
            flat(ellipse(side * 0.99 * w - turn * 0.5, 0.12, 0.13, 0.28, side * 0.12)),
            shade(person.skin, 0.8),
        )
        hollow = flat(ellipse(side * 1.0 * w - turn * 0.5, 0.12, 0.06, 0.17, side * 0.12))
        paint(p.image, hollow, (0.72, 0.62, 0.6), 0.7, 2, multiply=True)


_HAIRLINES: dict[str, list[tuple[float, float]]] = {  # from the left side to the right
    "long": [(-1.08, 0.9), (-0.98, 0.0), (-0.86, -0.55), (-0.35, -0.86), (0.3, -1.0),
             (0.84, -0.62), (0.98, 0.0), (1.08, 0.9)],
    "bun": [(-0.99, -0.1), (-0.88, -0.55), (-0.55, -0.9), (0.0, -1.0), (0.55, -0.9),
            (0.88, -0.55), (0.99, -0.1)],
    "short": [(-1.0, 0.05), (-0.93, -0.35), (-0.8, -0.72), (-0.3, -0.88), (0.25, -0.84),
              (0.78, -0.74), (0.93, -0.35), (1.0, 0.05)],
}  # fmt: skip


def _draw_hair(p: Portrait) -> None:
    """Hair over the forehead and down the sides, or the shine of a bald head."""
    person, w = p.person, p.person.width
    if person.hair_style == "bald":
        p.lay(ellipse(-0.2, -0.95, 0.35, 0.14), shade(person.skin, 1.25), 0.35, 9)
        return
    x, y = 0.15 * np.sin(p.pose.yaw), 0.25 * np.sin(p.pose.pitch)
    crown = [(1.08, -0.1), (1.08, -0.6), (0.86, -1.12), (0.45, -1.42), (0.0, -1.52),
             (-0.45, -1.42), (-0.86, -1.12), (-1.08, -0.6), (-1.08, -0.1)]  # fmt: skip
    if person.hair_style == "long":
        crown = [(1.2, 0.9), *crown, (-1.2, 0.9)]
    front = curve(np.array(_HAIRLINES[person.hair_style]) * (w, 1) + (2 * x, y), 40)
    over = flat(np.vstack([front, curve(np.array(crown) * (w, 1) + (x, 0), 60)]))
    cast = flat(np.vstack([np.add(front, (0, 0.1)), np.add(front, (0, -0.1))[::-1]]))
    paint(p.image, cast, (0.5, 0.45, 0.45), 0.55, 5, multiply=True, within=p.outline)
    paint(p.image, over, person.hair, 1, 1.2)
    comb(p.image, over, seed=5)
    cover(p.alpha, over)
    gloss = curve(np.array([(-0.7, -1.05), (-0.2, -1.28), (0.4, -1.2)]) * (w, 1) + (x, 0))
    paint(p.image, flat(ribbon(gloss, np.full(24, 0.1))), shade(person.hair, 1.9), 0.35, 6)


def stand(
    frame: NDArray[np.uint8],
    figure: NDArray[np.uint8],
    centre_px: tuple[float, float],
    unit_px: float,
    roll: float = 0.0,
) -> None:
    """Lay a drawn figure over a frame (height, width, 3) in place, the point between its eyes at
    `centre_px` (x, y), `unit_px` pixels per face unit."""
    scale = unit_px / UNIT_PX
    turn = cv2.getRotationMatrix2D(ORIGIN_PX, -np.degrees(roll), scale)
    turn[:, 2] += np.subtract(centre_px, ORIGIN_PX)
    height, width = frame.shape[:2]
    if scale < 0.8:  # warpAffine does not filter when it shrinks
        figure = cv2.GaussianBlur(figure, (0, 0), 0.45 / scale)
    # The lowest row goes on below the canvas, as a body does; the other edges are transparent.
    laid = cv2.warpAffine(
        figure, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    ).astype(np.float32)
    share = laid[..., 3:] / 255
    frame[:] = (frame * (1 - share) + laid[..., :3] * share + 0.5).astype(np.uint8)


def blink(expression: Expression, closed: float) -> Expression:
    """The same expression with the lids a share of the way down."""
    return replace(
        expression, eye_open=expression.eye_open + closed * (-1.45 - expression.eye_open)
    )
