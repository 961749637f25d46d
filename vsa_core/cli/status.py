"""`vsa status`: what a store holds, what is not labelled and why, how sure it is, and who ran."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from vsa_core.cli import OK, opened_store
from vsa_core.cli.confidence import write_levels
from vsa_core.cli.screen import cell, command, write_json, write_parts, write_table
from vsa_core.labels import Origin
from vsa_core.story import FAILED, counted, in_order, knowing, left_out, tell

if TYPE_CHECKING:
    from vsa_core.store import Store

_Ask: TypeAlias = "Callable[..., list[dict[str, Any]]]"

_LAST_RUNS = 5
_SHOWN_CHANNELS = 20
_SHOWN_SOURCES = 24  # characters
_SAME = 5e-4  # as figures are shown
_MINUTES_S = 180  # shorter is told in seconds
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
_LABELS = """
SELECT sentiment, origin, agreement, count(*) AS n, count(emotion) AS emotions
FROM labels GROUP BY ALL
"""
_LABELLED_VIDEOS = "SELECT count(DISTINCT video_id) AS n FROM labels WHERE sentiment IS NOT NULL"
_WORDS = """
SELECT captions_kind, count(*) AS n FROM videos SEMI JOIN current_runs USING (video_id) GROUP BY ALL
"""
_LACKING = "FROM predictions WHERE modality = 'text' AND status = 'foreign'"
# Of the models that made the current labels: segments in a language their text model lacks.
_FOREIGN = f"""
SELECT coalesce(l.language, 'unknown') AS language, count(*) AS n
FROM labels AS l JOIN (SELECT segment_id, backend {_LACKING}) AS p USING (segment_id)
WHERE list_contains(l.backends, p.backend)
GROUP BY ALL ORDER BY n DESC, language
"""
_CHANNELS = """
WITH tried AS (  -- of several attempts at an address the best counts
  SELECT
    channel,
    arg_min(state, array_position(['labelled', 'refused', 'failed', 'later'], state)) AS state,
    max(tried_at) AS tried_at
  FROM attempts GROUP BY channel, source_id
)
SELECT
  channel,
  count(*) FILTER (state = 'labelled') AS labelled,
  count(*) FILTER (state = 'refused') AS refused,
  count(*) FILTER (state = 'failed') AS failed,
  count(*) FILTER (state = 'later') AS later,
  max(tried_at) AS last_tried
FROM tried GROUP BY channel ORDER BY last_tried DESC, failed DESC, channel
"""
_MODELS = """
SELECT
  domain,
  arg_max(current_model_id, (sequence, decision_id)) AS model_id,
  arg_max(action, (sequence, decision_id)) AS last_action,
  arg_max(reason, (sequence, decision_id)) AS reason,
  arg_max(decided_by, (sequence, decision_id)) AS decided_by,
  max(decided_at) AS decided_at
FROM promotions GROUP BY domain ORDER BY domain
"""
_RUNS = "SELECT * FROM runs ORDER BY finished_at DESC, run_id"
_SHOWN = (
    "run_id", "status", "finished_at", "seconds", "profile", "videos", "videos_failed", "segments",
    "model_id", "sources",
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
        _show(sys.stdout, found, args.store)
    return OK


def summary(store: Store) -> dict[str, Any]:
    """What `--json` prints: counts by name, the last runs, failures, files and bytes by table.

    What `vsa run --json` tells too has the same names: videos_labelled, segments, labelled,
    emotions, sentiments, words, left_out (without `asked`), estimates, warnings.
    """
    from vsa_core.query import look, shipped_query
    from vsa_core.schemas import TABLES

    query = shipped_query("not_labelled").sql

    def asked(ask: _Ask) -> dict[str, Any]:
        [videos] = ask(_VIDEOS)
        failures = videos.pop("failures")
        segments, reviews = (_count(ask, f"SELECT count(*) AS n FROM {table}")
                             for table in ("segments", "reviews"))  # fmt: skip
        rows = ask(_LABELS)
        labelled = sum(row["n"] for row in rows if row["sentiment"])
        labels = [{**row, "sentiment": row["sentiment"] or "null"} for row in rows]
        every = labelled == sum(row["n"] for row in rows)
        runs = ask(_RUNS)
        counts = [json.loads(run["counts"]) for run in runs]
        models = not all(_nobody_failed(one) for one in counts)
        return {
            **videos,
            "videos_labelled": _count(
                ask, "SELECT count(*) AS n FROM current_runs" if every else _LABELLED_VIDEOS
            ),
            "segments": segments,
            "labels": sum(row["n"] for row in rows),
            "labelled": labelled,
            "emotions": sum(row["emotions"] for row in rows),
            "sentiments": {k: n for k, n in _totals(labels, "sentiment").items() if k != "null"},
            **{f"labels_by_{column}": _totals(labels, column) for column in _LABEL_COLUMNS},
            "words": {row["captions_kind"]: row["n"] for row in ask(_WORDS)},
            "foreign": _foreign(ask) if models else {},
            "left_out": _left_out(
                ask(query, {"models": models, "labels": not every}), runs, failures
            ),
            "reviews": reviews,
            "last_runs": [_shown(*one) for one in zip(runs[:_LAST_RUNS], counts, strict=False)],
            "channels": [_plain(row) for row in ask(_CHANNELS)],
            "models": [_plain(row) for row in ask(_MODELS)],
            **_knowing(ask, runs, reviews),
            "failures": failures,
        }

    sizes = {table: _size(store, table) for table in TABLES}
    return {"store": store.location, **look(store, asked), "tables": sizes}


def _nobody_failed(counts: dict[str, Any]) -> bool:
    """Whether a run's counts say that no model failed on, or did not know, a segment.

    Then nobody need look at predictions; a run of an older version does not say.
    """
    errors = counts.get("errors")
    return counts.get("foreign") == 0 and errors is not None and not any(errors.values())


def _foreign(ask: _Ask) -> dict[str, int]:
    """Count by language of the segments that the text model does not speak."""
    some = _count(ask, f"SELECT count(*) AS n {_LACKING}")
    return {row["language"]: row["n"] for row in ask(_FOREIGN)} if some else {}


def _left_out(
    rows: list[dict[str, Any]], runs: list[dict[str, Any]], failures: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What is not labelled by kind; also channels that the last run could not list."""
    found: defaultdict[str, list[tuple[str, str | None]]] = defaultdict(list)
    counts: Counter[str] = Counter()
    for row in rows:
        found[row["what"]].append((row["video"], row["why"]))
        counts[row["what"]] += 1 if row["segments"] is None else row["segments"]
    # Runs of older versions name what was fetched by its file.
    known = {row["video"] for row in rows} | {video["media_path"] for video in failures}
    for line in runs[0]["failures"] if runs else ():
        parts = line.split(": ")  # a path may hold that too
        if not any(": ".join(parts[:n]) in known for n in range(1, len(parts))):
            found[FAILED].append((parts[0], ": ".join(parts[1:])))
            counts[FAILED] += 1
    return in_order(left_out(what, found[what], count=counts[what]) for what in found)


def _count(ask: _Ask, sql: str) -> int:
    [row] = ask(sql)
    n: int = row["n"]
    return n


def _shown(run: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    return _plain({name: run[name] for name in _SHOWN} | {"labelled": counts.get("labelled")})


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row, JSON-able."""
    times = {name: at.isoformat() for name, at in row.items() if hasattr(at, "isoformat")}
    return row | times


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
    report = json.loads(runs[0]["metrics"])
    said = knowing(report)
    if drift := _drift(ask, [run for run in runs if run["profile"] == runs[0]["profile"]][:2]):
        said["warnings"].append(drift)
    return {"by_confidence": _levels(ask, runs[0], reviews, _calibrated(report)), **said}


def _calibrated(report: dict[str, Any]) -> bool:
    """Whether the confidences of a run's sentiments are the estimate of how right they are."""
    said = report.get("knowing", {}).get("targets", {}).get("sentiment", {})
    value, mean = said.get("estimate", {}).get("value"), said.get("mean_confidence")
    return value is not None and mean is not None and abs(value - mean) < _SAME


def _levels(ask: _Ask, run: dict[str, Any], reviews: int, calibrated: bool) -> list[dict[str, Any]]:
    """What keeping only the labels of a run that are at least so sure comes to.

    `expected` is null unless the run's confidences are calibrated.
    """
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
    if not total:
        return []
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
                "expected": sum(row["sure"] for row in kept) / n if n and calibrated else None,
                "reviewed": hits / checked if checked else None,
                "reviews": checked,
            }
        )
    return levels


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


def _size(store: Store, table: str) -> dict[str, int]:
    files = store.every_file(table)
    return {"files": len(files), "bytes": sum(file.size for file in files)}


def _show(out: TextIO, found: dict[str, Any], store: str) -> None:
    seconds = found["duration_ms"] / 1000
    hours = f"{seconds / 3600:,.2f} h" if seconds >= _MINUTES_S else f"{seconds:,.0f} s"
    length = f" of {hours}" if seconds else ""
    out.write(f"{found['store']}: {_many(found['videos'], 'video')}{length}\n\n")
    parts = tell(found)
    decided = {f"by {o}": n for o, n in found["labels_by_origin"].items() if o != Origin.NONE}
    parts.append(("Votes", [counted(found["labels_by_agreement"])]))
    parts.append(("Decided", [counted(decided)]))
    parts.append(("Reviews", [f"{found['reviews']:,}" if found["reviews"] else ""]))
    if found["foreign"]:
        parts.append(("Foreign", [counted(found["foreign"])]))
    parts.append(("Model", _models(found)))
    parts.append(("On disk", [_disk(found["tables"])]))
    write_parts(out, [(heading, lines) for heading, lines in parts if any(lines)])
    levels = found["by_confidence"]
    if any(row["expected"] is not None or row["reviews"] for row in levels):
        out.write("\nKeeping only the sentiments of the last run that are at least so sure\n")
        write_levels(out, levels)
    if found["channels"]:
        out.write("\nChannels, by the best attempt at each address\n")
        shown = [_row(channel) for channel in found["channels"][:_SHOWN_CHANNELS]]
        write_table(out, list(shown[0]), [list(row.values()) for row in shown])
        more = len(found["channels"]) - len(shown)
        out.write(f"… and {more} more: --json lists all\n" if more else "")
    if found["last_runs"]:
        out.write("\nLast runs\n")
        shown = [_row(_brief(run)) for run in found["last_runs"]]
        write_table(out, list(shown[0]), [list(row.values()) for row in shown])
    if found["left_out"]:
        out.write(f"\nAll that is left out: {command('query @not_labelled', store)}\n")


def _brief(run: dict[str, Any]) -> dict[str, Any]:
    """What of a run fits a line."""
    sources = cell(", ".join(run["sources"]))
    if len(sources) > _SHOWN_SOURCES:
        sources = f"{sources[: _SHOWN_SOURCES - 1]}…"
    labelled = run["segments"] if run["labelled"] is None else run["labelled"]
    return {
        "finished": run["finished_at"],
        "status": run["status"],
        "videos": run["videos"],
        "failed": run["videos_failed"],
        "labelled": labelled,
        "sources": sources,
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """Times to the minute, underscores as spaces."""
    times = ("finished", "last_tried")
    return {
        name.replace("_", " "): value[:16].replace("T", " ") if name in times else value
        for name, value in row.items()
    }


def _models(found: dict[str, Any]) -> list[str]:
    """Which fusion model labels each domain, and since when."""
    lines = [
        f"{row['domain']}: {row['model_id'] or 'none'}; last decision "
        f"{row['decided_at'][:16].replace('T', ' ')} by {row['decided_by']}: "
        f"{row['last_action'].replace('_', ' ')}, {row['reason']}"
        for row in found["models"]
    ]
    if not lines and found["last_runs"]:
        return [f"{found['last_runs'][0]['model_id']} of the last run; none is promoted"]
    return lines


def _disk(tables: dict[str, dict[str, int]]) -> str:
    files, size = (sum(table[what] for table in tables.values()) for what in ("files", "bytes"))
    room = f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{max(size / 1000, 1):.0f} kB"
    return f"{room} in {_many(files, 'file')}" if files else ""


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
