"""`labels` of stores with runs that overlap, against its definition in plain SQL."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.small_store import review, run_row, small_store
from vsa_core import query
from vsa_core.cli.status import summary
from vsa_core.datasets import TableFiles
from vsa_core.errors import StoreError
from vsa_core.latest import latest_labels
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store, StoredFile

# What docs/tables.md says of `labels`, over the files as they lie there.
PLAIN = """
WITH
  h AS (FROM read_parquet('{root}/labels/**/*.parquet', hive_partitioning = false)),
  r AS (FROM read_parquet('{root}/runs/*.parquet')),
  latest AS (
    SELECT video_id, run_id FROM (SELECT DISTINCT video_id, run_id FROM h) JOIN r USING (run_id)
    QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY finished_at DESC, run_id DESC) = 1
  ),
  given AS ({reviews}),
  last_sentiment AS (
    SELECT segment_id, sentiment FROM given WHERE sentiment IS NOT NULL
    QUALIFY row_number() OVER (
      PARTITION BY segment_id ORDER BY reviewed_at DESC, review_id DESC) = 1
  ),
  last_emotion AS (
    SELECT segment_id, emotion FROM given WHERE emotion IS NOT NULL
    QUALIFY row_number() OVER (
      PARTITION BY segment_id ORDER BY reviewed_at DESC, review_id DESC) = 1
  )
SELECT
  h.segment_id, h.run_id,
  coalesce(s.sentiment, h.sentiment) AS sentiment,
  coalesce(e.emotion, h.emotion) AS emotion,
  CASE WHEN s.sentiment IS NULL THEN h.confidence END AS confidence,
  CASE WHEN h.segment_id IN (SELECT segment_id FROM given) THEN 'human' ELSE h.origin END AS origin
FROM h JOIN latest USING (video_id, run_id)
LEFT JOIN last_sentiment AS s ON s.segment_id = h.segment_id
LEFT JOIN last_emotion AS e ON e.segment_id = h.segment_id
ORDER BY ALL
"""
OURS = """
SELECT segment_id, run_id, sentiment, emotion, confidence, origin FROM labels ORDER BY ALL
"""
NO_REVIEWS = (
    "SELECT '' AS segment_id, '' AS sentiment, '' AS emotion, 0 AS reviewed_at, '' AS review_id "
    "WHERE false"
)

videos = st.sets(st.sampled_from("abcd"), min_size=1)
runs = st.lists(
    st.tuples(st.lists(videos, min_size=1, max_size=3), st.none() | st.integers(1, 3)),
    min_size=1,
    max_size=4,
)
some_reviews = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, 1),
        st.integers(1, 4),
        st.none() | st.sampled_from(["negative", "positive"]),
        st.none() | st.sampled_from(["fear", "joy"]),
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def label(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Any row of labels."""
    store = small_store(tmp_path_factory.mktemp("one") / "store")
    return next(query.ask(store, "FROM label_history WHERE confidence IS NOT NULL").rows())


def put(
    root: Path,
    label: dict[str, Any],
    made: list[tuple[list[set[str]], int | None]],
    given: list[tuple[str, int, int, str | None, str | None]],
) -> Store:
    """Runs of several shards, and the day each finished (None: it did not); and reviews."""
    store = Store(root)
    for number, (shards, day) in enumerate(made):
        run_id, done = f"r{number}", set()
        for shard, names in enumerate(shards):
            rows = [
                {**label, "run_id": run_id, "video_id": v, "segment_id": f"{v}-{i * 4_000}-"
                 f"{i * 4_000 + 3_000}", "confidence": (number + 1) / 8}
                for v in sorted(names - done) for i in range(2)
            ]  # fmt: skip
            done |= names
            store.commit(
                "labels", f"{shard:04d}", table_from_rows("labels", rows), "f", part=run_id
            )
        if day is not None:
            row = table_from_rows("runs", [run_row(run_id, day)])
            store.commit("runs", run_id, row, "f")
    for number, (video, at, day, sentiment, emotion) in enumerate(given):
        row = review(f"p{number}", video, at * 4_000, day, sentiment, emotion)
        store.commit("reviews", f"b{number}", table_from_rows("reviews", [row]), "f")
    return store


def plainly(store: Store, reviews: bool) -> list[tuple[Any, ...]]:
    given = f"FROM read_parquet('{store.root}/reviews/*.parquet')" if reviews else NO_REVIEWS
    return duckdb.sql(PLAIN.format(root=store.root, reviews=given)).fetchall()


@given(made=runs, given_reviews=some_reviews)
@hypothesis_settings(max_examples=15, deadline=None)
def test_the_view_is_its_definition(
    label: dict[str, Any], made: list[Any], given_reviews: list[Any]
) -> None:
    if all(day is None for _, day in made):
        made = [*made, ([{"a"}], 1)]
    with tempfile.TemporaryDirectory() as folder:
        store = put(Path(folder), label, made, given_reviews)
        wanted = plainly(store, bool(given_reviews))
        assert [tuple(row.values()) for row in query.ask(store, OURS).rows()] == wanted
        # Whoever hides the name gets the same rows.
        hidden = OURS.replace("FROM labels", "FROM query_table('lab' || 'els')")
        assert [tuple(row.values()) for row in query.ask(store, hidden).rows()] == wanted
        assert summary(store)["labels"] == len(wanted)


def test_only_files_with_older_labels_of_some_videos_are_joined(
    tmp_path: Path, label: dict[str, Any]
) -> None:
    made = [([{"a", "b"}, {"c"}, {"d"}], 1), ([{"b"}, {"d"}], 2), ([{"a"}], None)]
    store = put(tmp_path, label, made, [])
    found = latest_labels(store, store.files("labels"))
    assert [(f.part, f.key) for f in found.whole] == [
        ("r0", "0001"), ("r1", "0000"), ("r1", "0001"),
    ]  # fmt: skip
    assert [(f.part, f.key) for f in found.mixed] == [("r0", "0000")]
    assert [tuple(row.values()) for row in found.pairs.to_pylist()] == [
        ("a", "r0"), ("b", "r1"), ("c", "r0"), ("d", "r1"),
    ]  # fmt: skip


def test_a_torn_file_of_labels_costs_no_question_about_other_tables(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    path = store.root / "labels" / "r1" / "shard-0.parquet"
    path.write_bytes(path.read_bytes()[:100])
    assert list(query.ask(store, "SELECT count(*) AS n FROM segments").rows()) == [{"n": 5}]
    with pytest.raises(StoreError, match=r"table labels does not read .*store verify"):
        list(query.ask(store, "SELECT count(*) FROM labels").rows())


class Opened(fs.FileSystemHandler):
    """The local disk, counting how often each file is opened."""

    def __init__(self) -> None:
        self.disk = fs.LocalFileSystem()
        self.opened: Counter[str] = Counter()

    def open_input_file(self, path: str) -> Any:
        self.opened[path] += 1
        return self.disk.open_input_file(path)

    def open_input_stream(self, path: str) -> Any:
        self.opened[path] += 1
        return self.disk.open_input_stream(path)

    def get_file_info(self, paths: list[str]) -> Any:
        return self.disk.get_file_info(paths)

    def get_file_info_selector(self, selector: fs.FileSelector) -> Any:
        return self.disk.get_file_info(selector)

    def get_type_name(self) -> str:
        return "counted"

    def normalize_path(self, path: str) -> str:
        return path

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def _no(self, *_: Any) -> Any:
        raise OSError("a question writes nothing")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _no
    delete_file = move = copy_file = open_output_stream = open_append_stream = _no


def test_a_summary_reads_no_table_again_for_each_question(
    tmp_path: Path, label: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_store(tmp_path)
    store = put(tmp_path, label, [([{f"w{n}"}], 10 + n) for n in range(12)], [])
    handler, listed, files = Opened(), Counter[str](), Store.files
    monkeypatch.setattr(store, "filesystem", fs.PyFileSystem(handler))

    def counted(self: Store, table: str) -> list[StoredFile]:
        listed[table] += 1
        return files(self, table)

    monkeypatch.setattr(Store, "files", counted)
    for _ in range(3):
        listed.clear()
        handler.opened.clear()
        told: list[dict[str, Any]] = []
        # Once in a hundred times DuckDB and Arrow's threads waited for one another over a file
        # system that is written in Python, as no store's is; a thread of its own can be left.
        asking = Thread(target=lambda told=told: told.append(summary(store)), daemon=True)
        asking.start()
        asking.join(60)
        if not asking.is_alive():
            break
    assert told[0]["labels"] == 12 * 2 + 5
    assert set(listed.values()) == {1}
    opened = Counter[str]()
    for path, times in handler.opened.items():
        table, *rest = Path(path).relative_to(tmp_path).parts
        opened[table] = max(opened[table], times)
        if table == "labels":  # only of the last two runs is every label looked at
            assert times <= (8 if rest[0] in ("r10", "r11") else 5), path
    assert opened["predictions"] <= 3  # for the language models lack, which no run here counted
    assert opened["reviews"] <= 5  # as often as labels, over which they stand
    assert opened["videos"] <= 6  # each kind of what is not labelled names its videos
    assert opened["segments"] <= 2
    assert opened["runs"] <= 3
    assert not opened["embeddings"] + opened["transcripts"] + opened["faces"] + opened["attempts"]


def rotten(folder: Path, segments: list[dict[str, Any]], group: int) -> TableFiles:
    """A compacted file of row groups of one size; the texts of the first and third do not read."""
    path = folder / "part-00000001-0123abcd.parquet"
    table = table_from_rows("segments", segments)
    pq.write_table(table, path, row_group_size=group, compression="none", write_page_checksum=True)
    content = bytearray(path.read_bytes())
    for word in (b"word 0", b"word 2"):
        content[content.index(word)] ^= 1  # whoever reads this page is told
    path.write_bytes(content)
    file = StoredFile(str(path), "segments", "", path.name, None, len(content))
    return TableFiles.of("segments", [file], fs.LocalFileSystem())


def test_row_groups_a_filter_rules_out_are_not_read(tmp_path: Path) -> None:
    """Also where the filter is on a column that comes as a dictionary."""
    store = small_store(tmp_path / "store")
    rows = pq.read_table(store.root / "segments" / "v01.parquet").to_pylist()
    many = [
        {**rows[0], "video_id": f"v{v}", "segment_id": f"v{v}-{i}", "index": i, "text": f"word {v}"}
        for v in range(4) for i in range(50)
    ]  # fmt: skip
    with duckdb.connect() as connection:
        connection.register("rotten", rotten(tmp_path, many, group=50))
        for video in ("v1", "v3"):
            sql = f"SELECT max(text) FROM rotten WHERE video_id = '{video}'"
            assert connection.sql(sql).fetchall() == [(f"word {video[1]}",)]
        with pytest.raises(duckdb.Error, match="CRC checksum"):
            connection.sql("SELECT max(text) FROM rotten").fetchall()
        with pytest.raises(duckdb.Error, match="CRC checksum"):
            connection.sql("SELECT max(text) FROM rotten WHERE video_id = 'v2'").fetchall()


def test_row_groups_that_statistics_leave_are_read_if_they_hold_what_is_asked(
    tmp_path: Path,
) -> None:
    """Hashes as ids: every row group ranges from the lowest to the highest."""
    store = small_store(tmp_path / "store")
    [row, *_] = pq.read_table(store.root / "segments" / "v01.parquet").to_pylist()
    many = [
        {**row, "video_id": v, "segment_id": f"{v}-{g}-{i}", "index": i, "text": f"word {g}"}
        for g in range(3)
        for v in ("a", f"m{g}", "z")
        for i in range(1 if v == f"m{g}" else 100)
    ]
    with duckdb.connect() as connection:
        connection.register("rotten", rotten(tmp_path, many, group=201))
        ask = "SELECT max(text), count(*) FROM rotten WHERE video_id = '{}'"
        assert connection.sql(ask.format("m1")).fetchall() == [("word 1", 1)]
        assert connection.sql(ask.format("b")).fetchall() == [(None, 0)]
        for held_by_a_rotten_one in ("m0", "m2", "a"):
            with pytest.raises(duckdb.Error, match="CRC checksum"):
                connection.sql(ask.format(held_by_a_rotten_one)).fetchall()


def test_dictionaries_are_plain_text_to_whoever_asks(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    for view, table in (("label_history", "labels"), ("predictions", "predictions")):
        asked = query.ask(store, f"FROM {view}").schema
        for field in TABLES[table].schema:
            if field.type == "string":
                assert str(asked.field(field.name).type) in ("string", "large_string")
