"""Remove what a plan names from a store, and prove that it is gone.

Receipts are written before anything goes, so that a run which asks `forgotten` takes none of it in
again, and the journal before them, so that a removal that was cut off is finished by the next one.
A run that is at work on the videos meanwhile may still write rows of them: the proof names these,
`vsa store verify` does so afterwards, and the same command removes them too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from vsa_core.errors import StoreError
from vsa_core.forget import JOURNALS, close_journal, mark, sign, write_journal
from vsa_core.forget.files import drop_folders, drop_quarantined, edit
from vsa_core.forget.plan import KIND, MODELS, Removal, among, count, mention, rows_of
from vsa_core.forget.traces import Needles, Search, search
from vsa_core.fusion import registry
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store

_GONE = "forgotten"  # stands in `runs` where a video's path or address stood


@dataclass(frozen=True, slots=True)
class Proof:
    """What a search of the whole store found after the removal.

    Attributes:
        search: of every file.
        left: folders of downloads and of decoded pictures, and models, that are still there.
        same_title: rows of other videos that bear the title of a forgotten one; no trace.
    """

    search: Search
    left: tuple[str, ...]
    same_title: int

    @property
    def clean(self) -> bool:
        """Nothing was found, and there is nothing that could not be searched."""
        return not (self.search.traces or self.search.unread or self.left)


def remove(store: Store, removal: Removal, *, by: str) -> dict[str, int]:
    """Remove all of it; what is gone already is no matter, so that it can be done again.

    Args:
        store: of the videos.
        removal: as `plan` gives it.
        by: who decides, for the registry of models.

    Returns:
        rows removed by table; of `runs` rewritten.

    Raises:
        StoreError: something cannot be removed; the journal stays, and so does what is left.
    """
    write_journal(store, asdict(removal))
    sign(store, (*removal.videos, *removal.sources), {"begun_at": _now()})
    removed = count(store, removal)
    if not removal.keep_models:
        _leave_models(store, removal.models, by)
        for model_id in removal.models:
            store.remove_folder(MODELS, model_id)
    for folder in (*removal.media, *removal.features):
        _remove_download(Path(folder))
    _forget_addresses(store, removal)
    store.purge(removal.videos)
    _forget_in_runs(store, removal)
    store.sweep()
    drop_quarantined(store)
    drop_folders(store, removal.needles().within_text)
    return removed


def prove(store: Store, removal: Removal, removed: Mapping[str, int]) -> Proof:
    """Search the whole store for what was removed; the journal is closed where nothing is left.

    Args:
        store: that was to forget.
        removal: what.
        removed: as `remove` gave it, for the receipt.

    Raises:
        StoreError: the store cannot be reached.
    """
    kept = removal.models if removal.keep_models else ()
    # The journal names what it is about until it is closed.
    skipped = (f"{JOURNALS}/", *(f"{MODELS}/{model_id}/" for model_id in kept))
    # An address's own row in `attempts` keeps its source_id; no file may be named by it.
    folders = (Path(folder).name.partition(".")[0] for folder in removal.media)
    names = Needles((*removal.sources, *folders), ())
    left = [f for f in (*removal.media, *removal.features) if Path(f).exists()]
    left += [f"{MODELS}/{m}" for m in removal.models if m not in kept and store.folder(MODELS, m)]
    named, same_title = _named_rows(store, removal)
    found = search(store, removal.needles(), lambda name: name.startswith(skipped), names)
    proof = Proof(found, (*left, *named), same_title)
    if proof.clean:
        said = {"at": _now(), "rows": dict(removed), "files_searched": found.files}
        sign(store, (*removal.videos, *removal.sources), said)
        close_journal(store)
    return proof


def _leave_models(store: Store, doomed: Sequence[str], by: str) -> None:
    """Let no domain be labelled by a model that goes: the newest before it that stays takes over.

    Raises:
        StoreError: the decisions cannot be read or written.
    """
    reason = "a video that it learned from was forgotten"
    for domain in sorted({decision.domain for decision in registry.history(store)}):
        decisions = registry.history(store, domain)
        current = decisions[-1].current_model_id
        if current is None or current not in doomed:
            continue
        labelled = (d.model_id for d in reversed(decisions) if d.action != registry.CANDIDATE)
        staying = [m for m in labelled if m not in doomed and store.folder(MODELS, m)]
        if staying:
            registry.promote(store, domain, staying[0], by=by, reason=reason)
            continue
        # No model is left to go back to: the domain has none of its own any more.
        key = f"forgotten-{mark(f'{domain} {current}')}"
        row = {
            "decision_id": key,
            "domain": domain,
            "sequence": decisions[-1].sequence + 1,
            "action": registry.ROLLED_BACK,
            "model_id": current,
            "current_model_id": None,
            "decided_at": datetime.now(UTC),
            "decided_by": by,
            "reason": reason,
            "metrics": "{}",
        }
        store.commit("promotions", key, table_from_rows("promotions", [row]), key)


def _remove_download(folder: Path) -> None:
    try:
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be removed ({error.strerror}): see to its permissions and run "
            "`vsa forget` again"
        ) from error


def _forget_addresses(store: Store, removal: Removal) -> None:
    """Put in the place of all attempts at an address one that says nothing but that it is over.

    Without it the next listing of the channel would bring the address up as new, and a nightly run
    would fetch what was just forgotten. It holds the hash of the site's own id of the video, by
    which the address is known again, and nothing that leads to it.
    """
    gone = ~removal.attempted()
    edit(store, "attempts", lambda rows: rows.filter(gone))
    known = {
        row["source_id"]
        for row in rows_of(store, "attempts", ("source_id", "kind"))
        if row["kind"] == KIND
    }
    rows: list[dict[str, Any]] = [
        {
            "attempt_id": mark(source_id),
            "source_id": source_id,
            "channel": "-",
            "url": "",
            "title": None,
            "published_at": None,
            "state": "refused",
            "kind": KIND,
            "reason": "somebody asked to be forgotten",
            "number": 1,
            "video_id": None,
            "tried_at": datetime.now(UTC),
        }
        for source_id in removal.sources
        if source_id not in known
    ]
    if rows:
        key = "forgotten-" + mark(" ".join(row["source_id"] for row in rows))
        store.commit("attempts", key, table_from_rows("attempts", rows), key, part="ad-hoc")


def _forget_in_runs(store: Store, removal: Removal) -> None:
    """Blank what names the videos in the rows of runs; a run that labelled nothing else goes."""
    names = mention(removal)

    def blanked(texts: list[str]) -> list[str]:
        return [_GONE if names(text) else text for text in texts]

    def change(rows: pa.Table) -> pa.Table:
        kept = rows.filter(~among("run_id", removal.runs)).to_pylist()
        for row in kept:
            row.update(sources=blanked(row["sources"]), failures=blanked(row["failures"]))
            if names(row["counts"]):  # what was left out is counted there, with examples
                row["counts"] = _without_examples(row["counts"])
        return table_from_rows("runs", kept)

    edit(store, "runs", change)


def _without_examples(counts: str) -> str:
    held = json.loads(counts)
    for kind in held.get("left_out", ()):
        kind["examples"] = []
    return json.dumps(held, sort_keys=True)


def _named_rows(store: Store, removal: Removal) -> tuple[list[str], int]:
    """Where a forgotten channel is still named, and how many rows bear a forgotten title."""
    channels, titles = set(removal.channels), set(removal.titles)
    left, same_title = [f"attempts/{c}" for c in store.parts("attempts") if c in channels], 0
    for table in ("videos", "labels", "attempts"):
        columns = [c for c in ("channel_id", "channel", "title") if c in TABLES[table].schema.names]
        found = 0
        for row in rows_of(store, table, columns):
            found += bool(channels & {row.get("channel_id"), row.get("channel")})
            same_title += row["title"] in titles
        left += [f"{table}: {found} rows name a forgotten channel"] if found else []
    return left, same_title


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
