"""`vsa models fusion`: which fusion models a store has, which one labels, and changing that."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING, Any

from vsa_core.cli import OK, opened_store
from vsa_core.cli.screen import write_json, write_table

if TYPE_CHECKING:
    from vsa_core.fusion.listing import Listed
    from vsa_core.fusion.registry import Decision

_COLUMNS = (
    "model", "state", "strategy", "videos", "segments", "reviewed", "right", "known since"
)  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Carry out the chosen action."""
    if args.fusion_action == "list":
        return _list(args)
    from vsa_core.fusion import registry

    store, domain = opened_store(args.store), args.domain
    before = registry.history(store, domain)
    if args.fusion_action == "promote":
        reason = args.reason or "promoted by hand"
        decision = registry.promote(store, domain, args.model, by=_who(), reason=reason)
    else:
        reason = args.reason or "rolled back by hand"
        decision = registry.rollback(store, domain, by=_who(), reason=reason)
    _say(decision, again=any(decision == earlier for earlier in before))
    return OK


def _list(args: argparse.Namespace) -> int:
    from vsa_core.fusion.listing import listing
    from vsa_core.fusion.registry import history

    store = opened_store(args.store)
    found, decisions = listing(store, args.domain), history(store, args.domain)
    if args.json:
        models = [model.to_dict() for model in found]
        write_json(sys.stdout, {"models": models, "decisions": [_plain(d) for d in decisions]})
        return OK
    if not found:
        what = f" that was decided on for {args.domain}" if args.domain else ""
        sys.stdout.write(f"{store.location} holds no fusion model{what}\n")
        return OK
    write_table(sys.stdout, _COLUMNS, [_row(model) for model in found])
    last = {decision.domain: decision for decision in decisions}
    for domain, decision in last.items():
        what = decision.action.replace("_", " ")
        sys.stdout.write(f"\n{domain}: {decision.model_id} {what}: {decision.reason}\n")
    for model in found:
        if model.problem is not None:
            sys.stderr.write(f"vsa: {model.problem}\n")
    return OK


def _row(model: Listed) -> tuple[Any, ...]:
    states = [f"{state} ({domain})" for domain, state in sorted(model.states.items())]
    return (
        model.model_id,
        ", ".join(states) or "-",
        model.strategy or "does not read",
        model.videos,
        model.segments,
        model.reviewed,
        None if model.estimate is None else f"{model.estimate:.0%}",
        model.known_since,
    )


def _plain(decision: Decision) -> dict[str, Any]:
    """A decision, JSON-able."""
    from dataclasses import asdict

    return {**asdict(decision), "decided_at": decision.decided_at.isoformat()}


def _say(decision: Decision, *, again: bool) -> None:
    now = decision.current_model_id
    domain = decision.domain
    if again:
        sys.stdout.write(f"{domain}: {now} labels already\n")
        return
    sys.stdout.write(
        f"{domain}: {now} labels from now on\n"
        f"labels that stand stay as they are until `vsa relabel --domain {domain}`\n"
    )


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        return "unknown"
