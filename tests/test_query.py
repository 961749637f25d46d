"""Views over a store, the lock on them, and the shipped queries."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.conftest import REPO
from tests.small_store import (
    AUDIO,
    FACE,
    FAILED,
    SEGMENTS,
    TEXT,
    review,
    run_row,
    segment_id,
    small_store,
)
from vsa_core import query
from vsa_core.errors import StoreError, UsageError
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return small_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture
def store(made: Store, tmp_path: Path) -> Store:
    """A copy that a test may change."""
    return Store(shutil.copytree(made.root, tmp_path / "store"))


def rows(store: Store, sql: str, **params: Any) -> list[dict[str, Any]]:
    return list(query.ask(store, sql, params).rows())


def one(store: Store, sql: str, **params: Any) -> Any:
    [row] = rows(store, sql, **params)
    return next(iter(row.values()))


def shipped(store: Store, name: str, **params: str) -> list[dict[str, Any]]:
    found = query.shipped_query(name)
    return list(query.ask(store, found.sql, {**found.defaults, **params}).rows())


class TestViews:
    def test_every_table_has_its_view(self) -> None:
        assert query.VIEWS.keys() == {*TABLES, "label_history", "current_runs"}

    def test_every_view_has_the_columns_of_its_table(self, made: Store) -> None:
        for view in query.VIEWS.keys() - {"current_runs"}:
            table = "labels" if view == "label_history" else view
            assert query.ask(made, f"FROM {view}").schema.names == TABLES[table].schema.names

    def test_current_runs_are_those_of_the_labels(self, made: Store) -> None:
        found = rows(made, "FROM current_runs ORDER BY ALL")
        assert found == rows(made, "SELECT DISTINCT video_id, run_id FROM labels ORDER BY ALL")
        assert found
        known = query.look(made, lambda ask: ask("FROM current_runs ORDER BY ALL"))
        assert known == found

    def test_an_empty_store_has_every_column_and_no_row(self, tmp_path: Path) -> None:
        for view in query.VIEWS:
            answer = query.ask(Store(tmp_path), f"FROM {view}")
            assert "video_id" in answer.schema.names or view in ("runs", "promotions")
            assert list(answer.rows()) == []

    def test_the_latest_finished_run_is_current(self, made: Store) -> None:
        assert rows(made, "SELECT DISTINCT run_id FROM labels") == [{"run_id": "r2"}]
        assert one(made, "SELECT count(*) FROM labels") == sum(map(len, SEGMENTS.values()))

    def test_history_holds_every_run_and_no_review(self, made: Store) -> None:
        found = rows(made, "SELECT DISTINCT run_id FROM label_history ORDER BY 1")
        assert [row["run_id"] for row in found] == ["r1", "r2", "r3"]
        assert one(made, "SELECT count(*) FROM label_history WHERE origin = 'human'") == 0

    def test_a_run_carried_out_again_is_the_latest(self, store: Store) -> None:
        store.commit("runs", "r1", table_from_rows("runs", [run_row("r1", day=9)]), "f")
        assert rows(store, "SELECT DISTINCT run_id FROM labels") == [{"run_id": "r1"}]

    def test_segments_an_older_run_cut_differently_are_gone(self, store: Store) -> None:
        label = rows(store, "FROM label_history WHERE run_id = 'r1' AND video_id = 'v02'")[0]
        label |= {"segment_id": "v02-0-9999", "end_ms": 9999}
        store.commit("labels", "old", table_from_rows("labels", [label]), "f", part="r1")
        assert one(store, "SELECT count(*) FROM labels WHERE video_id = 'v02'") == 1
        assert one(store, "SELECT count(*) FROM label_history WHERE video_id = 'v02'") == 4

    def test_a_video_only_an_older_run_labelled_keeps_its_labels(self, store: Store) -> None:
        kept = rows(store, "FROM label_history WHERE run_id = 'r2' AND video_id <> 'v02'")
        store.commit("labels", "shard-0", table_from_rows("labels", kept), "f", part="r2")
        found = rows(store, "SELECT DISTINCT video_id, run_id FROM labels ORDER BY 1")
        assert [row["run_id"] for row in found] == ["r2", "r1", "r2"]

    def test_human_wins_and_an_older_word_stays_where_the_newer_has_none(self, made: Store) -> None:
        [label] = rows(made, "FROM labels WHERE segment_id = $id", id=segment_id("v01", 4_000))
        assert (label["sentiment"], label["emotion"]) == ("negative", "fear")
        assert label["origin"] == "human"
        assert label["confidence"] is None
        assert label["sentiment_probs"] == pytest.approx([0.2, 0.6, 0.2])
        assert one(made, "SELECT count(*) FROM labels WHERE origin = 'human'") == 1

    def test_the_latest_review_wins(self, store: Store) -> None:
        late = [review("p0", "v01", 4_000, 8, "positive", None)]
        store.commit("reviews", "b0", table_from_rows("reviews", late), "f")
        [label] = rows(store, "FROM labels WHERE segment_id = $id", id=segment_id("v01", 4_000))
        assert (label["sentiment"], label["emotion"]) == ("positive", "fear")

    def test_a_review_of_the_emotion_alone_leaves_the_sentiments_confidence(
        self, store: Store
    ) -> None:
        late = [review("p9", "v02", 1_000, 8, None, "anger")]
        store.commit("reviews", "b9", table_from_rows("reviews", late), "f")
        [label] = rows(store, "FROM labels WHERE video_id = 'v02'")
        assert (label["sentiment"], label["emotion"]) == ("negative", "anger")
        assert label["origin"] == "human"
        assert label["confidence"] == pytest.approx(0.75)
        assert label["emotion_confidence"] is None
        late = [review("p8", "v01", 0, 8, "neutral", None)]
        store.commit("reviews", "b8", table_from_rows("reviews", late), "f")
        [label] = rows(store, "FROM labels WHERE segment_id = $id", id=segment_id("v01", 0))
        assert (label["confidence"], label["emotion_confidence"]) == (None, 1)

    def test_compacted_rows_with_a_newer_file_do_not_count(self, store: Store) -> None:
        before = {v: rows(store, f"FROM {v} ORDER BY ALL") for v in ("videos", "predictions")}
        store.compact()
        assert all(rows(store, f"FROM {v} ORDER BY ALL") == before[v] for v in before)
        [video] = rows(store, "FROM videos WHERE video_id = 'v01'")
        changed = table_from_rows("videos", [{**video, "title": "New"}])
        store.commit("videos", "v01", changed, "g")
        assert one(store, "SELECT count(*) FROM videos") == 4
        assert one(store, "SELECT title FROM videos WHERE video_id = 'v01'") == "New"

    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT table_name FROM information_schema.tables",
            "SELECT view_name FROM duckdb_views() JOIN runs ON true WHERE NOT internal",
            "SHOW TABLES",
        ],
    )
    def test_every_view_is_listed(self, store: Store, sql: str) -> None:
        assert {next(iter(row.values())) for row in rows(store, sql)} >= query.VIEWS.keys()

    def test_a_pivot_is_answered(self, made: Store) -> None:
        found = rows(made, "PIVOT labels ON sentiment USING count(*) GROUP BY video_id")
        assert {row["video_id"] for row in found} == set(SEGMENTS)

    def test_files_swapped_while_reading_are_listed_anew(
        self, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = query.open_views
        swapped = []

        def slow(*args: Any) -> None:
            opened(*args)
            if not swapped:
                swapped.append(store.compact())

        monkeypatch.setattr(query, "open_views", slow)
        assert one(store, "SELECT count(*) FROM segments") == 5
        assert swapped

    def test_a_torn_file_is_named_in_one_line(self, store: Store) -> None:
        path = store.root / "segments" / "v01.parquet"
        path.write_bytes(path.read_bytes()[:100])
        for sql in ("FROM segments", "SELECT count(*) FROM segments"):
            with pytest.raises(StoreError, match=r"table segments .*v01.* store verify"):
                rows(store, sql)

    def test_a_page_that_rotted_is_noticed(self, store: Store) -> None:
        path = store.root / "segments" / "v01.parquet"
        content = bytearray(path.read_bytes())
        at = content.index(b"v01")  # a value in a page, not in the footer
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(StoreError, match="table segments"):
            rows(store, "FROM segments")

    def test_a_store_with_an_odd_name(self, made: Store, tmp_path: Path) -> None:
        copied = Store(shutil.copytree(made.root, tmp_path / 'it\'s a "störe" 😀 #1 %20'))
        assert one(copied, "SELECT count(*) FROM videos") == 4


class TestBefore:
    """Statements whose columns are parameters of those behind them."""

    def test_a_column_is_a_parameter_of_what_follows(self, made: Store) -> None:
        sql = """
            SELECT max(confidence) AS most FROM labels WHERE sentiment = $said;
            SELECT count(*) AS n FROM labels WHERE confidence = $most;
            SELECT $n::INT AS n, $most AS most
        """
        [found] = rows(made, sql, said="positive")
        assert found["n"] == 1  # 0.8 of a float32 is found again as it is
        assert found["most"] == pytest.approx(0.8)

    def test_no_row_is_null(self, made: Store) -> None:
        sql = "SELECT video_id AS v FROM videos WHERE title = 'nope'; SELECT $v::VARCHAR AS v"
        assert rows(made, sql) == [{"v": None}]

    def test_only_one_row_can_stand_for_a_value(self, made: Store) -> None:
        endless = "SELECT range AS n FROM range(1_000_000_000_000)"
        with pytest.raises(UsageError, match=f"{re.escape(endless)} gives more than one row"):
            rows(made, f"{endless};\nSELECT $n")

    def test_a_value_that_is_given_is_not_replaced(self, made: Store) -> None:
        with pytest.raises(UsageError, match=r"\$n is given"):
            rows(made, "SELECT 1 AS n; SELECT $n", n=2)

    def test_what_neither_gives_is_missing(self, made: Store) -> None:
        with pytest.raises(UsageError, match=r"value for \$n: --param n=VALUE"):
            rows(made, "SELECT 1 AS m; SELECT $n")


class TestLock:
    """Nothing but the views can be read, and nothing written."""

    @pytest.mark.parametrize(
        "sql",
        [
            "COPY videos TO '{dir}/out.csv'",
            "COPY (SELECT 1) TO '{victim}' (use_tmp_file false)",
            "ATTACH '{dir}/x.db'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "RESET lock_configuration",
            "PRAGMA enable_external_access = true",
            "PRAGMA database_list",
            "CREATE TABLE a AS SELECT 1",
            "DROP VIEW labels",
            "DELETE FROM labels",
            "INSERT INTO labels SELECT * FROM labels",
            "UPDATE labels SET text = ''",
            "EXPORT DATABASE '{dir}/out'",
            "CALL enable_logging(storage = 'file', storage_config = {{'path': '{dir}/log'}})",
            "VACUUM",
            "SELECT 1; COPY videos TO '{dir}/out.csv'",
            "",
            "-- nothing",
        ],
    )
    def test_other_statements_are_refused_before_they_run(self, made: Store, sql: str) -> None:
        self.refused(made, sql, UsageError)

    @pytest.mark.parametrize(
        "sql",
        [
            "FROM '{secret}'",
            "FROM read_csv('{secret}')",
            "FROM read_text('{secret}')",
            "FROM read_blob('{secret}')",
            "FROM glob('{dir}/*')",
            "FROM sniff_csv('{secret}')",
            "FROM read_parquet('{victim}')",
            "FROM parquet_metadata('{victim}')",
            "FROM 'http://127.0.0.1:9/x.csv'",
            "WITH x AS (COPY (SELECT 1) TO '{victim}' (use_tmp_file false)) FROM x",
            "WITH x AS (COPY (SELECT 1) TO '{dir}/out.csv' (use_tmp_file false)) FROM x",
            "WITH x AS (DELETE FROM labels RETURNING *) FROM x",
            "WITH x AS (INSERT INTO videos SELECT * FROM videos RETURNING *) FROM x",
            "FROM query('COPY videos TO ''{dir}/out.csv''')",
            "FROM enable_logging(storage = 'file', storage_config = {{'path': '{dir}/log'}})",
            "EXPLAIN ANALYZE COPY videos TO '{dir}/out.csv'",
            "FROM sql",  # a Python variable of the caller
        ],
    )
    def test_a_select_reaches_no_file_and_changes_none(self, made: Store, sql: str) -> None:
        self.refused(made, sql, (UsageError, StoreError))

    def refused(self, store: Store, sql: str, error: Any) -> None:
        folder = store.root.parent
        secret = folder / "secret.csv"
        secret.write_text("a,b\n1,2\n")
        victim = store.root / "segments" / "v01.parquet"

        def everything() -> dict[Path, bytes]:
            return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

        before = everything()
        with pytest.raises(error) as caught:
            rows(store, sql.format(dir=folder, secret=secret, victim=victim))
        assert "\n" not in str(caught.value)
        assert everything() == before

    def test_a_big_sort_spills_nothing_into_the_current_folder(
        self, made: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        folder = one(made, "SELECT current_setting('temp_directory')")
        assert Path(folder).is_absolute()
        assert list(tmp_path.iterdir()) == []


class TestAsk:
    @pytest.mark.parametrize(
        "sql",
        [
            "VALUES (1)",
            "TABLE videos",
            "DESCRIBE labels",
            "SUMMARIZE runs",
            "SHOW TABLES",
            "EXPLAIN SELECT 1",
            "PIVOT labels ON sentiment USING count(*)",
            "WITH a AS (SELECT 1 AS x) SELECT x FROM a;",
        ],
    )
    def test_whatever_only_reads_is_answered(self, made: Store, sql: str) -> None:
        assert rows(made, sql)

    @pytest.mark.parametrize(
        "sql", ["SELEC 1", "SELECT nope FROM labels", "FROM nope", "SELECT 'x", "SELECT 'x'::INT"]
    )
    def test_wrong_sql_is_one_line_that_names_the_views(self, made: Store, sql: str) -> None:
        with pytest.raises(UsageError, match="label_history") as caught:
            rows(made, sql)
        assert "\n" not in str(caught.value)

    def test_parameters_are_checked(self, made: Store) -> None:
        assert one(made, "SELECT count(*) FROM videos WHERE video_id = $v", v="v01") == 1
        assert one(made, "SELECT count(*) FROM videos WHERE video_id = $v", v="' OR ''='") == 0
        with pytest.raises(UsageError, match=r"\$w"):
            rows(made, "SELECT $v", v=1, w=2)
        with pytest.raises(UsageError, match="--param v=VALUE"):
            rows(made, "SELECT $v")

    def test_times_are_utc(self, made: Store) -> None:
        found = one(made, "SELECT published_at::VARCHAR FROM videos WHERE video_id = 'v01'")
        assert found == "2026-01-01 12:00:00+00"

    def test_names_that_repeat_are_numbered(self, made: Store) -> None:
        found = rows(made, "SELECT 1 AS a, 2 AS a, 3 AS b, 4 AS a")
        assert found == [{"a": 1, "a_1": 2, "b": 3, "a_2": 4}]

    def test_rows_are_streamed(self, made: Store) -> None:
        answer = query.ask(made, "SELECT range AS n FROM range(1_000_000_000)")
        assert next(answer.rows()) == {"n": 0}


class TestShipped:
    def test_all_say_what_they_are_and_run_with_their_defaults(self, made: Store) -> None:
        found = query.shipped()
        assert {q.name for q in found} >= {
            "sentiment_over_time",
            "by_channel_and_week",
            "most_negative",
            "face_text_disagree",
            "coverage",
        }
        for shipped_query in found:
            assert shipped_query.description
            assert shipped(made, shipped_query.name)

    def test_all_run_on_an_empty_store(self, tmp_path: Path) -> None:
        for shipped_query in query.shipped():
            shipped(Store(tmp_path), shipped_query.name)

    def test_an_unknown_name_lists_those_there_are(self) -> None:
        with pytest.raises(UsageError, match="most_negative"):
            query.shipped_query("../profiles/embedded")

    def test_sentiment_over_time(self, made: Store) -> None:
        found = shipped(made, "sentiment_over_time")
        assert {row["title"] for row in found} == {"Video 1"}
        assert [row["at"] for row in found] == ["0:00", "0:04", "1:05"]
        assert [row["score"] for row in found] == pytest.approx([0.75, -1.0, -0.65])
        assert found[1]["running_mean"] == pytest.approx((0.75 - 1 - 0.65) / 3)
        assert [r["at"] for r in shipped(made, "sentiment_over_time", video="Video 2")] == ["0:01"]
        assert shipped(made, "sentiment_over_time", video="v02")[0]["title"] == "Video 2"
        assert shipped(made, "sentiment_over_time", video="nope") == []

    def test_by_channel_and_week(self, made: Store) -> None:
        phones, unknown = shipped(made, "by_channel_and_week")
        assert (phones["channel"], str(phones["week"])) == ("Phones", "2025-12-29")
        assert (phones["videos"], phones["segments"]) == (2, 4)
        assert (phones["negative"], phones["neutral"], phones["positive"]) == (0.75, 0, 0.25)
        assert phones["net"] == -0.5
        assert (unknown["channel"], unknown["week"], unknown["negative"]) == (None, None, None)

    def test_most_negative(self, made: Store) -> None:
        found = shipped(made, "most_negative")
        assert [row["text"] for row in found] == [
            "it is a phone",  # a human said so
            "oh great, it broke",
            SEGMENTS["v02"][0][1],
        ]
        assert [row["negative"] for row in found] == pytest.approx([1, 0.75, 0.75])
        assert [row["link"] for row in found] == [
            "https://video.example/watch?v=1&t=4",
            "https://video.example/watch?v=1&t=65",
            "https://video.example/2?t=1",
        ]
        assert len(shipped(made, "most_negative", limit="1")) == 1

    def test_face_text_disagree(self, made: Store) -> None:
        found = shipped(made, "face_text_disagree")
        assert [row["distance"] for row in found] == pytest.approx([0.7, 0.6, 0.0])
        assert found[0]["segment_id"] == segment_id("v01", 65_000)
        assert (found[0]["face_vote"], found[0]["text_vote"]) == ("negative", "positive")

    def test_coverage(self, made: Store) -> None:
        found = shipped(made, "coverage")
        assert [row["level"] for row in found] == ["all", "channel", "channel", *["video"] * 4]
        everything = found[0]
        assert (everything["videos"], everything["videos_failed"]) == (4, 1)
        assert everything["segments"] == 5
        assert everything["with_text"] == pytest.approx(4 / 5)
        assert everything["with_face"] == pytest.approx(3 / 5)
        assert everything["with_audio"] == 1
        assert [everything[a] for a in ("agree", "disagree", "single", "absent")] == pytest.approx(
            [1 / 5, 2 / 5, 1 / 5, 1 / 5]
        )
        assert [
            everything[o]
            for o in ("by_consensus", "by_fusion", "by_single", "by_human", "unlabelled")
        ] == pytest.approx([1 / 5] * 5)
        [failed] = [row for row in found if row["video_id"] == FAILED]
        assert (failed["segments"], failed["videos_failed"], failed["with_text"]) == (0, 1, None)
        assert failed["title"] == "Video 4"


def test_a_store_is_asked_by_where_it_lies(made: Store, tmp_path: Path) -> None:
    counted = "SELECT count(*) AS n FROM segments"
    for where in (made.root, str(made.root)):
        assert query.ask(where, counted).table() == query.ask(made, counted).table()
    with pytest.raises(UsageError, match=r"no store at .*none: `vsa run SOURCE --store"):
        query.ask(tmp_path / "none", counted)


def test_the_parquet_answers_plain_duckdb_alike(made: Store) -> None:
    """The store stays readable without code of ours."""
    sql = "SELECT segment_id, sentiment, sentiment_probs[3] FROM {} ORDER BY run_id, segment_id"
    plain = duckdb.sql(sql.format(f"read_parquet('{made.root}/labels/**/*.parquet')")).fetchall()
    ours = [tuple(row.values()) for row in rows(made, sql.format("label_history"))]
    assert [row[:2] for row in ours] == [row[:2] for row in plain]
    assert [row[2] for row in ours] == pytest.approx([row[2] for row in plain], nan_ok=True)
    assert {TEXT, FACE, AUDIO} == {r["backend"] for r in rows(made, "FROM predictions")}


def test_the_document_of_the_tables_is_up_to_date() -> None:
    script = runpy.run_path(str(REPO / "scripts" / "make_tables_doc.py"))
    assert (REPO / "docs" / "tables.md").read_text(encoding="utf-8") == script["document"](), (
        "run python scripts/make_tables_doc.py"
    )
    for spec in TABLES.values():
        for field in spec.schema:
            assert f"| `{field.name}` |" in script["document"]()
            assert (field.metadata or {}).get(b"doc"), f"{spec.name}.{field.name} says nothing"
