"""The store's guarantees on a disk: checked, atomic, found again, verified, compacted."""

from __future__ import annotations

import errno
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPO
from tests.store.rows import prediction, segment_rows, segments
from vsa_core.errors import StoreError
from vsa_core.query import ask
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store
from vsa_core.verify import verify


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_committed_is_read_back(store: Store) -> None:
    ref = store.commit("segments", "v1", segments("v1"), "abc")
    assert store.read(ref).to_pylist() == segment_rows("v1")
    assert store.find("segments", "v1") == ref
    assert store.fresh("segments", "v1", "abc") == ref
    assert store.fresh("segments", "v1", "other") is None
    assert store.find("segments", "v2") is None
    assert verify(store) == []


def test_a_commit_replaces_the_rows_of_its_key_only(store: Store) -> None:
    store.commit("segments", "v1", segments("v1"), "a")
    store.commit("segments", "v2", segments("v2"), "a")
    store.commit("segments", "v1", segments("v1", 1, "new"), "b")
    texts = [row["text"] for table in store.scan("segments") for row in table.to_pylist()]
    assert texts == ["new 0", "words 0", "words 1", "words 2"]


def test_plain_duckdb_reads_the_files(store: Store) -> None:
    store.commit("segments", "v1", segments("v1"), "a")
    store.commit("segments", "v2", segments("v2"), "a")
    glob = f"{store.root}/segments/**/*.parquet"
    assert duckdb.sql(f"select count(*) from read_parquet('{glob}')").fetchall() == [(6,)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop_columns(["text"]), "missing ['text']"),
        (lambda t: t.append_column("mood", pa.array(["x"] * 3)), "unknown ['mood']"),
        (lambda t: t.select(t.column_names[::-1]), "order differs"),
        (
            lambda t: t.set_column(3, "start_ms", pa.array(["0", "1", "2"])),
            "start_ms is string, not int64",
        ),
        (
            lambda t: t.set_column(5, "text", pa.array(["a", None, "b"])),
            "column text has 1 nulls",
        ),
        (lambda t: pa.concat_tables([t, t]), "segment_id repeats"),
    ],
)
def test_a_table_that_is_not_the_schemas_is_refused(store: Store, change, said: str) -> None:
    with pytest.raises(StoreError) as caught:
        store.commit("segments", "v1", change(segments("v1")), "a")
    assert said in str(caught.value)
    assert store.find("segments", "v1") is None


@pytest.mark.parametrize("probs", [[0.5, 0.5, 0.5], [1.2, -0.2, 0.0], [float("nan")] * 3])
def test_probabilities_must_be_probabilities(store: Store, probs: list[float]) -> None:
    row = {
        "video_id": "v1",
        "segment_id": "v1-0-900",
        "modality": "text",
        "backend": "x@1",
        "status": "ok",
        "sentiment_probs": probs,
        "emotion_probs": None,
        "people": None,
        "track": None,
        "speaks": None,
        "note": None,
    }
    with pytest.raises(StoreError, match="no probabilities"):
        store.commit("predictions", "v1", table_from_rows("predictions", [row]), "a", part="x-1")


def test_rows_must_name_every_column_and_no_other() -> None:
    row = segment_rows("v1", 1)[0]
    with pytest.raises(StoreError, match=r"missing columns \['text'\], unknown \['txt'\]"):
        table_from_rows("segments", [{**{k: v for k, v in row.items() if k != "text"}, "txt": ""}])


@pytest.mark.parametrize("key", ["../x", "", "a/b", "part-1", ".hidden"])
def test_a_key_cannot_leave_the_folder(store: Store, key: str) -> None:
    with pytest.raises(StoreError):
        store.commit("segments", key, segments("v1"), "a")


def test_a_full_disk_costs_only_the_write_in_hand(store: Store, monkeypatch) -> None:
    store.commit("segments", "v1", segments("v1"), "a")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("vsa_core.store.disk.os.fsync", full)
        with pytest.raises(StoreError, match=r"no space left in .* free some and run"):
            store.commit("segments", "v1", segments("v1", 1, "new"), "b")
    assert store.read(store.find("segments", "v1")).num_rows == 3
    assert not list((store.root / ".tmp").iterdir())
    assert verify(store) == []


def test_a_killed_writer_leaves_the_old_rows_and_an_orphan_that_is_swept(store: Store) -> None:
    ref = store.commit("segments", "v1", segments("v1"), "a")
    program = f"""
        import os, signal
        from vsa_core.store import Store
        os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        from tests.store.rows import segments
        Store({str(store.root)!r}).commit("segments", "v1", segments("v1", 1), "b")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], cwd=REPO)
    assert done.returncode == -9
    assert store.find("segments", "v1") == ref
    (problem,) = verify(store)
    assert "left by a killed writer" in problem
    store.sweep()
    assert verify(store) == []


def test_sweeping_spares_a_write_in_progress(store: Store) -> None:
    def write(target: BinaryIO) -> None:
        target.write(b"half")
        store.sweep()
        target.write(b" and half")

    store._place.put("models/m/file", write)
    assert (store.root / "models" / "m" / "file").read_bytes() == b"half and half"


def test_a_torn_file_is_found_named_and_written_anew(store: Store) -> None:
    store.commit("segments", "v1", segments("v1"), "a")
    path = store.root / "segments" / "v1.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert store.find("segments", "v1") is None
    (problem,) = verify(store)
    assert str(path) in problem
    store.commit("segments", "v1", segments("v1"), "a")
    assert verify(store) == []


def test_a_flipped_bit_inside_a_page_is_found(store: Store) -> None:
    store.commit("segments", "v1", segments("v1", 400, "some words to fill a page"), "a")
    path = store.root / "segments" / "v1.parquet"
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(5)
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 0x10
    path.write_bytes(data)
    (problem,) = verify(store)
    assert str(path) in problem
    with pytest.raises(StoreError, match="does not read"):
        store.read(store.find("segments", "v1"))


def test_predictions_without_segments_or_embeddings_are_reported(store: Store) -> None:
    row = {
        "video_id": "v1",
        "segment_id": "v1-0-900",
        "modality": "text",
        "backend": "x@1",
        "status": "ok",
        "sentiment_probs": [0.2, 0.3, 0.5],
        "emotion_probs": None,
        "people": None,
        "track": None,
        "speaks": None,
        "note": None,
    }
    store.commit("predictions", "v1", table_from_rows("predictions", [row]), "a", part="x-1")
    problems = "\n".join(verify(store))
    assert "1 rows of segments that are gone" in problems
    assert "1 predictions have no embedding" in problems


def test_compaction_keeps_every_row_ref_and_fingerprint(store: Store) -> None:
    videos = [f"v{i}" for i in range(5)]
    for video in videos:
        store.commit("segments", video, segments(video), f"f-{video}")
    before = {v: store.read(store.find("segments", v)).to_pylist() for v in videos}
    assert store.compact()["segments"] == (5, 1)
    assert len(list((store.root / "segments").iterdir())) == 1
    for video in videos:
        ref = store.fresh("segments", video, f"f-{video}")
        assert ref is not None
        assert ref.rows == 3
        assert store.read(ref).to_pylist() == before[video]
    assert store.keys("segments") == videos
    assert sum(t.num_rows for t in store.scan("segments", keys=["v1", "v3"])) == 6
    assert verify(store) == []


def test_a_video_committed_after_compaction_supersedes_its_compacted_rows(store: Store) -> None:
    for video in ("v1", "v2"):
        store.commit("segments", video, segments(video), "a")
    store.compact()
    store.commit("segments", "v1", segments("v1", 1, "new"), "b")
    rows = [row for table in store.scan("segments") for row in table.to_pylist()]
    assert sorted(row["text"] for row in rows) == ["new 0", "words 0", "words 1", "words 2"]
    assert verify(store) == []
    store.commit("segments", "v3", segments("v3"), "a")
    assert store.compact()["segments"] == (3, 1)
    assert sorted(
        r["text"] for t in store.scan("segments", keys=["v1"]) for r in t.to_pylist()
    ) == ["new 0"]
    glob = f"{store.root}/segments/**/*.parquet"
    assert duckdb.sql(f"select count(*) from read_parquet('{glob}')").fetchall() == [(7,)]


def test_a_compaction_killed_before_its_swap_changes_nothing_for_a_reader(
    store: Store, monkeypatch
) -> None:
    for video in ("v1", "v2"):
        store.commit("segments", video, segments(video), "a")

    unlink = Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.name == "v1.parquet":
            raise KeyboardInterrupt
        unlink(self, missing_ok=missing_ok)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            store.compact()
    assert sum(t.num_rows for t in store.scan("segments")) == 6
    assert verify(store) == []
    store.compact()
    assert sum(t.num_rows for t in Store(store.root).scan("segments")) == 6


def test_two_processes_committing_the_same_key_leave_one_whole_file(store: Store) -> None:
    program = f"""
        from tests.store.rows import segments
        from vsa_core.store import Store
        store = Store({str(store.root)!r})
        for i in range(40):
            store.commit("segments", "v1", segments("v1", 50), "same")
            store.sweep()
    """
    writers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=REPO)
        for _ in range(2)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert store.read(store.find("segments", "v1")).num_rows == 50
    assert not list((store.root / ".tmp").iterdir())
    assert verify(store) == []


def test_a_folder_is_complete_only_with_its_card(store: Store) -> None:
    assert store.folder("models", "m1") is None
    with pytest.raises(StoreError):
        store.commit_folder("models", "m1", {"model.safetensors": b"x"})
    path = store.commit_folder("models", "m1", {"card.json": b"{}", "model.safetensors": b"x"})
    assert store.folder("models", "m1") == path == f"{store.location}/models/m1"
    assert store.folders("models") == ["m1"]
    assert store.read_folder("models", "m1", "model.safetensors") == b"x"
    Path(path, "card.json").unlink()
    assert store.folders("models") == []
    assert store.folder("models", "m1") is None
    assert "has no card.json" in verify(store)[0]


def test_every_column_says_what_it_means() -> None:
    for spec in TABLES.values():
        for field in spec.schema:
            doc = field.metadata[b"doc"].decode()
            assert doc, (spec.name, field.name)
            assert field.nullable == ("Null: " in doc), (spec.name, field.name)


def test_discarded_rows_are_gone_compacted_or_not(store: Store) -> None:
    for video in ("v1", "v2"):
        store.commit("segments", video, segments(video), "a")
    store.discard("segments", "v1")
    assert store.find("segments", "v1") is None
    store.commit("segments", "v1", segments("v1"), "a")
    store.compact()
    store.discard("segments", "v1")
    assert store.fresh("segments", "v1", "a") is None
    assert {r["video_id"] for t in store.scan("segments") for r in t.to_pylist()} == {"v2"}
    assert verify(store) == []


def test_lists_of_one_length_are_written_as_any_and_read_as_they_were(store: Store) -> None:
    """Arrow reads them ten times as quickly; files from before, which are not so, still read."""
    rows = table_from_rows("predictions", [prediction("v1")])
    store.commit("predictions", "v1", rows, "a", part="x-1")
    [file] = store.files("predictions")
    written = pq.read_schema(file.path)
    assert pa.types.is_list(written.field("sentiment_probs").type)
    now = store.read(store.refs("predictions", "x-1")["v1"])
    plain = now.replace_schema_metadata(None).schema
    assert plain.equals(TABLES["predictions"].schema, check_metadata=True)
    assert now.equals(rows)
    before = rows.replace_schema_metadata(written.metadata)
    pq.write_table(before, file.path, compression="zstd", write_page_checksum=True)
    assert pa.types.is_fixed_size_list(pq.read_schema(file.path).field("sentiment_probs").type)
    again = Store(store.location)
    assert again.read(again.refs("predictions", "x-1")["v1"]).equals(rows)
    asked = ask(again, "SELECT sentiment_probs[1] AS p FROM predictions").rows()
    assert [row["p"] for row in asked] == pytest.approx([0.2])
    again.compact()
    assert again.read(again.refs("predictions", "x-1")["v1"]).equals(rows)
