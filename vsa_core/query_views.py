"""The named views of a store in a DuckDB that can touch nothing else, files least of all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import duckdb
import pyarrow.fs as fs

from vsa_core.datasets import TableFiles
from vsa_core.latest import latest_labels
from vsa_core.schemas import TABLES
from vsa_core.store import Store, StoredFile
from vsa_core.store.files import as_written

# What can be asked for, and what a row is; a view has the columns of its table, but for
# `current_runs`, which has two of them.
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
    "current_runs": "Of each labelled video the run whose labels are current: two columns.",
    "label_history": "Every label of every run, also of runs that did not finish, without reviews.",
    "reviews": "Every human decision.",
    "runs": "Every finished run.",
    "attempts": "Every attempt at an address of a channel, a playlist or a feed.",
    "promotions": "Every decision about which fusion model labels.",
    "utterances": "Every utterance of a corpus that people labelled.",
}

# What `labels` is. `latest_labels` tells which rows are current before DuckDB sees one: the join of
# every label with the runs would take longer than most questions.
_SAID = """said AS (
    SELECT * FROM _labels_whole
    UNION ALL SELECT * FROM _labels_mixed SEMI JOIN current_runs USING (video_id, run_id)
  )"""
_CURRENT_LABELS = f"""
CREATE OR REPLACE VIEW labels AS
WITH
  {_SAID},
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
  CASE WHEN d.human_emotion IS NULL THEN h.emotion_confidence END AS emotion_confidence,
  CASE WHEN d.segment_id IS NULL THEN h.origin ELSE 'human' END AS origin
)
FROM said AS h
LEFT JOIN decided AS d ON d.segment_id = h.segment_id
"""
_UNREVIEWED_LABELS = f"CREATE OR REPLACE VIEW labels AS WITH {_SAID} SELECT * FROM said"
_LATEST = frozenset({"labels", "current_runs"})
# Where DuckDB lists what there is, which does not count as a table that is asked.
_LISTINGS = ("information_schema", "duckdb_", "pg_")


def table_of(view: str) -> str:
    """The table whose columns a view has, all or some of them."""
    return "labels" if view in ("label_history", "current_runs") else view


def closed_in() -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that can touch nothing, files least of all."""
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
    # It goes to stdout, among the rows; a notebook without ipywidgets has none, and says so here.
    with suppress(duckdb.InvalidInputException):
        connection.execute("SET enable_progress_bar = false")
    connection.execute("SET lock_configuration = true")
    return connection


def views_asked(connection: duckdb.DuckDBPyConnection, sql: str) -> frozenset[str]:
    """The views that SQL asks; all of them where it asks what there is, or nothing of them."""
    try:
        names = frozenset(
            name.lower()
            for statement in connection.extract_statements(sql)
            for name in connection.get_table_names(statement.query)
        )
    except duckdb.Error:  # a pivot, or wrong, which is said when it is run
        return frozenset(view for view in VIEWS if view in sql.lower()) or frozenset(VIEWS)
    listing = any(where in sql.lower() for where in _LISTINGS)
    return names if names and names <= VIEWS.keys() and not listing else frozenset(VIEWS)


def tables_behind(views: Iterable[str]) -> set[str]:
    """The tables that some views are made of."""
    tables = {table_of(view) for view in views}
    return tables if _LATEST.isdisjoint(views) else tables | {"labels", "runs", "reviews"}


def open_views(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    listed: Mapping[str, list[StoredFile]],
    views: Iterable[str] = VIEWS,
) -> None:
    """Offer views of some files in a DuckDB, in the place of those it offered before.

    Args:
        connection: as `closed_in` makes it.
        store: whose tables.
        listed: the files of every table in `tables_behind`.
        views: which of `VIEWS`; the fewer, the less time in which files may be swapped.

    Raises:
        StoreError: a file of `labels` or `runs` does not read.
    """
    for table in tables_behind(views):
        view = "label_history" if table == "labels" else table
        relation = _relation(connection, store.filesystem, table, listed[table])
        connection.execute(f"CREATE OR REPLACE VIEW {view} AS {relation}")
    if _LATEST.isdisjoint(views):
        return
    known = latest_labels(store, listed["labels"])
    _register(connection, "_labels_whole", "labels", known.whole, store.filesystem)
    _register(connection, "_labels_mixed", "labels", known.mixed, store.filesystem)
    connection.register("_current_runs", known.pairs)
    connection.execute("CREATE OR REPLACE VIEW current_runs AS SELECT * FROM _current_runs")
    labels = _CURRENT_LABELS if listed["reviews"] else _UNREVIEWED_LABELS
    connection.execute(labels)


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
