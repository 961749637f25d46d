"""The named views of a store in a DuckDB that can touch nothing else, files least of all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import duckdb
import pyarrow.fs as fs

from vsa_core.datasets import TableFiles
from vsa_core.latest import latest_labels
from vsa_core.schemas import TABLES
from vsa_core.store import Store, StoredFile
from vsa_core.store.files import as_written

# What can be asked for, and what a row is; a view has the columns of its table.
VIEWS: Mapping[str, str] = {
    "videos": "Every video, also one that failed.",
    "transcripts": "Every caption cue or stretch of recognised speech, before it is cut.",
    "segments": "Every span of speech.",
    "predictions": "What each backend says of each segment alone.",
    "embeddings": "Each segment's vector in each backend.",
    "faces": "Every face found in a sampled frame.",
    "labels": (
        "The current label of each segment: of a video's finished runs the latest, and over that "
        "what humans decided. A reviewed segment has origin `human`; where the review gives the "
        "sentiment `confidence` is null, and the probabilities stay the model's."
    ),
    "label_history": "Every label of every run, also of runs that did not finish, without reviews.",
    "reviews": "Every human decision.",
    "runs": "Every finished run.",
    "attempts": "Every attempt at an address of a channel, a playlist or a feed.",
    "promotions": "Every decision about which fusion model labels.",
    "utterances": "Every utterance of a corpus that people labelled.",
}

# What `labels` is. The join of every label with the runs is what takes the time; where `labels` is
# asked for, `latest_labels` has done it before.
_LATEST = """
  latest AS (
    SELECT h.video_id, arg_max(h.run_id, (r.finished_at, r.run_id)) AS run_id
    FROM (SELECT DISTINCT video_id, run_id FROM label_history) AS h JOIN runs AS r USING (run_id)
    GROUP BY h.video_id
  ),
  said AS (SELECT * FROM label_history SEMI JOIN latest USING (video_id, run_id))
"""
_LATEST_KNOWN = """
  said AS (
    SELECT * FROM _labels_whole
    UNION ALL SELECT * FROM _labels_mixed SEMI JOIN _labels_pairs USING (video_id, run_id)
  )
"""
_CURRENT_LABELS = """
CREATE VIEW labels AS
WITH
  {said},
  decided AS (  -- a null in a review leaves what was there: an older review's word, or the model's
    SELECT
      segment_id,
      arg_max(sentiment, (reviewed_at, review_id)) AS human_sentiment,
      arg_max(emotion, (reviewed_at, review_id)) AS human_emotion
    FROM reviews
    GROUP BY segment_id
  )
SELECT h.* REPLACE (
  coalesce(d.human_sentiment, h.sentiment) AS sentiment,
  coalesce(d.human_emotion, h.emotion) AS emotion,
  CASE WHEN d.human_sentiment IS NULL THEN h.confidence END AS confidence,
  CASE WHEN d.segment_id IS NULL THEN h.origin ELSE 'human' END AS origin
)
FROM said AS h
LEFT JOIN decided AS d ON d.segment_id = h.segment_id
"""
_UNREVIEWED_LABELS = "CREATE VIEW labels AS WITH {said} SELECT * FROM said"


def open_views(
    store: Store, listed: Mapping[str, list[StoredFile]], sql: str = "labels"
) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that offers `VIEWS` and can touch nothing else, files least of all.

    Args:
        store: whose tables.
        listed: their files.
        sql: what will be asked; `labels` is made quick where it occurs.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            # A big sort spills; the default is a folder in the current one.
            "temp_directory": str(Path(tempfile.gettempdir()) / f"vsa-query-{os.getpid()}"),
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_progress_bar = false")  # it goes to stdout, among the rows
    for table, files in listed.items():
        view = "label_history" if table == "labels" else table
        relation = _relation(connection, store.filesystem, table, files)
        connection.execute(f"CREATE VIEW {view} AS {relation}")
    said = _LATEST
    if "labels" in sql.lower():
        latest = latest_labels(store, listed["labels"])
        _register(connection, "_labels_whole", "labels", latest.whole, store.filesystem)
        _register(connection, "_labels_mixed", "labels", latest.mixed, store.filesystem)
        connection.register("_labels_pairs", latest.pairs)
        said = _LATEST_KNOWN
    labels = _CURRENT_LABELS if listed["reviews"] else _UNREVIEWED_LABELS
    connection.execute(labels.format(said=said))
    connection.execute("SET lock_configuration = true")
    return connection


def _relation(
    connection: duckdb.DuckDBPyConnection,
    filesystem: fs.FileSystem,
    table: str,
    files: list[StoredFile],
) -> str:
    """A SELECT over one table's files, less what newer files supersede."""
    parts = []
    plain = [file for file in files if not file.superseded]
    for number, some in enumerate([plain, *([file] for file in files if file.superseded)]):
        name = f"_{table}_{number}"
        _register(connection, name, table, some, filesystem)
        select = f"SELECT * FROM {name}"
        if number:
            left_out = ", ".join(f"'{key}'" for key in some[0].superseded)
            select += f" WHERE {some[0].key_column} NOT IN ({left_out})"
        parts.append(select)
    return " UNION ALL ".join(parts)


def _register(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: str,
    files: list[StoredFile],
    filesystem: fs.FileSystem,
) -> None:
    none = as_written(TABLES[table].schema).empty_table()
    connection.register(name, TableFiles.of(table, files, filesystem) if files else none)
