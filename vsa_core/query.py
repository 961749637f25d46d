"""Questions to a store in SQL: DuckDB over its Parquet through named views, read-only.

DuckDB itself may open no file at all: pyarrow opens the store's files and DuckDB sees Arrow
datasets. Its own `allowed_paths` is no lock, for it allows writing too, and a `COPY` inside a
`WITH` passes as a SELECT: `WITH x AS (COPY … TO 'labels/….parquet' (use_tmp_file false)) SELECT …`
would overwrite what it may read.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from vsa_core.errors import StoreError, UsageError, meant
from vsa_core.folders import configs_dir
from vsa_core.labels import EMOTIONS, SENTIMENTS
from vsa_core.query_views import VIEWS, closed_in, open_views, tables_behind, views_asked
from vsa_core.schemas import TABLES
from vsa_core.store import Store, StoredFile

_SEE = "; see `vsa query --list`"
# A pivot makes an enum of its own first, hence MULTI.
_READING = ("SELECT", "EXPLAIN", "MULTI")
_BATCH_ROWS = 10_000
_T = TypeVar("_T")
# What DuckDB says of an Arrow dataset that fails; every other error is of the SQL.
_FILE_ERROR = re.compile(
    r"(?:reading the stream|exporting a stream from the object) registered as '_(\w+)_\w+' "
    r"failed: (.*)"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows that answer a query.

    Attributes:
        schema: names and types of the columns; a name that repeats is numbered.
        batches: the rows, streamed; UsageError or StoreError when reading on fails.
    """

    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]

    def table(self) -> pa.Table:
        """All rows in memory; `.to_pandas()` of it is a data frame."""
        return pa.Table.from_batches(self.batches, self.schema)

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


def ask(store: Store | str | Path, sql: str, params: Mapping[str, Any] | None = None) -> Answer:
    """The answer of a store to a SELECT statement over `VIEWS`.

    Others may stand before it, with `;` between: each gives one row (or none, which is null), and
    its columns are parameters of those behind it. A value that is known before a table is read
    spares most of the reading, which one that a join finds does not.

    Args:
        store: where to look; a store, or where it lies.
        sql: the statements; `$name` takes a value of `params`, or of a column by that name.
        params: values by name; one that no statement uses is refused.

    Raises:
        UsageError: not reading statements, a parameter too many or too few, wrong SQL, more than
            one row where one is needed; no store there.
        StoreError: a file of the store does not read.
    """
    if not isinstance(store, Store):
        where, store = store, Store(str(store))
        if not store.exists:
            raise UsageError(f"no store at {where}: `vsa run SOURCE --store {where}` makes one")
    connection = closed_in()
    asked = views_asked(connection, sql)
    tables = tables_behind(asked)
    while True:
        listed = _listing(store, tables)
        try:
            open_views(connection, store, listed, asked)
            answer = _answer(connection, sql, dict(params or {}))
            return Answer(answer.schema, _then_closed(connection, answer.batches))
        except StoreError:
            # A compaction may have swapped files between listing and reading.
            if _listing(store, tables) == listed:
                raise


def look(store: Store, work: Callable[[Callable[..., list[dict[str, Any]]]], _T]) -> _T:
    """What some work makes of the answers to several questions, all of one state of the store.

    Args:
        store: where to look.
        work: is given what answers SELECT statements over `VIEWS`, with `ask`'s parameters; called
            again where files were swapped meanwhile.

    Raises:
        UsageError: wrong SQL.
        StoreError: a file of the store does not read.
    """
    while True:
        listed = _listing(store)
        try:
            with closed_in() as connection:
                open_views(connection, store, listed)
                return work(partial(_rows, connection))
        except StoreError:
            if _listing(store) == listed:
                raise


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
        known = ", ".join(f"@{each}" for each in found)
        raise UsageError(
            f"no shipped query is named @{name}; there are: {known}{meant(name, found)}"
        )
    return found[name]


def _listing(store: Store, tables: Iterable[str] = TABLES) -> dict[str, list[StoredFile]]:
    return {table: store.files(table) for table in tables}


def _answer(connection: duckdb.DuckDBPyConnection, sql: str, params: dict[str, Any]) -> Answer:
    try:
        statements = connection.extract_statements(sql)
        if not statements:
            raise UsageError("a query is a SELECT statement, not nothing")
        for statement in statements:
            kind = str(statement.type).rpartition(".")[2]
            if kind not in _READING:
                raise UsageError(
                    f"a query is a SELECT statement, not {kind}: the store is only read here"
                )
        known = set().union(*(statement.named_parameters for statement in statements))
        if unknown := sorted(params.keys() - known):
            raise UsageError(
                f"the query has no parameter {_dollars(unknown)}; it has "
                f"{_dollars(sorted(known)) or 'none'}{meant(unknown[0], known)}"
            )
        for statement in statements[:-1]:
            found = _one_row(_read(connection, statement, params), statement.query)
            if twice := sorted(found.keys() & params.keys()):
                raise UsageError(f"${twice[0]} is given, and a statement has a column of that name")
            params = {**params, **found}
        return _read(connection, statements[-1], params)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _said_plainly(error, sql) from error


def _dollars(names: Iterable[str]) -> str:
    return ", ".join(f"${name}" for name in names)


def _read(
    connection: duckdb.DuckDBPyConnection, statement: Any, params: Mapping[str, Any]
) -> Answer:
    known = statement.named_parameters
    if missing := sorted(known - params.keys()):
        raise UsageError(
            f"the query needs a value for {_dollars(missing)}: --param {missing[0]}=VALUE"
        )
    own = {name: params[name] for name in known}
    relation = (
        connection.sql(statement.query, params=own) if own else connection.sql(statement.query)
    )
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    schema = _unique_names(reader.schema)
    return Answer(schema, _batches(reader, schema, next(reader, None)))


def _one_row(answer: Answer, sql: str) -> dict[str, Any]:
    """The values of a statement's only row by column; nulls where it has no row."""
    several = (row for batch in answer.batches for row in batch.slice(0, 2).to_pylist())
    rows = list(itertools.islice(several, 2))
    if len(rows) > 1:
        raise UsageError(
            f"{' '.join(sql.split()).rstrip(';')} gives more than one row, and its columns are "
            "parameters of what follows: add LIMIT 1"
        )
    return rows[0] if rows else dict.fromkeys(answer.schema.names)


def _rows(
    connection: duckdb.DuckDBPyConnection, sql: str, params: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    return list(_answer(connection, sql, dict(params or {})).rows())


def _batches(reader: Any, schema: pa.Schema, first: Any) -> Iterator[pa.RecordBatch]:
    batch = first
    try:
        while batch is not None:
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)
            batch = next(reader, None)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _said_plainly(error) from error


def _then_closed(
    connection: duckdb.DuckDBPyConnection, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """The batches; the connection lives as long as they are read."""
    with connection:
        yield from batches


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


def _said_plainly(error: Exception, sql: str = "") -> UsageError | StoreError:
    """What went wrong in one line: in the SQL, with the nearest right name, or in a file."""
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    line = first.rstrip(".!")
    if in_file := _FILE_ERROR.search(line):
        return StoreError(
            f"table {in_file[1]} does not read ({in_file[2]}): see `vsa store verify`"
        )
    if re.fullmatch(r"\s*@?[\w-]+\s*;?\s*", sql):
        word = sql.strip(" \n\t;@")
        questions = [query.name for query in shipped()]
        hint = meant(word, [*VIEWS, *questions])
        for name in questions:
            hint = hint.replace(f" {name}?", f" @{name}?")
        return UsageError(f"{word!r} is no SELECT, as `FROM labels`{hint or _SEE}")
    return UsageError(f"{line}{_nearest(line, rest) or '; the views are: ' + ', '.join(VIEWS)}")


def _nearest(line: str, rest: Iterable[str]) -> str:
    """`; did you mean X?` for a name that DuckDB does not know; it may have named some itself."""
    unknown = re.search(r'(?:column(?: named)? "([^"]+)"|with name (\S+) does not exist)', line)
    if unknown is None:
        return ""
    word = unknown[1] or unknown[2]
    if word in SENTIMENTS or word in EMOTIONS:
        return f": text stands in single quotes, '{word}'"
    told = [more for more in rest if more.startswith(("Did you mean", "Candidate bindings"))]
    if told:  # of what is in scope
        return meant(word, re.findall(r'"([^"]+)"', " ".join(told)))
    return meant(word, sorted({name for table in TABLES.values() for name in table.schema.names}))


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
