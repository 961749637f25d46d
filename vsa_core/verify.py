"""Read a whole store, and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vsa_core.errors import StoreError
from vsa_core.schemas import TABLES, TableSpec, checked
from vsa_core.store import CARD, SCHEMA_TAG, Store, StoredFile, is_video, read_file


def verify(store: Store) -> list[str]:
    """Read everything, and say in one line each what is wrong and what to do.

    Checks that files open, hold the schema and the page checksums they were written with,
    that ids are unique, probabilities sum to 1, predictions belong to segments and have
    their embeddings, finished runs have their labels, and no temporary file is left.
    """
    problems = [f"{p}: left by a killed writer: `vsa run` sweeps it" for p in store.orphans()]
    ids: dict[str, pa.Table] = {}
    for table, spec in TABLES.items():
        found = [_verified(spec, file, problems) for file in store.files(table)]
        tables = [t for t in found if t is not None]
        if tables:
            ids[table] = pa.concat_tables(tables)
            count = ids[table].group_by(list(spec.id)).aggregate([]).num_rows
            if count < ids[table].num_rows:
                problems.append(
                    f"{store.root / table}: {ids[table].num_rows - count} rows repeat the id "
                    f"of another ({', '.join(spec.id)}): run `vsa store compact`"
                )
    problems.extend(_orphaned_rows(store.root, ids))
    for folder in sorted((store.root / "models").glob("*")):
        if not (folder / CARD).is_file():
            problems.append(f"{folder}: has no {CARD}, its writer was killed: run again")
    return problems


def _verified(spec: TableSpec, file: StoredFile, problems: list[str]) -> pa.Table | None:
    """The id columns (and status) of a file's rows that count; None when it does not read."""
    again = "remove it and run the same `vsa run` again"
    try:
        facts = pq.read_metadata(file.path).metadata or {}
        tag = facts.get(SCHEMA_TAG, b"nothing").decode()
        if tag != spec.tag:
            problems.append(f"{file.path}: written as {tag}, this is {spec.tag}: {again}")
            return None
        data = read_file(file.path)
        checked(spec, data, where=str(file.path))
    except (StoreError, OSError, pa.ArrowException) as error:
        problems.append(f"{file.path}: {' '.join(str(error).split())}: {again}")
        return None
    if file.superseded:
        data = data.filter(~is_video(file.superseded))
    extra = [c for c in ("status", "segment_id", "run_id", "segments") if c in data.column_names]
    return data.select(list(dict.fromkeys([*spec.id, *extra])))


def _orphaned_rows(root: Path, ids: Mapping[str, pa.Table]) -> Iterator[str]:
    """Rows that refer to rows that are not there."""

    def values(table: str, column: str) -> pa.Array:
        found = ids.get(table)
        kind = TABLES[table].schema.field(column).type
        return found[column].combine_chunks() if found is not None else pa.array([], kind)

    segments = values("segments", "segment_id")
    if "predictions" in ids:
        seen = values("predictions", "segment_id")
        stray = pc.sum(pc.invert(pc.is_in(seen, value_set=segments))).as_py() or 0
        if stray:
            yield f"{root / 'predictions'}: {stray} rows of segments that are gone: run again"
        ok = ids["predictions"].filter(pc.field("status") == "ok")
        vectors = ids.get("embeddings")
        held = (
            0
            if vectors is None
            else ok.join(
                vectors.select(["segment_id", "backend"]),
                ["segment_id", "backend"],
                join_type="inner",
            ).num_rows
        )
        if held < ok.num_rows:
            yield (
                f"{root / 'embeddings'}: {ok.num_rows - held} predictions have no embedding: "
                "remove their files in predictions/ and run again"
            )
    if "runs" in ids:
        labelled = values("labels", "run_id").unique()
        some = ids["runs"].filter(pc.field("segments") > 0)["run_id"]
        missing = pc.sum(pc.invert(pc.is_in(some, value_set=labelled))).as_py()
        if missing:
            yield f"{root / 'labels'}: {missing} finished runs have no labels: run them again"
