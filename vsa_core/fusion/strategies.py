"""The ways to fuse, by name: from a mean of probabilities to the cross-view engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vsa_core import config
from vsa_core.errors import UsageError
from vsa_core.fusion import late
from vsa_core.fusion.views import Views

STRATEGIES = ("late-mean", "late-product", "vote", "tf-mvsa", "crossview", "crossview-attention")
DEFAULT = "crossview-attention"

_LATE = {"late-mean": late.mean, "late-product": late.product, "vote": late.vote}


@dataclass(frozen=True, slots=True)
class Opinion:
    """What fusion says of n segments, agreeing ones too.

    Attributes:
        probs: per target (n, K); NaN rows where nothing can be said.
        attention: (n, V), summing to 1 over the views present; NaN where a view is absent, and
            for all views where none is used.
    """

    probs: Mapping[str, NDArray[np.floating]]
    attention: NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Known:
    """What humans said of some segments.

    Attributes:
        target: what the labels are classes of.
        rows: (r,) which segments.
        labels: (r,) index of the class.
    """

    target: str
    rows: NDArray[np.intp]
    labels: NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Fused:
    """The outcome of fusing.

    Attributes:
        opinion: of the segments that were given; no segment is judged by what was trained on its
            own video.
        report: JSON-able facts: what was found out about the views, warnings, estimates.
    """

    opinion: Opinion
    report: dict[str, Any]


def fuse(
    views: Views,
    strategy: str = DEFAULT,
    *,
    settings: config.Fusion | None = None,
    min_confidence: float = 0.5,
    known: Known | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fused:
    """What the views say together.

    Args:
        views: n segments.
        strategy: one of `STRATEGIES`.
        settings: of the training; None takes the defaults.
        min_confidence: a vote whose highest probability is below this abstains.
        known: what humans said of some of the segments; None where nobody did.
        progress: told the share of the work done, 0 to 1.

    Raises:
        UsageError: no such strategy.
    """
    if strategy in _LATE:
        pool = _LATE[strategy]
        probs = {target: pool(said) for target, said in views.probs.items()}
        first = next(iter(views.probs.values()))
        return Fused(Opinion(probs, late.shares(first, views.present)), {"strategy": strategy})
    raise UsageError(f"no strategy {strategy!r}: take one of {', '.join(STRATEGIES)}")
