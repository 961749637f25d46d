"""What a face is made of: a person, an expression, a pose, and a portrait being painted of them.

Face coordinates: one unit is half the width of the head, x to the right, y down, the origin
between the eyes. Features lie on an ellipsoid, so that turning the head moves them as it would
on a head.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from paint import UNIT_PX, Colour, Image, Points, cover, curve, paint, shade

ORIGIN_PX = (142.0, 134.0)  # where the point between the eyes falls on the canvas
HEAD = (1.06, 1.55, 1.1)  # half axes of the ellipsoid the features lie on
SHADOW: Colour = (0.56, 0.44, 0.40)  # skin in shadow is skin times this
SIDES = (-1, 1)


@dataclass(frozen=True, slots=True)
class Person:
    """What stays the same from frame to frame: the build and colours of one made-up person."""

    skin: Colour
    hair: Colour
    iris: Colour = (0.33, 0.22, 0.14)
    lips: Colour = (0.70, 0.36, 0.34)
    shirt: Colour = (0.25, 0.33, 0.45)
    hair_style: str = "short"  # short, long, bun, bald
    jaw: float = 0.0  # -1 narrow .. 1 square
    width: float = 1.0
    brow_weight: float = 1.0
    eye_size: float = 1.0
    nose_width: float = 1.0
    lip_weight: float = 1.0
    beard: float = 0.0  # 0 shaven .. 1 full
    age: float = 0.0  # 0 smooth .. 1 lined


@dataclass(frozen=True, slots=True)
class Expression:
    """What the muscles do; 0 is rest, 1 a strong movement, negative the opposite one."""

    brow_inner: float = 0.0  # inner ends up
    brow_outer: float = 0.0  # outer ends up
    furrow: float = 0.0  # brows drawn together, creases between them
    eye_open: float = 0.0  # upper lids up
    squint: float = 0.0  # lower lids up, crow's feet
    nose_wrinkle: float = 0.0
    cheek: float = 0.0  # cheeks pushed up
    fold: float = 0.0  # depth of the nasolabial folds
    mouth_width: float = 0.0
    mouth_open: float = 0.0
    corner: float = 0.0  # corners of the mouth up
    upper_lip: float = 0.0  # upper lip up
    lower_lip: float = 0.0  # lower lip down
    press: float = 0.0  # lips pressed thin
    teeth: float = 0.0
    chin: float = 0.0  # chin boss pushed up
    gaze_x: float = 0.0
    gaze_y: float = 0.0

    def towards(self, other: Expression, share: float) -> Expression:
        """The expression a share (0 to 1) of the way to another one."""
        return Expression(
            **{
                f.name: (1 - share) * getattr(self, f.name) + share * getattr(other, f.name)
                for f in fields(self)
            }
        )


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the head points, in radians (yaw to the right, pitch down, roll clockwise)."""

    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


def place(points: Points, pose: Pose, lift: float = 0.0) -> Points:
    """Canvas pixels, (n, 2), of face coordinates (n, 2) on a head turned by a pose."""
    rx, ry, rz = HEAD
    x, y = points[:, 0], points[:, 1]
    z = rz * np.sqrt(np.maximum(1 - (x / rx) ** 2 - (y / ry) ** 2, 0.02)) + lift
    turned = np.empty_like(points)
    depth = z * np.cos(pose.yaw) - x * np.sin(pose.yaw)
    turned[:, 0] = x * np.cos(pose.yaw) + z * np.sin(pose.yaw)
    turned[:, 1] = y * np.cos(pose.pitch) + (depth - 0.6) * np.sin(pose.pitch)
    return turned * UNIT_PX + ORIGIN_PX


def flat(points: Points, shift: float = 0.0) -> Points:
    """Canvas pixels of face coordinates that do not turn with the head, moved right by `shift`."""
    return points * UNIT_PX + (ORIGIN_PX[0] + shift * UNIT_PX, ORIGIN_PX[1])


def side_line(points: list[tuple[float, float]], side: int, count: int = 24) -> Points:
    """A smooth line given for the right half of the face, on the right (1) or the left (-1)."""
    return curve(np.array(points) * (side, 1), count)


@dataclass(slots=True)
class Portrait:
    """A face being painted: who, what it shows, where it points, and the picture so far."""

    person: Person
    e: Expression
    pose: Pose
    image: Image  # (height, width, 3)
    alpha: Image  # (height, width)
    outline: Points  # of the head, canvas pixels

    def lay(
        self,
        points: Points,
        colour: Colour,
        alpha: float,
        blur: float,
        *,
        lift: float = 0.0,
        within: Points | None = None,
        multiply: bool = False,
    ) -> None:
        """Paint face coordinates where the turned head has them, `lift` units above the skin."""
        on = place(points, self.pose, lift)
        paint(self.image, on, colour, alpha, blur, within=within, multiply=multiply)

    def tint(self, points: Points, amount: float, blur: float, lift: float = 0.0) -> None:
        """A shadow on the skin."""
        self.lay(points, SHADOW, amount, blur, lift=lift, within=self.outline, multiply=True)

    def glow(self, points: Points, amount: float, blur: float, lift: float = 0.0) -> None:
        """A highlight on the skin."""
        colour = shade(self.person.skin, 1.3)
        self.lay(points, colour, amount, blur, lift=lift, within=self.outline)

    def back(self, outline: Points, colour: Colour) -> None:
        """An opaque shape behind the face, canvas pixels."""
        paint(self.image, outline, colour, blur=0.0)
        cover(self.alpha, outline)
