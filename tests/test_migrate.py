"""Stores that an older vsa wrote, brought up to date: real files with the schemas of then."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.small_store import FACE, JOY, TEXT, segment_id, small_store
from vsa_core.cli import main
from vsa_core.errors import StoreError
from vsa_core.migrate import STEPS, check, converted, made_anew, migrate
from vsa_core.predict import made_from_rows
from vsa_core.schemas import EMOTION_PROBS, TABLES, table_from_rows
from vsa_core.store import Store
from vsa_core.verify import verify

# The columns of version 1, as its files have them.
VERSION_1 = {
    "videos": (
        "video_id status note channel_id channel source_url title published_at duration_ms "
        "language media_path media_bytes media_mtime_ns captions_kind sha256 width height fps "
        "has_video has_audio"
    ),
    "transcripts": "video_id index start_ms end_ms text words text_source language",
    "segments": (
        "video_id segment_id index start_ms end_ms text text_source language"
    ),
    "predictions": (
        "video_id segment_id modality backend status sentiment_probs emotion_probs note"
    ),
    "faces": (
        "video_id backend time_ms track x_px y_px width_px height_px score emotion_probs"
    ),
    "labels": (
        "run_id video_id segment_id channel_id title published_at start_ms end_ms text "
        "text_source sentiment emotion sentiment_probs emotion_probs confidence origin agreement "
        "text_vote face_vote audio_vote text_attention face_attention audio_attention backends "
        "model_id config_id"
    ),
}  # fmt: skip


def age(store: Store) -> Store:
    """Put every file of a store back to how the first version wrote it."""
    for table, columns in VERSION_1.items():
        for path in (store.root / table).rglob("*.parquet"):
            new = pq.read_table(path, partitioning=None)
            old = new.select(columns.split())
            facts = {**new.schema.metadata, b"vsa.schema": f"{table}/1".encode()}
            if b"vsa.keys" in pq.read_metadata(path).metadata:
                facts[b"vsa.keys"] = pq.read_metadata(path).metadata[b"vsa.keys"]
                path.unlink()
                path = path.with_name("part-0123456789abcdef0123456789abcdef.parquet")
            pq.write_table(old.replace_schema_metadata(facts), path, compression="zstd")
    (store.root / "vsa-store.json").unlink(missing_ok=True)
    return Store(store.root)


def rows(store: Store, table: str) -> list[str]:
    """The rows of a table as text, without the columns that version 1 lacks, in one order."""
    columns = VERSION_1[table].split()
    found = (row for data in store.scan(table) for row in data.select(columns).to_pylist())
    return sorted(repr(row) for row in found)


def many(root: Path, videos: int) -> Store:
    """A store with so many copies of a video."""
    store = small_store(root)
    row = store.read(store.find("videos", "v01"))
    at = row.column_names.index("video_id")
    for i in range(videos):
        copied = row.set_column(at, row.schema.field(at), pa.array([f"w{i:05}"]))
        store.commit("videos", f"w{i:05}", copied, "f")
    return store


@pytest.fixture(params=["plain", "compacted"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    """(a store of now, the same as an older vsa wrote it)."""
    stores = small_store(tmp_path / "now"), small_store(tmp_path / "old")
    if request.param == "compacted":
        for store in stores:
            store.compact()
    return stores[0], age(stores[1])


def test_every_row_key_and_fingerprint_is_there_afterwards(
    before: tuple[Store, Store], capsys: pytest.CaptureFixture[str]
) -> None:
    now, old = before
    assert main(["store", "migrate", "--store", str(old.root)]) == 0
    out = capsys.readouterr().out
    assert "predictions/1 → predictions/3\n  a run looks again, because" in out
    assert f"videos/1 → {TABLES['videos'].tag}\n" in out
    old = Store(old.root)
    for table in VERSION_1:
        assert rows(old, table) == rows(now, table)
        for part in ["", *now.parts(table)]:
            assert old.refs(table, part) == now.refs(table, part)
    assert verify(old) == []
    assert main(["store", "migrate", "--store", str(old.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["migrated"] == {}


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_that_are_errors_stand_no_more(tmp_path: Path, compacted: bool) -> None:
    """As version 2 has them: under the fingerprint of rows without an error."""
    root, tagged = tmp_path / "store", TABLES["predictions"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(TABLES, "predictions", replace(tagged, version=2))
        store = small_store(root)
        ref = store.find("predictions", "v01", part=store.part_of(TEXT))
        data = store.read(ref).to_pylist()
        data[1].update(status="error", note="odd", sentiment_probs=None)
        store.commit("predictions", "v01", table_from_rows("predictions", data), "f", part=ref.part)
        if compacted:
            store.compact()
        before = store.refs("predictions", ref.part)
    store = Store(root)
    assert migrate(store) == {"predictions": ["predictions/2"]}
    after = Store(root).refs("predictions", ref.part)
    broken = after.pop("v01")
    assert broken.fingerprint == made_from_rows("f", data) != "f"
    assert after == {video: ref for video, ref in before.items() if video != "v01"}
    assert store.read(broken).to_pylist() == data
    assert verify(store) == []


def test_what_was_not_known_then_is_null(before: tuple[Store, Store]) -> None:
    _, old = before
    migrate(old)
    for table, columns in (
        ("videos", ["source_id", "view_count"]),
        ("transcripts", ["speaker"]),
        ("segments", ["speaker"]),
        ("predictions", ["people", "track", "speaks"]),
        ("faces", ["speaking"]),
        ("labels", ["language", "people"]),
    ):
        for data in Store(old.root).scan(table, columns=columns):
            assert all(column.null_count == len(column) for column in data.columns)


def test_how_far_face_and_text_are_apart_is_worked_out(before: tuple[Store, Store]) -> None:
    now, old = before
    seen = pa.concat_tables(now.scan("predictions", part=now.part_of(FACE))).to_pylist()
    [said] = [row for row in seen if row["segment_id"] == segment_id("v01", 65_000)]
    other = {**said, "backend": "face-old@0", "sentiment_probs": [0.0, 0.0, 1.0]}  # of no run
    odd = table_from_rows("predictions", [other])
    old.commit("predictions", "v01", odd, "f", part=old.part_of("face-old@0"))
    migrate(old)

    def apart(store: Store) -> dict[tuple[str, str], float | None]:
        found = pa.concat_tables(store.scan("labels")).to_pylist()
        return {(row["run_id"], row["segment_id"]): row["face_text_distance"] for row in found}

    assert apart(Store(old.root)) == pytest.approx(apart(now))
    assert sorted({d for d in apart(now).values() if d}) == pytest.approx([0.6, 0.7])
    assert None in apart(now).values()


def test_how_probable_an_emotion_was_is_read_from_its_probabilities(tmp_path: Path) -> None:
    torn = [0.1, 0.0, 0.0, 0.2, 0.65, 0.05, 0.0]
    columns = {
        "emotion": pa.array(["joy", None, "anger", None]),
        "emotion_probs": pa.array([JOY, None, torn, torn], EMOTION_PROBS),
        "confidence": pa.array([0.9, None, 0.5, 0.5], pa.float32()),
    }
    found = STEPS["labels", 3].convert(pa.table(columns), Store(tmp_path))
    assert found.column_names == ["emotion", "emotion_probs", "confidence", "emotion_confidence"]
    assert found["emotion_confidence"].type == pa.float32()
    assert found["emotion_confidence"].to_pylist() == [1, None, pytest.approx(0.1), None]


def test_a_run_whose_predictions_are_gone_has_no_distance(before: tuple[Store, Store]) -> None:
    _, old = before
    shutil.rmtree(old.root / "predictions" / old.part_of(FACE))
    migrate(old)
    for data in Store(old.root).scan("labels", columns=["face_text_distance"]):
        assert data["face_text_distance"].null_count == data.num_rows


def test_a_store_of_now_is_let_through_and_an_older_one_refused(
    before: tuple[Store, Store],
) -> None:
    now, old = before
    check(now)
    with pytest.raises(StoreError) as caught:
        check(old)
    assert "videos/1" in str(caught.value)
    assert f"run `vsa store migrate --store {old.root}`" in str(caught.value)
    migrate(old)
    check(Store(old.root))


def test_a_store_of_a_newer_vsa_is_refused(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    path = store.root / "videos" / "v01.parquet"
    data = pq.read_table(path)
    facts = {**data.schema.metadata, b"vsa.schema": b"videos/99"}
    pq.write_table(data.replace_schema_metadata(facts), path)
    (store.root / "vsa-store.json").unlink(missing_ok=True)
    with pytest.raises(StoreError, match="newer vsa"):
        check(Store(store.root))


KILLED = """
    import os, signal, sys
    from vsa_core.cli import main

    left, fsync = int(sys.argv[2]), os.fsync
    def killing(target):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(target)
    os.fsync = killing
    sys.exit(main(["store", "migrate", "--store", sys.argv[1]]))
"""


def test_killed_at_work_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    now, old = many(tmp_path / "now", 40), age(many(tmp_path / "old", 40))

    def migrated(syncs: int) -> tuple[int, int]:
        """(exit code, files of videos that are of the present version afterwards)."""
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(old.root), str(syncs)]
        done = subprocess.run(command, cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL)
        tags = [
            pq.read_metadata(file).metadata[b"vsa.schema"]
            for file in (old.root / "videos").glob("*.parquet")
        ]
        return done.returncode, tags.count(TABLES["videos"].tag.encode())

    reached = 0
    for syncs in (10, 25, 30):
        code, files = migrated(syncs)
        assert code == -signal.SIGKILL
        assert reached < files < 44
        reached = files
        with pytest.raises(StoreError, match="vsa store migrate"):
            check(Store(old.root))
    assert migrated(10_000) == (0, 44)
    store = Store(old.root)
    store.sweep()
    assert verify(store) == []
    assert store.refs("videos") == now.refs("videos")
    for table in VERSION_1:
        assert rows(store, table) == rows(now, table)


def test_a_file_that_is_not_of_its_version_stops_it_in_one_line(tmp_path: Path) -> None:
    store = age(small_store(tmp_path / "store"))
    path = store.root / "videos" / "v01.parquet"
    data = pq.read_table(path)
    pq.write_table(data.drop_columns(["has_audio"]), path)
    with pytest.raises(StoreError, match="has_audio"):
        migrate(store)


def test_every_version_of_every_table_has_a_way_to_the_present_one() -> None:
    for table, spec in TABLES.items():
        for version in range(1, spec.version):
            assert (table, version) in STEPS, f"vsa_core/migrate.py lacks a step: {table}/{version}"
    for table, version in STEPS:
        assert version < TABLES[table].version


def test_a_tag_nobody_wrote_is_refused(tmp_path: Path) -> None:
    nothing = pa.table({"video_id": pa.array([], pa.string())})
    for tag in ("videos/99", "moods/1", "videos", "videos/x"):
        with pytest.raises(StoreError):
            converted(Store(tmp_path), nothing, tag)


def test_it_says_which_rows_a_run_makes_anew() -> None:
    said = made_anew({"predictions": ["predictions/1"], "videos": ["videos/1"]})
    assert list(said) == ["predictions"]


def test_the_steps_are_those_of_real_files(tmp_path: Path) -> None:
    store = small_store(tmp_path / "store")
    cue = {"video_id": "v01", "index": 0, "start_ms": 0, "end_ms": 9, "text": "Hi.", "words": None}
    cue |= {"speaker": None, "text_source": "captions", "language": None}
    store.commit("transcripts", "v01", table_from_rows("transcripts", [cue]), "f")
    parts = {"predictions": store.part_of(TEXT), "faces": store.part_of(FACE), "labels": "r1"}
    for table, columns in VERSION_1.items():
        data = next(iter(store.scan(table, part=parts.get(table))))
        old = data.select(columns.split()).replace_schema_metadata(None)
        assert converted(store, old, f"{table}/1").schema.names == TABLES[table].schema.names
