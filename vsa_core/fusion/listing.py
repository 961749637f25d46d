"""The fusion models of a store, with what they learned from and which domain they label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vsa_core.errors import StoreError
from vsa_core.fusion.card import read_card
from vsa_core.fusion.data import SENTIMENT
from vsa_core.fusion.registry import CANDIDATE, Decision, history, known_since, labelling_of
from vsa_core.store import Store

CURRENT, FORMER = "current", "former"


@dataclass(frozen=True, slots=True)
class Listed:
    """A fusion model of the store.

    Attributes:
        model_id: its folder in `models/`.
        states: by domain `current`, `candidate` (it never labelled) or `former`; empty for a model
            nobody decided on, such as that of a plain run.
        known_since: when a run or a decision first named it; None for neither.
        strategy: its name; None where the card does not read.
        videos, segments, reviewed: what it learned from.
        estimate: share of its sentiments that is right, as far as agreement tells; None where it
            tells nothing.
        problem: why its card does not read; None where it does.
    """

    model_id: str
    states: dict[str, str]
    known_since: datetime | None
    strategy: str | None = None
    videos: int | None = None
    segments: int | None = None
    reviewed: int | None = None
    estimate: float | None = None
    problem: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        since = self.known_since.isoformat() if self.known_since else None
        return {**asdict(self), "known_since": since}


def listing(store: Store, domain: str | None = None) -> list[Listed]:
    """Every complete fusion model of the store, the latest first.

    Args:
        store: whose.
        domain: only models that were decided on for it; None for all.

    Raises:
        StoreError: a table does not read. A card that does not is a `problem` of its model.
    """
    states: dict[str, dict[str, str]] = {}
    by_domain: dict[str, list[Decision]] = {}
    for decision in history(store, domain):
        by_domain.setdefault(decision.domain, []).append(decision)
    for name, decisions in by_domain.items():
        for decision in decisions:
            of = states.setdefault(decision.model_id, {})
            of[name] = FORMER if decision.action != CANDIDATE else of.get(name, CANDIDATE)
        if labelling := labelling_of(decisions):
            states[labelling[-1]][name] = CURRENT
    since = known_since(store)
    found = [
        _listed(store, model_id, states.get(model_id, {}), since.get(model_id))
        for model_id in store.folders("models")
        if domain is None or model_id in states
    ]
    oldest = datetime.min.replace(tzinfo=UTC)
    return sorted(found, key=lambda m: (m.known_since or oldest, m.model_id), reverse=True)


def _listed(store: Store, model_id: str, states: dict[str, str], since: datetime | None) -> Listed:
    try:
        card = read_card(store, model_id)
        learned, knowing = card["data"], card["report"].get("knowing", {})
        estimate = knowing.get("targets", {}).get(SENTIMENT, {}).get("estimate", {}).get("value")
        return Listed(
            model_id,
            states,
            since,
            card["strategy"],
            learned["videos"],
            learned["segments"],
            learned["reviewed"],
            estimate,
        )
    except StoreError as error:
        return Listed(model_id, states, since, problem=str(error))
    except (KeyError, AttributeError, TypeError) as error:
        why = f"its card lacks {error}: remove models/{model_id} and learn it again"
        return Listed(model_id, states, since, problem=why)
