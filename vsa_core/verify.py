"""Read a whole store, and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vsa_core import forget
from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, TableSpec, checked
from vsa_core.store import CARD, FileGoneError, Store, StoredFile, UnreachableError

# What stands in no other table, nor anywhere else: nothing makes it anew.
_IRREPLACEABLE = {
    "reviews": "what humans decided",
    "attempts": "what was tried at each address",
    "promotions": "which models were let label",
}
_TRIES = 20

Hashes = NDArray[np.uint64]


@dataclass(slots=True)
class _Ids:
    """64-bit hashes of a table's ids: of 2 million rows 16 MB, not the ids themselves."""

    parts: list[Hashes] = field(default_factory=list)

    def add(self, rows: pa.Table, columns: tuple[str, ...]) -> None:
        """Those of some rows."""
        self.parts.append(_hashes(rows, columns))

    def all(self) -> Hashes:
        """Those of all rows, sorted."""
        return np.sort(np.concatenate([*self.parts, np.zeros(0, np.uint64)]))


@dataclass(slots=True)
class _Read:
    """What was found in one table.

    Attributes:
        problems: one line each.
        ids: of its rows.
        segments: of `predictions`: the segments they are about.
        ok: of `predictions`: those that must have an embedding.
        with_segments: of `runs`: those that found segments.
        damaged: parts in which a file does not read.
    """

    problems: list[str] = field(default_factory=list)
    ids: _Ids = field(default_factory=_Ids)
    segments: _Ids = field(default_factory=_Ids)
    ok: _Ids = field(default_factory=_Ids)
    with_segments: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)


def verify(store: Store, *, repair: bool = False) -> list[str]:
    """Read everything, and say in one line each what is wrong and what to do.

    Checks that files open, hold the schema and the page checksums they were written with,
    that ids are unique, probabilities sum to 1, predictions belong to segments and have
    their embeddings, finished runs have their labels, no temporary file is left, and nothing
    that was to be forgotten is there.

    Args:
        store: which.
        repair: put what does not read aside, into `.quarantine/` of the store, so that the next
            run makes it anew.

    Raises:
        StoreError: the store cannot be reached, or keeps changing.
    """
    problems = [f"{p}: left by a killed writer: `vsa run` sweeps it" for p in store.orphans()]
    found: dict[str, _Read] = {}
    for table, spec in TABLES.items():
        read = found[table] = _table(store, spec, repair)
        problems.extend(read.problems)
        if repeated := _repeated(store, spec, read.ids.all()):
            problems.append(
                f"{store.location}/{table}: {repeated} rows repeat the id of another "
                f"({', '.join(spec.id)}): run `vsa store compact`"
            )
    if (line := forget.unfinished(store)) is not None:
        problems.append(line)
    problems += [
        f"{store.location}: video {video_id} was to be forgotten and is back, a run was at work on "
        f"it: run `vsa forget {video_id}` again"
        for video_id in forget.returned(store)
    ]
    if repair:
        _forget_what_lacks_its_rest(store, found)
    problems.extend(_orphaned_rows(store, found))
    for name in store.unfinished_folders("models"):
        problems.append(
            f"{store.location}/models/{name}: has no {CARD}, its writer was killed: run again"
        )
    return problems


def _table(store: Store, spec: TableSpec, repair: bool) -> _Read:
    """What is in a table; read again where a compaction goes on meanwhile."""
    aside: dict[tuple[str, str], str] = {}
    for _ in range(_TRIES):
        read = _Read(problems=list(aside.values()), damaged={part for part, _ in aside})
        try:
            counting = {file.name: file for file in store.files(spec.name)}
            for file in store.every_file(spec.name):
                problem = _file(store, spec, file, counting.get(file.name), read)
                if problem is None:
                    continue
                if repair and store.tag(file) in (None, spec.tag):
                    problem = f"{problem}: put aside as {store.quarantine(file)}"
                    aside[file.part, file.name] = f"{problem}: {_advice(spec.name, repair)}"
                read.damaged.add(file.part)
                read.problems.append(f"{problem}: {_advice(spec.name, repair)}")
        except FileGoneError:
            continue
        return read
    raise StoreError(f"{store.location}: {spec.name} changes too fast to be read: try again later")


def _file(
    store: Store, spec: TableSpec, file: StoredFile, counting: StoredFile | None, read: _Read
) -> str | None:
    """Note the ids of a file's rows that count; returns what is wrong with it, where anything is.

    Raises:
        FileGoneError: it was replaced meanwhile.
        UnreachableError: nobody can tell.
    """
    where = store.where(file)
    tag = store.tag(file)
    if tag not in (None, spec.tag):
        return f"{where}: written as {tag}, this is {spec.tag}"
    own = _Read()
    try:
        for rows in store.rows_of(file):
            checked(spec, rows, where=where)
        for rows in store.rows_of(counting, [*_columns(spec)]) if counting else ():
            _note(spec, rows, own)
    except (FileGoneError, UnreachableError):
        raise
    except StoreError as error:
        said = str(error)
        return said if said.startswith(where) else f"{where}: {said}"
    for name in ("ids", "segments", "ok"):
        getattr(read, name).parts.extend(getattr(own, name).parts)
    read.with_segments |= own.with_segments
    return None


def _columns(spec: TableSpec) -> tuple[str, ...]:
    extra = ("status", "segment_id", "segments", "run_id")
    return tuple(dict.fromkeys([*spec.id, *(c for c in extra if c in spec.schema.names)]))


def _note(spec: TableSpec, rows: pa.Table, read: _Read) -> None:
    read.ids.add(rows, spec.id)
    if spec.name == "predictions":
        read.segments.add(rows, ("segment_id",))
        read.ok.add(rows.filter(pc.equal(rows["status"], "ok")), ("segment_id", "backend"))
    if spec.name == "runs":
        some = rows.filter(pc.greater(rows["segments"], 0))
        read.with_segments.update(some["run_id"].to_pylist())


def _advice(table: str, repaired: bool) -> str:
    if table in _IRREPLACEABLE:
        return (
            f"it says {_IRREPLACEABLE[table]}, which nothing makes anew: put a copy of it from a "
            "backup in its place"
        )
    if repaired:
        return "run the same `vsa run` again, which makes it anew"
    return "`vsa store verify --repair` puts it aside, and the same `vsa run` then makes it anew"


def _repeated(store: Store, spec: TableSpec, ids: Hashes) -> int:
    """How many rows repeat the id of another."""
    same = np.unique(ids[1:][ids[1:] == ids[:-1]])
    if not len(same):
        return 0
    # Of different ids with the same hash there is hardly ever one: look at these ids themselves.
    suspects = []
    for rows in store.scan(spec.name, columns=list(spec.id)):
        suspects.append(rows.filter(pa.array(np.isin(_hashes(rows, spec.id), same))))
    found = pa.concat_tables([rows.replace_schema_metadata(None) for rows in suspects])
    return found.num_rows - found.group_by(list(spec.id)).aggregate([]).num_rows


def _hashes(rows: pa.Table, columns: tuple[str, ...]) -> Hashes:
    with duckdb.connect(":memory:", config={"enable_external_access": False}) as connection:
        connection.register("given", rows.select(list(columns)))
        names = ", ".join(f'"{name}"' for name in columns)
        found = connection.execute(f"SELECT hash({names}) AS h FROM given").fetchnumpy()["h"]
    return np.asarray(found, np.uint64)


def _forget_what_lacks_its_rest(store: Store, found: dict[str, _Read]) -> None:
    """Discard predictions whose embeddings or faces were put aside, so that they are made anew.

    Their stage looks at `predictions` alone to know what is done.
    """
    for table in ("embeddings", "faces"):
        for part in found[table].damaged:
            rest = store.refs(table, part)
            for key in store.refs("predictions", part).keys() - rest.keys():
                store.discard("predictions", key, part=part)


def _orphaned_rows(store: Store, found: dict[str, _Read]) -> Iterator[str]:
    """Rows that refer to rows that are not there."""
    segments = found["predictions"].segments.all()
    stray = int((~np.isin(segments, found["segments"].ids.all())).sum())
    if stray:
        yield f"{store.location}/predictions: {stray} rows of segments that are gone: run again"
    ok = found["predictions"].ok.all()
    missing = int((~np.isin(ok, found["embeddings"].ids.all())).sum())
    if missing:
        yield (
            f"{store.location}/embeddings: {missing} predictions have no embedding: "
            "remove their files in predictions/ and run again"
        )
    labelled = {file.part for file in store.files("labels")}
    if lost := sorted(found["runs"].with_segments - labelled):
        yield f"{store.location}/labels: {len(lost)} finished runs have no labels: run them again"
