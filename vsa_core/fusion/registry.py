"""Which fusion model labels a domain: candidates, the current one, and every decision so far.

A domain is a set of channels with a name. Its decisions are rows of the append-only table
`promotions`; what labels now follows from them in the order of their numbers, whatever the clocks
said.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vsa_core.config import fingerprint
from vsa_core.errors import UsageError
from vsa_core.fusion import FusionModel
from vsa_core.fusion.card import read_card
from vsa_core.fusion.data import in_order
from vsa_core.labels import Modality
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store

if TYPE_CHECKING:
    from vsa_core.fusion.verdict import Comparison

DEFAULT_DOMAIN = "default"
CANDIDATE, PROMOTED, ROLLED_BACK = "candidate", "promoted", "rolled_back"
_LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Decision:
    """A row of `promotions`.

    Attributes:
        decision_id: its key.
        domain: the set of channels.
        sequence: its number within the domain, from 1.
        action: `candidate`, `promoted` or `rolled_back`.
        model_id: the model it is about; of `rolled_back` the one that labels again.
        current_model_id: the domain's own model after it; None where none was ever promoted.
        decided_at: when.
        decided_by: a person, or a flow.
        reason: one line.
        metrics: what was compared (`Comparison.to_dict`); empty for a decision by hand.
    """

    decision_id: str
    domain: str
    sequence: int
    action: str
    model_id: str
    current_model_id: str | None
    decided_at: datetime
    decided_by: str
    reason: str
    metrics: dict[str, Any]


def history(store: Store, domain: str | None = None) -> list[Decision]:
    """Every decision, by domain and number; None for all domains.

    Raises:
        StoreError: the table does not read.
    """
    found = []
    for table in store.scan("promotions"):
        for row in table.to_pylist():
            if domain is None or row["domain"] == domain:
                found.append(Decision(**{**row, "metrics": json.loads(row["metrics"])}))
    # Two decisions at the same moment have one number: all readers put them in one order.
    return sorted(found, key=lambda d: (d.domain, d.sequence, d.decision_id))


def current(store: Store, domain: str) -> str | None:
    """Id of the model that labels a domain: its own, else that of `default`; None without one.

    Raises:
        StoreError: the table does not read.
    """
    for name in (domain, DEFAULT_DOMAIN):
        labelling = labelling_of(history(store, name))
        if labelling:
            return labelling[-1]
    return None


def stored(store: Store, model_id: str) -> FusionModel:
    """A model of the store as `train_fusion` gave it.

    Raises:
        UsageError: the store has no such model.
        StoreError: its card does not read.
    """
    if store.folder("models", model_id) is None:
        raise UsageError(
            f"{store.location} holds no fusion model {model_id!r}: `vsa models fusion list` shows "
            "those there are"
        )
    card = read_card(store, model_id)
    return FusionModel(model_id, card, card["reason"])


def opened(store: Store, domain: str, backends: Mapping[Modality, str]) -> FusionModel | None:
    """The model that labels a domain, ready for `resolve`: its own, else that of `default`.

    None where neither has one that can label such segments: none was promoted, it was trained on
    other backends (another profile), or it is no longer in the store.

    Args:
        store: holds the decisions and the models.
        domain: whose.
        backends: modality → backend id of the segments it is to label.

    Raises:
        StoreError: a card or the table does not read.
    """
    theirs = {m.value: backend for m, backend in in_order(backends).items()}
    for name in (domain, DEFAULT_DOMAIN):
        labelling = labelling_of(history(store, name))
        if labelling and store.folder("models", labelling[-1]) is not None:
            model = stored(store, labelling[-1])
            if model.card is not None and model.card["backends"] == theirs:
                return model
    return None


def consider(
    store: Store, domain: str, candidate: FusionModel, comparison: Comparison, *, by: str
) -> Decision:
    """Let a candidate label from now on where the comparison says so; else write down why not.

    Doing it again changes nothing: a model that labels already, or that nothing new is known of,
    gets the decision that stands. What somebody rolled back is not promoted again by itself.

    Args:
        store: gets the decision.
        domain: whose model it would be.
        candidate: what `train_fusion` returned.
        comparison: of it, as `compare` gives it.
        by: the flow.

    Raises:
        UsageError: a domain that cannot be one.
        StoreError: the table does not read or cannot be written.
    """
    decisions = history(store, _named(domain))
    labelling = labelling_of(decisions)
    if labelling and labelling[-1] == candidate.model_id:
        return next(d for d in reversed(decisions) if d.action != CANDIDATE)
    metrics = comparison.to_dict()
    about = [d for d in decisions if d.model_id == candidate.model_id]
    better, reason = comparison.better, comparison.reason
    if better and (taken := _rolled_back(decisions, candidate.model_id)) is not None:
        better = False
        reason = (
            f"it was rolled back by {taken.decided_by} ({taken.reason}): promote it by hand if it "
            f"is to label again; {reason}"
        )
    if not better and about:
        last = about[-1]
        same_rival = last.current_model_id == (labelling[-1] if labelling else None)
        if last.action == CANDIDATE and same_rival and last.metrics == metrics:
            return last
    return _decide(
        store,
        decisions,
        domain,
        PROMOTED if better else CANDIDATE,
        candidate.model_id,
        candidate.model_id if better else (labelling[-1] if labelling else None),
        by,
        reason,
        metrics,
    )


def promote(store: Store, domain: str, model_id: str, *, by: str, reason: str) -> Decision:
    """Let a model label a domain from now on, whatever any comparison said.

    Args:
        store: holds the model.
        domain: whose.
        model_id: its folder in `models/`.
        by: who wants it.
        reason: why, one line.

    Raises:
        UsageError: no such model, or a domain that cannot be one.
        StoreError: its card or the table does not read, or cannot be written.
    """
    decisions = history(store, _named(domain))
    stored(store, model_id)
    labelling = labelling_of(decisions)
    if labelling and labelling[-1] == model_id:
        return next(d for d in reversed(decisions) if d.action != CANDIDATE)
    return _decide(store, decisions, domain, PROMOTED, model_id, model_id, by, reason, {})


def rollback(store: Store, domain: str, *, by: str, reason: str) -> Decision:
    """Let the model label again that did before the current one was promoted.

    A second rollback goes one further back, not to and fro. A model that is no longer in the store
    is passed over.

    Args:
        store: holds the models.
        domain: whose.
        by: who wants it.
        reason: why, one line.

    Raises:
        UsageError: no model labelled before that is still in the store.
        StoreError: the table does not read or cannot be written.
    """
    decisions = history(store, _named(domain))
    labelling = labelling_of(decisions)
    if not labelling:
        raise UsageError(f"{domain} has no model of its own: there is nothing to roll back")
    earlier = [m for m in labelling[:-1] if m != labelling[-1] and store.folder("models", m)]
    if not earlier:
        raise UsageError(
            f"no model labelled {domain} before {labelling[-1]} that is still in the store: "
            "promote another one instead (`vsa models fusion list` shows those there are)"
        )
    before = earlier[-1]
    return _decide(store, decisions, domain, ROLLED_BACK, before, before, by, reason, {})


def known_since(store: Store) -> dict[str, datetime]:
    """By model the earliest time at which it is known to have existed.

    What was reviewed after it, it did not learn from. A model that no run finished with and no
    decision names is not in it.
    """
    found: dict[str, datetime] = {}
    for table, column in (("runs", "finished_at"), ("promotions", "decided_at")):
        for rows in store.scan(table, columns=["model_id", column]):
            for row in rows.to_pylist():
                before = found.setdefault(row["model_id"], row[column])
                found[row["model_id"]] = min(before, row[column])
    return found


def labelling_of(decisions: Sequence[Decision]) -> list[str]:
    """The models of a domain, the last one labels; each labels again once the next is taken back.

    Args:
        decisions: of one domain, in order.
    """
    stack: list[str] = []
    for decision in decisions:
        now = decision.current_model_id
        if decision.action == PROMOTED:
            stack.append(decision.model_id)
        elif decision.action == ROLLED_BACK:
            while stack and (now is None or stack[-1] != now):
                stack.pop()
    return stack


def _rolled_back(decisions: Sequence[Decision], model_id: str) -> Decision | None:
    """The decision that took a model back, where no later one let it label again."""
    taken: Decision | None = None
    labelling: str | None = None
    for decision in decisions:
        if decision.action == ROLLED_BACK and labelling == model_id:
            taken = decision
        elif decision.action == PROMOTED and decision.model_id == model_id:
            taken = None
        labelling = decision.current_model_id
    return taken


def _decide(
    store: Store,
    before: Sequence[Decision],
    domain: str,
    action: str,
    model_id: str,
    now: str | None,
    by: str,
    reason: str,
    metrics: dict[str, Any],
) -> Decision:
    sequence = before[-1].sequence + 1 if before else 1
    # Derived from what it says: a task that is tried again writes the same row.
    decision = Decision(
        "d" + fingerprint(domain, sequence, action, model_id, by),
        domain,
        sequence,
        action,
        model_id,
        now,
        datetime.now(UTC),
        by,
        " ".join(reason.split()),
        metrics,
    )
    row = {**asdict(decision), "metrics": json.dumps(metrics, sort_keys=True, allow_nan=False)}
    key = decision.decision_id
    store.commit("promotions", key, table_from_rows("promotions", [row]), key)
    return decision


def _named(domain: str) -> str:
    if not domain or len(domain) > _LONGEST_NAME or not domain.isprintable():
        raise UsageError(
            f"{domain!r} cannot name a domain: take up to {_LONGEST_NAME} printable characters"
        )
    return domain
