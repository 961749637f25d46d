"""`vsa relabel`: label a store's videos anew with another fusion model; no video is opened."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from vsa_core.cli import opened_store
from vsa_core.cli.run import carry_out
from vsa_core.cli.stopping import Stop
from vsa_core.config import load_config


def run(args: Namespace) -> int:
    """Carry out `vsa relabel`; returns the exit code."""
    settings = load_config(args.config, args.profile)
    opened_store(args.store)
    with Stop(args.store) as stop:
        stop.tell("Starting …")
        return carry_out(args, settings, _relabel, stop)


def _relabel(args: Namespace) -> dict[str, Any]:
    from flows.relabel import relabel

    summary: dict[str, Any] = relabel(
        store=args.store,
        model=args.model,
        domain=args.domain,
        channels=args.channel,
        profile=args.profile,
        config=str(args.config) if args.config else None,
    )
    return summary
