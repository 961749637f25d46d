"""Questions to a store in SQL: DuckDB over its Parquet through named views, read-only.

DuckDB itself may open no file at all: pyarrow opens the store's files and DuckDB sees Arrow
datasets. Its own `allowed_paths` is no lock, for it allows writing too, and a `COPY` inside a
`WITH` passes as a SELECT: `WITH x AS (COPY … TO 'labels/….parquet' (use_tmp_file false)) SELECT …`
would overwrite what it may read.
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as fs

from vsa_core.config import configs_dir
from vsa_core.errors import StoreError, UsageError
from vsa_core.schemas import TABLES
from vsa_core.store import Store, StoredFile

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
}

_CURRENT_LABELS = """
CREATE VIEW labels AS
WITH
  latest AS (
    SELECT h.video_id, arg_max(h.run_id, (r.finished_at, r.run_id)) AS run_id
    FROM (SELECT DISTINCT video_id, run_id FROM label_history) AS h JOIN runs AS r USING (run_id)
    GROUP BY h.video_id
  ),
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
FROM label_history AS h
JOIN latest USING (video_id, run_id)
LEFT JOIN decided AS d ON d.segment_id = h.segment_id
"""

# A pivot makes an enum of its own first, hence MULTI.
_READING = ("SELECT", "EXPLAIN", "MULTI")
_BATCH_ROWS = 10_000
# What DuckDB says of an Arrow dataset that fails; every other error is of the SQL.
_FILE_ERROR = re.compile(r"reading the stream registered as '_(\w+)_\d+' failed: (.*)")


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that answer a query.

    Attributes:
        schema: names and types of the columns; a name that repeats is numbered.
        batches: the rows, streamed; UsageError or StoreError when reading on fails.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows as Python values by column name; whole decimals as int, others as float."""
        convert = {
            field.name: change
            for field in self.schema
            if (change := _conversion(field.type)) is not None
        }
        for batch in self.batches:
            for row in batch.to_pylist():
                for name, change in convert.items():
                    row[name] = change(row[name])
                yield row


@dataclass(frozen=True, slots=True)
class ShippedQuery:
    """A query of configs/queries.

    Attributes:
        name: what `vsa query @name` calls it.
        description: its first comment line.
        sql: the whole file.
        params: (default, meaning) by parameter; a default of None lets the query choose.
    """

    name: str
    description: str
    sql: str
    params: Mapping[str, tuple[str | None, str]]

    @property
    def defaults(self) -> dict[str, str | None]:
        """The default of every parameter."""
        return {name: default for name, (default, _) in self.params.items()}


def ask(store: Store, sql: str, params: Mapping[str, Any] | None = None) -> Answer:
    """The answer of a store to one SELECT statement over `VIEWS`.

    Args:
        store: where to look.
        sql: one statement; `$name` takes a value of `params`.
        params: values by name; one the statement does not use is refused.

    Raises:
        UsageError: not one reading statement, a parameter too many or too few, wrong SQL.
        StoreError: a file of the store does not read.
    """
    while True:
        listed = _listing(store)
        try:
            return _answer(open_views(store, listed), sql, dict(params or {}))
        except StoreError:
            # A compaction may have swapped files between listing and reading.
            if _listing(store) == listed:
                raise


def open_views(
    store: Store, listed: Mapping[str, list[StoredFile]] | None = None
) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that offers `VIEWS` and can touch nothing else, files least of all."""
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
    for table, files in (listed or _listing(store)).items():
        view = "label_history" if table == "labels" else table
        relation = _relation(connection, store.filesystem, table, files)
        connection.execute(f"CREATE VIEW {view} AS {relation}")
    connection.execute(_CURRENT_LABELS)
    connection.execute("SET lock_configuration = true")
    return connection


def shipped() -> list[ShippedQuery]:
    """The queries of configs/queries, by name."""
    return [_shipped_query(path) for path in sorted((configs_dir() / "queries").glob("*.sql"))]


def shipped_query(name: str) -> ShippedQuery:
    """The shipped query of that name.

    Raises:
        UsageError: there is none.
    """
    found = {query.name: query for query in shipped()}
    if name not in found:
        raise UsageError(f"no shipped query is named {name!r}; there are: {', '.join(found)}")
    return found[name]


def _listing(store: Store) -> dict[str, list[StoredFile]]:
    return {table: store.files(table) for table in TABLES}


def _relation(
    connection: duckdb.DuckDBPyConnection,
    filesystem: fs.FileSystem,
    table: str,
    files: list[StoredFile],
) -> str:
    """A SELECT over one table's files, less what newer files supersede."""
    schema = TABLES[table].schema
    plain = [file.path for file in files if not file.superseded]
    parts = []
    for number, (paths, superseded) in enumerate(
        [(plain, ()), *(([f.path], f.superseded) for f in files if f.superseded)]
    ):
        name = f"_{table}_{number}"
        source = _dataset(paths, schema, filesystem) if paths else schema.empty_table()
        connection.register(name, source)
        left_out = ", ".join(f"'{key}'" for key in superseded)
        parts.append(
            f"SELECT * FROM {name}" + (f" WHERE {files[0].key_column} NOT IN ({left_out})" if left_out else "")
        )
    return " UNION ALL ".join(parts)


def _dataset(paths: list[str], schema: pa.Schema, filesystem: fs.FileSystem) -> ds.Dataset:
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.FileSystemDataset.from_paths(
        paths,
        schema=schema,
        format=ds.ParquetFileFormat(default_fragment_scan_options=options),
        filesystem=filesystem,
    )


def _answer(connection: duckdb.DuckDBPyConnection, sql: str, params: dict[str, Any]) -> Answer:
    try:
        statements = connection.extract_statements(sql)
        kinds = [str(statement.type).rpartition(".")[2] for statement in statements]
        if len(kinds) != 1 or kinds[0] not in _READING:
            raise UsageError(
                f"a query is one SELECT statement, not {' and '.join(kinds) or 'nothing'}: "
                "the store is only read here"
            )
        known = statements[0].named_parameters
        if unknown := sorted(params.keys() - known):
            raise UsageError(f"the query has no parameter {', '.join(f'${n}' for n in unknown)}")
        if missing := sorted(known - params.keys()):
            raise UsageError(
                f"the query needs a value for {', '.join(f'${n}' for n in missing)}: "
                f"--param {missing[0]}=VALUE"
            )
        relation = connection.sql(sql, params=params) if params else connection.sql(sql)
        reader = relation.to_arrow_reader(_BATCH_ROWS)
        schema = _unique_names(reader.schema)
        first = next(reader, None)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _said_plainly(error) from error
    return Answer(schema, _batches(connection, reader, schema, first))


def _batches(
    connection: duckdb.DuckDBPyConnection, reader: Any, schema: pa.Schema, first: Any
) -> Iterator[pa.RecordBatch]:
    """The reader's batches; the connection lives as long as they are read."""
    batch = first
    try:
        while batch is not None:
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            batch = next(reader, None)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _said_plainly(error) from error
    finally:
        connection.close()


def _unique_names(schema: pa.Schema) -> pa.Schema:
    names: list[str] = []
    for name in schema.names:
        candidates = (f"{name}_{n}" if n else name for n in itertools.count())
        names.append(next(free for free in candidates if free not in names))
    return pa.schema([field.with_name(name) for field, name in zip(schema, names, strict=True)])


def _conversion(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """How a Python value of an Arrow type becomes the one people expect; None: it is that one."""
    if pa.types.is_float32(kind):
        # The double nearest to what the float32 prints as: 0.1, not 0.10000000149011612.
        return lambda value: None if value is None else float(str(np.float32(value)))
    if pa.types.is_decimal(kind):  # DuckDB's sums of integers are decimals without a fraction
        number = float if kind.scale else int
        return lambda value: None if value is None else number(value)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        change = _conversion(kind.value_type)
        if change is not None:
            return lambda value: None if value is None else [change(item) for item in value]
    return None


def _said_plainly(error: Exception) -> UsageError | StoreError:
    """What went wrong in one line: in the SQL, or in a file of the store."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if in_file := _FILE_ERROR.search(line):
        return StoreError(
            f"table {in_file[1]} does not read ({in_file[2]}): see `vsa store verify`"
        )
    return UsageError(f"{line}; the views are: {', '.join(VIEWS)}")


def _shipped_query(path: Path) -> ShippedQuery:
    """A query file: comment lines of description and parameters, then the SQL.

    A parameter stands as `-- $name = default: what it is`, or `-- $name: what it is` where the
    query chooses.
    """
    sql = path.read_text(encoding="utf-8")
    comments = re.findall(r"^-- (.*)$", sql, re.MULTILINE)
    params = {
        found[1]: (found[2], found[3])
        for line in comments
        if (found := re.match(r"\$(\w+)(?: = ([^:]+))?: (.*)", line))
    }
    return ShippedQuery(path.stem, comments[0], sql, params)
