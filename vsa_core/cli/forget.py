"""`vsa forget`: remove a person's videos everywhere in a store, and prove it."""

from __future__ import annotations

import argparse
import getpass
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsa_core.cli import FAILED, OK, opened_store
from vsa_core.cli.screen import cell, write_json
from vsa_core.errors import UsageError

if TYPE_CHECKING:
    from vsa_core.forget.plan import Removal
    from vsa_core.forget.remove import Proof
    from vsa_core.store import Store

_SHOWN = 20
_BEYOND = (
    "beyond the store, vsa removed nothing: look at files of your own, backups, versions that a "
    "bucket keeps, tables you exported, and Prefect's own database, which notes what runs were "
    "asked for"
)


def run(args: argparse.Namespace) -> int:
    """Say what would go, ask, remove it, prove it."""
    from vsa_core.config import load_config
    from vsa_core.forget.plan import count, media_bytes, plan
    from vsa_core.forget.remove import prove, remove
    from vsa_core.ingest.media_folder import media_folder
    from vsa_core.migrate import check
    from vsa_core.verify import verify

    store = opened_store(args.store)
    check(store)
    media = media_folder(store.location, load_config(args.config))
    removal = plan(store, args.targets, [media], keep_models=args.keep_models)
    said: dict[str, Any] = {
        "store": store.location,
        "videos": list(removal.videos),
        "addresses": len(removal.sources),
        "rows": count(store, removal),
        "media_folders": list(removal.media),
        "media_bytes": media_bytes(removal),
        "models": list(removal.models),
        "models_kept": removal.keep_models,
        "trained_elsewhere": list(removal.trained),
        "feature_folders": list(removal.features),
        "files_that_stay": list(removal.own),
    }
    if not args.json:
        _show_plan(removal, said)
    if args.dry_run:
        _finish(args, said)
        return OK
    _agreed(args, store)
    said["rows"] = remove(store, removal, by=getpass.getuser())
    proof = prove(store, removal, said["rows"])
    said["proof"] = {
        "clean": proof.clean,
        "files": proof.search.files,
        "bytes": proof.search.size,
        "texts": proof.search.texts,
        "traces": proof.search.traces,
        "unread": proof.search.unread,
        "left": list(proof.left),
        "same_title": proof.same_title,
    }
    said["problems"] = verify(store)
    if not args.json:
        _show_proof(removal, proof, said["problems"])
    _finish(args, said)
    if proof.clean and not said["problems"]:
        return OK
    sys.stderr.write(
        f"vsa: {store.location}: not everything is well: see to the lines above"
        + (
            ""
            if proof.clean
            else f" and run `vsa forget --store {shlex.quote(store.location)}` again"
        )
        + "\n"
    )
    return FAILED


def _finish(args: argparse.Namespace, said: dict[str, Any]) -> None:
    if args.json:
        write_json(sys.stdout, said)


def _agreed(args: argparse.Namespace, store: Store) -> None:
    """Raises UsageError unless a person says yes."""
    if args.yes:
        return
    if args.json or not sys.stdin.isatty():
        raise UsageError(f"nothing was removed from {store.location}: add --yes to remove it")
    sys.stdout.write("This cannot be undone. Type yes to remove it: ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() != "yes":
        raise UsageError(f"nothing was removed from {store.location}")


def _show_plan(removal: Removal, said: dict[str, Any]) -> None:
    out = sys.stdout
    out.write(f"To forget: {len(removal.videos)} videos, {len(removal.sources)} addresses\n")
    for title in removal.titles[:_SHOWN]:
        out.write(f"  {cell(title)}\n")
    if len(removal.titles) > _SHOWN:
        out.write(f"  … and {len(removal.titles) - _SHOWN} more\n")
    for table, rows in said["rows"].items():
        out.write(f"{table:<12} {rows} rows{' are blanked' if table == 'runs' else ''}\n")
    out.write(f"{'downloads':<12} {len(removal.media)} folders, {said['media_bytes']} bytes\n")
    if removal.features:
        out.write(f"{'features':<12} {len(removal.features)} folders of decoded pictures, sounds\n")
    for model_id in removal.models:
        stays = (
            "stays, and knows the ids of what it learned from"
            if removal.keep_models
            else (
                "learned from them, or does not say from what, and goes; labels it gave to other "
                "videos stay"
            )
        )
        out.write(f"model {model_id} {stays}\n")
    for place in removal.trained:
        out.write(
            f"model {cell(place)} learned from them and stays, for it is outside the store: remove "
            "it, or train it anew\n"
        )
    for path in removal.own[:_SHOWN]:
        if Path(path).exists():
            out.write(f"your own file stays, with what lies beside it: {cell(path)}\n")
    if removal.channels:
        out.write("take the channel out of channels.yaml too, or its new videos are fetched\n")


def _show_proof(removal: Removal, proof: Proof, problems: list[str]) -> None:
    out = sys.stdout
    search = proof.search
    out.write(
        f"Searched {search.files} files ({search.size} bytes, {search.texts} texts decoded): "
        f"{'nothing of it is left' if proof.clean else 'not everything is gone'}\n"
    )
    for line in (*search.traces, *search.unread, *proof.left, *problems):
        out.write(f"  {cell(line)}\n")
    if proof.same_title:
        out.write(f"{proof.same_title} rows of other videos bear the same title\n")
    if removal.keep_models and removal.models:
        out.write(f"{len(removal.models)} models that learned from them were kept\n")
    out.write(f"{_BEYOND}\n")
