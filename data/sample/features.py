"""The parts of a face that an expression moves, each painted onto a portrait."""

from __future__ import annotations

import numpy as np
from paint import comb, curve, ellipse, paint, ribbon, shade
from portrait import SIDES, Portrait, place, side_line


def draw_planes(p: Portrait) -> None:
    """Forehead, temples, cheeks, chin, and the lines an expression or age puts there."""
    e, age = p.e, p.person.age
    p.glow(ellipse(0, -0.72, 0.5, 0.22), 0.22, 12)
    spread, lift = 0.10 * e.corner + 0.08 * e.mouth_width, 0.13 * e.cheek
    for side in SIDES:
        p.tint(ellipse(side * 0.92, -0.45, 0.14, 0.4), 0.35, 9)
        p.tint(ellipse(side * 0.78, 0.62, 0.16, 0.42, side * 0.35), 0.30 + 0.1 * age, 10)
        p.glow(ellipse(side * 0.55, 0.34 - lift, 0.2, 0.14), 0.22 + 0.25 * e.cheek, 7)
        p.tint(ellipse(side * 0.5, 0.53 - lift, 0.2, 0.05, side * 0.5), 0.3 * max(e.cheek, 0), 4)
        fold = side_line(
            [(0.22, 0.40 - 0.05 * e.nose_wrinkle), (0.36 + 0.5 * spread, 0.55),
             (0.47 + spread, 0.76 - 0.03 * e.corner), (0.48 + spread, 0.92)], side
        )  # fmt: skip
        p.tint(
            ribbon(fold, np.linspace(0.07, 0.03, 24)),
            0.75 * (max(e.fold, 0) + 0.12 + 0.3 * age),
            2.2,
        )
        bag = side_line([(0.24, 0.1), (0.42, 0.19 - 0.03 * e.squint), (0.6, 0.09)], side)
        p.tint(ribbon(bag, np.full(24, 0.04)), 0.25 + 0.3 * age + 0.2 * e.squint, 1.8)
        for angle in (-0.06, 0.03, 0.12):
            foot = side_line(
                [(0.68, -0.04), (0.76, -0.05 + angle), (0.83, -0.06 + 1.5 * angle)], side
            )
            p.tint(ribbon(foot, np.full(24, 0.02)), 0.5 * max(e.squint - 0.2, 0), 1.2)
        crease = side_line([(0.094, -0.24), (0.075, -0.34), (0.083, -0.45)], side)
        p.tint(ribbon(crease, np.linspace(0.045, 0.02, 24)), 0.75 * max(e.furrow, 0), 1.8)
    raised = max(e.brow_inner, 0) * 0.6 + max(e.brow_outer, 0) * 0.5 + 0.25 * age
    bend = 0.06 * e.brow_outer - 0.05 * e.brow_inner
    for row, y in enumerate((-0.72, -0.84, -0.96)):
        line = [(-0.42, y + bend), (-0.2, y), (0, y + 0.01), (0.2, y), (0.42, y + bend)]
        p.tint(ribbon(side_line(line, 1), np.full(24, 0.028)), (0.42 - 0.08 * row) * raised, 1.6)
    drop = 0.14 * max(e.mouth_open, 0)
    p.glow(ellipse(0, 1.18 + drop, 0.2, 0.1), 0.25 + 0.2 * e.chin, 5)
    p.tint(ellipse(0, 1.03 + drop, 0.26, 0.04), 0.45 + 0.3 * e.chin, 4)
    p.tint(ellipse(0, 1.36 + drop, 0.5, 0.08), 0.5, 7)
    for x in (-0.1, 0.0, 0.1):
        p.tint(ellipse(x, 1.14 + drop, 0.04, 0.04), 0.35 * max(e.chin, 0), 1.8)


def draw_nose(p: Portrait) -> None:
    n = p.person.nose_width
    wrinkle = p.e.nose_wrinkle
    up, wing = 0.05 * wrinkle, 0.17 * n * (1 + 0.12 * wrinkle)
    for side, depth in ((1, 0.34), (-1, 0.2)):  # the side away from the light is darker
        flank = [(0.06, -0.1), (0.09, 0.2), (wing, 0.42 - up), (0.29, 0.4), (0.21, 0.0)]
        p.tint(np.array(flank) * (side, 1), depth, 5)
    bridge = curve(np.array([(0, -0.2), (0, 0.1), (0, 0.34)]))
    p.glow(ribbon(bridge, np.full(24, 0.09)), 0.45, 3.5, 0.1)
    p.glow(ellipse(0, 0.37 - up, 0.08 * n, 0.06), 0.4, 3, 0.15)
    p.tint(ellipse(0, 0.5 - up, 0.2 * n, 0.045), 0.55, 3, 0.08)
    for side in SIDES:
        curl = [(wing * 0.86, 0.30 - up), (wing * 1.12, 0.40 - up), (wing * 0.92, 0.48 - up)]
        p.tint(ribbon(side_line(curl, side), np.full(24, 0.03)), 0.6, 1.3, 0.05)
        nostril = ellipse(side * 0.085 * n, 0.475 - up, 0.05 * n, 0.024, -side * 0.25)
        p.lay(nostril, shade(p.person.skin, 0.17), 0.8, 1.0, lift=0.1)
        for row in range(3):
            y = -0.02 - 0.07 * row
            line = side_line([(0.03, y), (0.09, y - 0.02), (0.15, y + 0.03)], side)
            p.tint(ribbon(line, np.full(24, 0.025)), 0.6 * max(wrinkle, 0), 1.2, 0.05)


def draw_eye(p: Portrait, side: int) -> None:
    e, skin, iris = p.e, p.person.skin, p.person.iris
    size = p.person.eye_size
    cx, half = 0.42, 0.2 * size
    upper = float(np.clip(0.092 * size * (1 + 0.75 * e.eye_open), 0.004, 0.19))
    lower = float(
        np.clip(0.062 * size * (1 - 0.65 * e.squint + 0.25 * max(e.eye_open, 0)), 0.004, 0.1)
    )
    if shut := upper < 0.02:  # the upper lid comes down onto the lower one
        upper = -0.8 * lower
    t = np.linspace(-1, 1, 21)
    x, tilt = (cx + half * t) * side, -0.012 * t
    # a grieved brow pulls the inner part of the lid up
    arch = (upper + 0.01 * e.brow_inner * (1 - t)) * (1 - t**2) ** 0.75
    top = np.stack([x, tilt - arch], 1)
    bottom = np.stack([x, tilt + lower * (1 - t**2)], 1)
    eye = place(np.vstack([top, bottom[::-1]]), p.pose)

    p.tint(ellipse(side * 0.40, -0.1, 0.27, 0.2), 0.45, 7)
    p.tint(ellipse(side * 0.2, -0.05, 0.09, 0.14), 0.5, 5)
    lid = np.vstack([top - (0, 0.075 - 0.02 * e.eye_open), top[::-1]])
    p.lay(lid, shade(skin, 0.95), 0.55, 1.6)
    if not shut:
        paint(p.image, eye, (0.93, 0.91, 0.89), 1, 0.7)
        ix, iy = side * cx + 0.09 * e.gaze_x, -0.012 + 0.05 * e.gaze_y
        rings = ((0.102, shade(iris, 0.4)), (0.085, iris), (0.044, (0.03, 0.03, 0.03)))
        for radius, colour in rings:
            p.lay(ellipse(ix, iy, radius, radius), colour, 1, 0.8, within=eye)
        p.lay(ellipse(ix - 0.035, iy - 0.04, 0.022, 0.022), (1, 1, 1), 0.95, 0.6, within=eye)
        under_lid = np.vstack([top, np.add(top, (0, 0.05))[::-1]])
        p.lay(under_lid, (0.45, 0.42, 0.42), 0.6, 1.5, within=eye, multiply=True)
    p.lay(ribbon(top, 0.024 + 0.007 * (t + 1)), shade(skin, 0.16), 0.9, 0.8)
    p.lay(ribbon(bottom, np.full(21, 0.014)), shade(skin, 0.31), 0.55, 0.9)
    crease = top - np.stack([0 * t, 0.05 + 0.03 * (1 - t**2) - 0.015 * e.eye_open], 1)
    p.lay(ribbon(crease, np.full(21, 0.02)), shade(skin, 0.35), 0.5, 1.2)


def draw_brow(p: Portrait, side: int) -> None:
    e = p.e
    inner = -0.30 - 0.13 * e.brow_inner
    outer = -0.31 - 0.12 * e.brow_outer
    middle = -0.39 - 0.06 * (e.brow_inner + e.brow_outer)
    line = side_line(
        [(0.18 - 0.055 * e.furrow, inner), (0.40, middle), (0.58, (middle + outer) / 2 - 0.01),
         (0.72, outer)], side
    )  # fmt: skip
    taper = np.interp(np.linspace(0, 1, 24), (0, 0.12, 0.55, 1), (0.07, 0.105, 0.09, 0.03))
    p.tint(ribbon(np.add(line, (0, 0.07)), taper * 1.1), 0.25 + 0.25 * max(e.furrow, 0), 3)
    p.lay(ribbon(line, taper * p.person.brow_weight), shade(p.person.hair, 0.8), 0.9, 1.5)


def draw_mouth(p: Portrait) -> None:
    e, lips = p.e, p.person.lips
    opened, teeth = max(e.mouth_open, 0), max(e.teeth, 0)
    half = 0.34 * (1 + 0.24 * e.mouth_width + 0.16 * max(e.corner, 0) - 0.06 * opened)
    gap_up = 0.03 * opened + 0.07 * max(e.upper_lip, 0) * min(1, 0.35 + opened + e.teeth)
    gap_down = 0.24 * opened + 0.07 * max(e.lower_lip, 0)
    thick = p.person.lip_weight * (1 - 0.6 * max(e.press, 0))
    lip_up = 0.068 * thick * (1 - 0.2 * abs(e.corner))
    lip_down = 0.098 * thick * (1 + 0.25 * e.chin)
    t = np.linspace(-1, 1, 33)
    arch, x, flat = 1 - t**2, half * t, 0 * t
    seam = 0.79 - (0.035 * e.upper_lip + 0.04 * e.chin) * arch
    seam = seam - e.corner * (0.13 * np.abs(t) ** 1.7 - 0.025)
    inner_top = np.stack([x, seam - gap_up * arch**0.8], 1)
    inner_bottom = np.stack([x, seam + gap_down * arch**0.7], 1)
    bow = 1 - 0.3 * np.exp(-((t / 0.14) ** 2))
    outer_top = inner_top - np.stack([flat, lip_up * arch**0.65 * bow], 1)
    outer_bottom = inner_bottom + np.stack([flat, lip_down * arch**0.6], 1)

    p.tint(ellipse(0, 0.63, 0.05, 0.09), 0.25, 3)
    p.tint(ribbon(np.add(outer_bottom, (0, 0.04)), 0.05 * arch + 0.01), 0.55, 3)
    if gap_up + gap_down > 0.012:
        hole = place(np.vstack([inner_top, inner_bottom[::-1]]), p.pose)
        paint(p.image, hole, (0.16, 0.05, 0.05), 1, 0.8)
        tongue = ellipse(0, 0.80 + gap_down * 0.85, half * 0.55, max(gap_down * 0.4, 0.01))
        p.lay(tongue, (0.62, 0.27, 0.27), 0.7, 1.5, within=hole)
        bite = np.stack([flat, min(gap_up + gap_down * 0.45, 0.12) * arch**0.3], 1)
        row = np.vstack([inner_top - (0, 0.02), (inner_top + bite)[::-1]]) * (0.92, 1)
        p.lay(row, (0.93, 0.91, 0.86), teeth, 0.8, within=hole)
        low = np.vstack([np.add(inner_bottom, (0, 0.02)), np.add(inner_bottom, (0, -0.05))[::-1]])
        p.lay(low * (0.8, 1), (0.86, 0.83, 0.78), teeth * max(e.lower_lip, 0), 0.8, within=hole)
    p.lay(np.vstack([outer_top, inner_top[::-1]]), shade(lips, 0.82), 0.9, 1.0)
    p.lay(np.vstack([inner_bottom, outer_bottom[::-1]]), lips, 0.9, 1.0)
    p.glow(ellipse(-0.03, float(outer_bottom[16, 1]) - 0.5 * lip_down, 0.1, 0.02), 0.35, 2)
    if gap_up + gap_down <= 0.03:
        closed = ribbon(np.stack([x, seam], 1), 0.022 * arch**0.3 + 0.004)
        p.lay(closed, (0.25, 0.1, 0.1), 0.85, 0.8)
    for side in SIDES:
        p.tint(ellipse(side * (half + 0.015), float(seam[0]), 0.035, 0.03), 0.6, 1.6)


def draw_beard(p: Portrait) -> None:
    drop = 0.12 * max(p.e.mouth_open, 0)
    half = [(0, 0.6), (0.2, 0.56), (0.5, 0.62), (0.78, 0.45), (0.96, 0.1), (0.98, 0.6),
            (0.75, 1.1), (0.3, 1.42 + drop), (0, 1.44 + drop)]  # fmt: skip
    shape = place(np.vstack([side_line(half, 1, 45), side_line(half, -1, 45)[::-1]]), p.pose)
    paint(p.image, shape, shade(p.person.hair, 0.9), 0.78 * p.person.beard, 4, within=p.outline)
    comb(p.image, shape, seed=9, within=p.outline)
