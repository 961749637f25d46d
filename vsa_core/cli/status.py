"""`vsa status`: what a store holds, the last runs, and what failed."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK, opened_store
from vsa_core.cli.screen import cell, write_json, write_table

if TYPE_CHECKING:
    from vsa_core.store import Store

_LAST_RUNS = 5
_SHOWN_FAILURES = 20
_LABEL_COLUMNS = ("sentiment", "origin", "agreement")

# Each table is read once: in a store of thousands of small files that is what takes the time.
_VIDEOS = """
SELECT
  count(*) AS videos,
  count(*) FILTER (status = 'error') AS videos_failed,
  coalesce(sum(duration_ms), 0) AS duration_ms,
  coalesce(
    list({'video_id': video_id, 'title': title, 'media_path': media_path, 'reason': note}
      ORDER BY media_path, video_id) FILTER (status = 'error'),
    []
  ) AS failures
FROM videos
"""
_LABELS = """
SELECT coalesce(sentiment, 'null') AS sentiment, origin, agreement, count(*) AS n
FROM labels GROUP BY ALL
"""
_RUNS = f"""
SELECT run_id, status, finished_at, seconds, profile, videos, videos_failed, segments, model_id
FROM runs ORDER BY finished_at DESC, run_id LIMIT {_LAST_RUNS}
"""


def run(args: argparse.Namespace) -> int:
    """Print the summary."""
    found = summary(opened_store(args.store))
    if args.json:
        write_json(sys.stdout, found)
    else:
        _show(sys.stdout, found)
    return OK


def summary(store: Store) -> dict[str, Any]:
    """What `--json` prints: counts by name, the last runs, failures, files and bytes by table."""
    from vsa_core.query import ask
    from vsa_core.schemas import TABLES

    [videos] = ask(store, _VIDEOS).rows()
    failures = videos.pop("failures")
    [(segments,)] = (row.values() for row in ask(store, "SELECT count(*) FROM segments").rows())
    [(reviews,)] = (row.values() for row in ask(store, "SELECT count(*) FROM reviews").rows())
    labels = list(ask(store, _LABELS).rows())
    runs = [
        {**row, "finished_at": row["finished_at"].isoformat()} for row in ask(store, _RUNS).rows()
    ]
    return {
        "store": str(store.root),
        **videos,
        "segments": segments,
        "labels": sum(row["n"] for row in labels),
        **{f"labels_by_{column}": _totals(labels, column) for column in _LABEL_COLUMNS},
        "reviews": reviews,
        "last_runs": runs,
        "failures": failures,
        "tables": {table: _size(store, table) for table in TABLES},
    }


def _totals(labels: list[dict[str, Any]], column: str) -> dict[str, int]:
    """Count by value of one column, the commonest first."""
    totals: Counter[str] = Counter()
    for row in labels:
        totals[row[column]] += row["n"]
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def _size(store: Store, table: str) -> dict[str, int]:
    sizes = [file.path.stat().st_size for file in store.files(table)]
    return {"files": len(sizes), "bytes": sum(sizes)}


def _show(out: TextIO, found: dict[str, Any]) -> None:
    hours = found["duration_ms"] / 3_600_000
    failed = f", {found['videos_failed']} failed" if found["videos_failed"] else ""
    out.write(f"{found['store']}\n\n")
    out.write(f"videos    {found['videos']} ({hours:.2f} h{failed})\n")
    out.write(f"segments  {found['segments']}\n")
    out.write(f"labels    {found['labels']}\n")
    for by in _LABEL_COLUMNS:
        counts = found[f"labels_by_{by}"]
        shares = ", ".join(f"{n} {name}" for name, n in counts.items())
        out.write(f"  by {by:<10} {shares or '-'}\n")
    out.write(f"reviews   {found['reviews']}\n")
    if found["last_runs"]:
        out.write("\nlast runs\n")
        runs = [{**run, "finished_at": run["finished_at"][:19]} for run in found["last_runs"]]
        write_table(out, list(runs[0]), [list(run.values()) for run in runs])
    if found["failures"]:
        out.write("\nfailed videos\n")
        for failure in found["failures"][:_SHOWN_FAILURES]:
            out.write(f"  {cell(failure['media_path'])}: {cell(failure['reason'])}\n")
        more = len(found["failures"]) - _SHOWN_FAILURES
        if more > 0:
            out.write(f"  … and {more} more: --json lists all\n")
    out.write("\non disk\n")
    sizes = [(name, size["files"], size["bytes"]) for name, size in found["tables"].items()]
    write_table(out, ["table", "files", "bytes"], sizes)
