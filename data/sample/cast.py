"""Who appears in the sample, what their faces can show, and how a mouth moves on top of that."""

from __future__ import annotations

from dataclasses import replace

from portrait import Expression, Person

PEOPLE: dict[str, Person] = {
    "ana": Person(
        skin=(0.87, 0.68, 0.57), hair=(0.25, 0.15, 0.10), lips=(0.74, 0.36, 0.36),
        shirt=(0.25, 0.33, 0.45), hair_style="long", jaw=-0.5, brow_weight=0.8,
    ),
    "ben": Person(
        skin=(0.78, 0.58, 0.46), hair=(0.16, 0.11, 0.08), lips=(0.60, 0.29, 0.27),
        shirt=(0.35, 0.20, 0.20), hair_style="short", jaw=0.6, beard=0.45,
    ),
    "cho": Person(
        skin=(0.85, 0.67, 0.54), hair=(0.09, 0.08, 0.09), lips=(0.68, 0.32, 0.32),
        shirt=(0.60, 0.55, 0.35), hair_style="bun", jaw=-0.2, brow_weight=0.75, eye_size=0.97,
    ),
    "dev": Person(
        skin=(0.55, 0.38, 0.28), hair=(0.07, 0.06, 0.06), lips=(0.50, 0.27, 0.25),
        shirt=(0.30, 0.45, 0.30), hair_style="short", jaw=0.3, nose_width=1.15,
    ),
    "eli": Person(
        skin=(0.86, 0.67, 0.58), hair=(0.42, 0.40, 0.38), iris=(0.30, 0.42, 0.50),
        shirt=(0.50, 0.50, 0.55), hair_style="bald", jaw=0.5, brow_weight=1.2,
        age=0.35,
    ),
    "fay": Person(
        skin=(0.92, 0.75, 0.66), hair=(0.55, 0.28, 0.14), iris=(0.28, 0.42, 0.30),
        lips=(0.78, 0.40, 0.40), shirt=(0.42, 0.30, 0.50), hair_style="long", jaw=-0.3,
        width=0.97, brow_weight=0.85, eye_size=1.06,
    ),
}  # fmt: skip

# Set by eye; then smile, anger, sadness, disgust and fear were moved by a search (an evolution
# strategy from the first guess, over all people, poses, sizes, moments of speech and two crops)
# towards what mini-XCEPTION reads as meant.
EXPRESSIONS: dict[str, Expression] = {
    "neutral": Expression(),
    "joy": Expression(
        corner=1.0, mouth_open=0.35, teeth=1.0, cheek=1.0, fold=0.8, squint=0.5, mouth_width=0.5,
        upper_lip=0.5,
    ),
    "delight": Expression(
        brow_inner=0.8, brow_outer=0.9, eye_open=0.6, cheek=0.8, fold=0.6, corner=0.9,
        mouth_open=0.6, mouth_width=0.3, upper_lip=0.4, teeth=1.0,
    ),
    "smile": Expression(
        brow_inner=0.05, brow_outer=0.25, eye_open=-0.15, squint=0.55, cheek=0.9, fold=0.7,
        mouth_width=0.5, mouth_open=0.25, corner=1.05, upper_lip=0.35, lower_lip=0.3, press=0.05,
        teeth=0.75,
    ),
    "anger": Expression(
        brow_inner=-1.1, brow_outer=0.05, furrow=0.85, eye_open=0.2, squint=0.45,
        nose_wrinkle=0.95, cheek=0.15, fold=0.4, mouth_width=-0.55, mouth_open=0.25, corner=-1.1,
        upper_lip=0.6, lower_lip=0.5, press=0.5, teeth=0.5, chin=0.55,
    ),
    "sadness": Expression(
        brow_inner=0.95, brow_outer=-1.0, furrow=0.1, eye_open=-0.5, squint=0.8,
        nose_wrinkle=0.45, cheek=0.15, fold=0.9, mouth_width=0.05, mouth_open=0.25, corner=-1.1,
        upper_lip=0.9, lower_lip=0.8, press=0.05, teeth=0.6, chin=0.65,
    ),
    "disgust": Expression(
        brow_inner=-1.05, brow_outer=-0.2, furrow=0.5, eye_open=-0.6, squint=0.8,
        nose_wrinkle=1.05, cheek=0.4, fold=1.1, mouth_width=-0.3, mouth_open=0.4, corner=-1.1,
        upper_lip=0.8, lower_lip=0.7, teeth=0.5, chin=0.05,
    ),
    "fear": Expression(
        brow_inner=1.1, brow_outer=-1.05, furrow=0.45, eye_open=1.1, squint=0.25,
        nose_wrinkle=0.7, cheek=0.05, fold=1.05, mouth_width=1.05, corner=-1.1, lower_lip=0.3,
        press=0.15, teeth=0.05, chin=0.05,
    ),
}  # fmt: skip


def speaking(expression: Expression, level: float, rounding: float) -> Expression:
    """An expression with the mouth of somebody speaking.

    Args:
        level: how loud the voice is at this moment, 0 to 1.
        rounding: -1 for spread lips, 1 for rounded ones.
    """
    return replace(
        expression,
        mouth_open=0.7 * expression.mouth_open + 0.45 * level,
        mouth_width=expression.mouth_width - 0.3 * rounding * level,
        press=expression.press * (1 - level),
        corner=expression.corner * (1 - 0.25 * level),
        teeth=max(expression.teeth, 0.35 * level),
    )
