"""`vsa status`: what a store holds, the last runs, how sure the labels are, and what failed."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

from vsa_core.cli import OK, opened_store
from vsa_core.cli.confidence import estimate_line, write_levels
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
# Of the models that made the current labels: segments in a language their text model lacks.
_FOREIGN = """
SELECT coalesce(l.language, 'unknown') AS language, count(*) AS n
FROM predictions AS p JOIN labels AS l USING (segment_id)
WHERE p.status = 'foreign' AND list_contains(l.backends, p.backend)
GROUP BY ALL ORDER BY n DESC, language
"""
_RUNS = f"""
SELECT run_id, status, finished_at, seconds, profile, videos, videos_failed, segments, model_id
FROM runs ORDER BY finished_at DESC, run_id LIMIT {_LAST_RUNS}
"""
_METRICS = "SELECT metrics FROM runs ORDER BY finished_at DESC, run_id LIMIT 1"
# A review is a check of a label that did not learn from it: one given since the run began, or any
# where the run's strategy learns nothing.
_LEVELS = """
WITH
  latest AS (SELECT * FROM runs ORDER BY finished_at DESC, run_id LIMIT 1),
  reviewed AS (
    SELECT
      segment_id,
      min(reviewed_at) AS first_at,
      arg_max(sentiment, (reviewed_at, review_id)) AS sentiment
    FROM reviews WHERE sentiment IS NOT NULL GROUP BY segment_id
  ),
  found AS (
    SELECT
      coalesce(h.confidence, -1) AS confidence,
      CASE WHEN r.first_at > latest.started_at OR latest.model_card IS NULL
        THEN CAST(h.sentiment = r.sentiment AS INTEGER) END AS hit
    FROM label_history AS h JOIN latest USING (run_id) LEFT JOIN reviewed AS r USING (segment_id)
  )
SELECT
  level AS confidence,
  count(*) FILTER (f.confidence >= level) / count(*) AS coverage,
  avg(f.confidence) FILTER (f.confidence >= level) AS expected,
  avg(hit) FILTER (f.confidence >= level) AS reviewed,
  count(hit) FILTER (f.confidence >= level) AS reviews
FROM found AS f, (SELECT unnest([{levels}]) AS level) GROUP BY level ORDER BY level
"""
# The last two runs of the same profile: another profile's labels differ for other reasons.
_SHARES = """
WITH
  latest AS (SELECT profile FROM runs ORDER BY finished_at DESC, run_id LIMIT 1),
  two AS (
    SELECT run_id, row_number() OVER (ORDER BY finished_at DESC, run_id) AS age
    FROM runs JOIN latest USING (profile) ORDER BY age LIMIT 2
  )
SELECT age, video_id, {counts}
FROM label_history JOIN two USING (run_id) WHERE sentiment IS NOT NULL
GROUP BY age, video_id ORDER BY age, video_id
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
        "foreign": {row["language"]: row["n"] for row in ask(store, _FOREIGN).rows()},
        "reviews": reviews,
        "last_runs": runs,
        **_knowing(store),
        "failures": failures,
        "tables": {table: _size(store, table) for table in TABLES},
    }


def _knowing(store: Store) -> dict[str, Any]:
    """How right the last run's labels are as far as is known.

    Returns:
        by_confidence: rows as `by_confidence` in vsa_core/fusion/knowing.py gives them; empty
            without a run or a label.
        estimates: by target the estimate the run wrote down.
        warnings: the run's, and a shift of the sentiments since the run before it.
    """
    from vsa_core.fusion.abstain import LEVELS
    from vsa_core.query import ask

    metrics = [json.loads(row["metrics"]) for row in ask(store, _METRICS).rows()]
    said = metrics[0].get("knowing", {}) if metrics else {}
    levels = ", ".join(str(level) for level in LEVELS)
    warnings = list(said.get("warnings", ()))
    if drift := _drift(store):
        warnings.append(drift)
    return {
        "by_confidence": list(ask(store, _LEVELS.format(levels=levels)).rows()) if metrics else [],
        "estimates": {
            target: found["estimate"] for target, found in said.get("targets", {}).items()
        },
        "warnings": warnings,
    }


def _drift(store: Store) -> str | None:
    """How the sentiments' shares moved between the last two runs, where they did."""
    import numpy as np

    from vsa_core.fusion.checks import moments_of_sums, prior_drift
    from vsa_core.labels import SENTIMENTS
    from vsa_core.query import ask

    counts = ", ".join(f"count(*) FILTER (sentiment = '{s}') AS {s}" for s in SENTIMENTS)
    rows = list(ask(store, _SHARES.format(counts=counts)).rows())
    by_run: dict[int, list[list[int]]] = {1: [], 2: []}
    for row in rows:
        by_run[row["age"]].append([row[s] for s in SENTIMENTS])
    if not by_run[1] or not by_run[2]:
        return None
    now, before = (
        moments_of_sums(found.sum(axis=1), found, found.sum(axis=0))
        for found in (np.array(by_run[age]) for age in (1, 2))
    )
    return prior_drift(before, now, SENTIMENTS)


def _totals(labels: list[dict[str, Any]], column: str) -> dict[str, int]:
    """Count by value of one column, the commonest first."""
    totals: Counter[str] = Counter()
    for row in labels:
        totals[row[column]] += row["n"]
    return dict(sorted(totals.items(), key=lambda item: (-item[1], item[0])))


def _show_knowing(out: TextIO, found: dict[str, Any]) -> None:
    if found["by_confidence"]:
        out.write("\nsentiments of the last run\n")
        write_levels(out, found["by_confidence"])
    for target, estimate in found["estimates"].items():
        out.write(f"{target}: {estimate_line(estimate)}\n")
    for line in found["warnings"]:
        out.write(f"warning: {line}\n")


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
    if found["foreign"]:
        shares = ", ".join(f"{n} {language}" for language, n in found["foreign"].items())
        out.write(f"  in languages that the text model lacks, without its vote: {shares}\n")
    out.write(f"reviews   {found['reviews']}\n")
    if found["last_runs"]:
        out.write("\nlast runs\n")
        runs = [{**run, "finished_at": run["finished_at"][:19]} for run in found["last_runs"]]
        write_table(out, list(runs[0]), [list(run.values()) for run in runs])
    _show_knowing(out, found)
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
