"""`vsa status`: what a store holds, the last runs, how sure the labels are, and what failed."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from vsa_core.cli import OK, opened_store
from vsa_core.cli.confidence import estimate_line, write_levels
from vsa_core.cli.screen import cell, write_json, write_table

if TYPE_CHECKING:
    from vsa_core.store import Store

_Ask: TypeAlias = "Callable[[str], list[dict[str, Any]]]"

_LAST_RUNS = 5
_SHOWN_FAILURES = 20
_LABEL_COLUMNS = ("sentiment", "origin", "agreement")

# No row is read that can be counted without: in a store of millions that is what takes the time.
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
_LABELS = "SELECT sentiment, origin, agreement, count(*) AS n FROM labels GROUP BY ALL"
_LACKING = "FROM predictions WHERE modality = 'text' AND status = 'foreign'"
# Of the models that made the current labels: segments in a language their text model lacks.
_FOREIGN = f"""
SELECT coalesce(l.language, 'unknown') AS language, count(*) AS n
FROM labels AS l JOIN (SELECT segment_id, backend {_LACKING}) AS p USING (segment_id)
WHERE list_contains(l.backends, p.backend)
GROUP BY ALL ORDER BY n DESC, language
"""
_RUNS = "SELECT * FROM runs ORDER BY finished_at DESC, run_id"
_SHOWN = (
    "run_id", "status", "finished_at", "seconds", "profile", "videos", "videos_failed", "segments",
    "model_id",
)  # fmt: skip
# Label by label of one run: at how many of the levels it is kept, its confidence, and whether it
# is right. A review is a check of a label that did not learn from it: one given since the run
# began, or any where the run's strategy learns nothing.
_LEVELS = """
WITH
  reviewed AS (
    SELECT
      segment_id,
      min(reviewed_at) AS first_at,
      arg_max(sentiment, (reviewed_at, review_id)) AS sentiment
    FROM reviews WHERE sentiment IS NOT NULL GROUP BY segment_id
  ),
  found AS (
    SELECT coalesce(confidence, -1) AS confidence, {hit} AS hit
    FROM label_history AS h {reviewed}
    WHERE run_id = '{run_id}'
  )
SELECT
  {kept} AS kept,
  count(*) AS n,
  sum(confidence) AS sure,
  sum(hit) AS hits,
  count(hit) AS reviews
FROM found GROUP BY kept
"""
_HIT = "CASE WHEN {counts} THEN (h.sentiment = r.sentiment)::INT END"
_SHARES = """
SELECT video_id, {counts} FROM label_history
WHERE run_id = '{run_id}' AND sentiment IS NOT NULL GROUP BY video_id ORDER BY video_id
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
    from vsa_core.query import look
    from vsa_core.schemas import TABLES

    def asked(ask: _Ask) -> dict[str, Any]:
        [videos] = ask(_VIDEOS)
        failures = videos.pop("failures")
        segments, reviews = (_count(ask, f"FROM {table}") for table in ("segments", "reviews"))
        labels = [{**row, "sentiment": row["sentiment"] or "null"} for row in ask(_LABELS)]
        runs = ask(_RUNS)
        return {
            **videos,
            "segments": segments,
            "labels": sum(row["n"] for row in labels),
            **{f"labels_by_{column}": _totals(labels, column) for column in _LABEL_COLUMNS},
            "foreign": _foreign(ask, runs),
            "reviews": reviews,
            "last_runs": [_shown(run) for run in runs[:_LAST_RUNS]],
            **_knowing(ask, runs, reviews),
            "failures": failures,
        }

    sizes = {table: _size(store, table) for table in TABLES}
    return {"store": store.location, **look(store, asked), "tables": sizes}


def _foreign(ask: _Ask, runs: list[dict[str, Any]]) -> dict[str, int]:
    """Count by language; no run that found none makes anybody look at its predictions."""
    if all(json.loads(run["counts"]).get("foreign") == 0 for run in runs):
        return {}
    some = _count(ask, _LACKING)
    return {row["language"]: row["n"] for row in ask(_FOREIGN)} if some else {}


def _count(ask: _Ask, of: str) -> int:
    [row] = ask(f"SELECT count(*) AS n {of}")
    n: int = row["n"]
    return n


def _shown(run: dict[str, Any]) -> dict[str, Any]:
    return {name: run[name] for name in _SHOWN} | {"finished_at": run["finished_at"].isoformat()}


def _knowing(ask: _Ask, runs: list[dict[str, Any]], reviews: int) -> dict[str, Any]:
    """How right the last run's labels are as far as is known.

    Args:
        ask: answers a question.
        runs: rows of `runs`, the latest first.
        reviews: how many there are.

    Returns:
        by_confidence: rows as `by_confidence` in vsa_core/fusion/knowing.py gives them; empty
            without a run or a label.
        estimates: by target the estimate the run wrote down.
        warnings: the run's, and a shift of the sentiments since the run before it.
    """
    if not runs:
        return {"by_confidence": [], "estimates": {}, "warnings": []}
    said = json.loads(runs[0]["metrics"]).get("knowing", {})
    warnings = list(said.get("warnings", ()))
    if drift := _drift(ask, [run for run in runs if run["profile"] == runs[0]["profile"]][:2]):
        warnings.append(drift)
    return {
        "by_confidence": _levels(ask, runs[0], reviews),
        "estimates": {
            target: found["estimate"] for target, found in said.get("targets", {}).items()
        },
        "warnings": warnings,
    }


def _levels(ask: _Ask, run: dict[str, Any], reviews: int) -> list[dict[str, Any]]:
    """What keeping only the labels of a run that are at least so sure comes to."""
    from vsa_core.fusion.abstain import LEVELS

    counts = "TRUE" if run["model_card"] is None else f"r.first_at > '{run['started_at']}'"
    rows = ask(
        _LEVELS.format(
            run_id=run["run_id"].replace("'", "''"),
            kept=" + ".join(f"(confidence >= {level})::INT" for level in LEVELS),
            hit=_HIT.format(counts=counts) if reviews else "NULL::INT",
            reviewed="LEFT JOIN reviewed AS r USING (segment_id)" if reviews else "",
        )
    )
    total = sum(row["n"] for row in rows)
    levels = []
    for number, level in enumerate(LEVELS):
        # The levels rise: what is kept at so many is kept at the first so many.
        kept = [row for row in rows if row["kept"] > number]
        n, checked = sum(row["n"] for row in kept), sum(row["reviews"] for row in kept)
        hits = sum(row["hits"] or 0 for row in kept)
        levels.append(
            {
                "confidence": level,
                "coverage": n / total,
                "expected": sum(row["sure"] for row in kept) / n if n else None,
                "reviewed": hits / checked if checked else None,
                "reviews": checked,
            }
        )
    return levels if total else []


def _drift(ask: _Ask, runs: list[dict[str, Any]]) -> str | None:
    """How the sentiments' shares moved between two runs of one profile, where they did.

    Another profile's labels differ for other reasons.
    """
    import numpy as np

    from vsa_core.fusion.checks import moments_of_sums, prior_drift
    from vsa_core.labels import SENTIMENTS

    counts = ", ".join(f"count(*) FILTER (sentiment = '{s}') AS {s}" for s in SENTIMENTS)
    moments = []
    for run in runs:
        rows = ask(_SHARES.format(counts=counts, run_id=run["run_id"].replace("'", "''")))
        found = np.array([[row[s] for s in SENTIMENTS] for row in rows])
        if len(found):
            moments.append(moments_of_sums(found.sum(axis=1), found, found.sum(axis=0)))
    if len(moments) < 2:
        return None
    now, before = moments
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
    files = store.every_file(table)
    return {"files": len(files), "bytes": sum(file.size for file in files)}


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
