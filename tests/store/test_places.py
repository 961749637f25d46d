"""What a store does, on a disk and in a bucket alike."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as fs
import pytest

from tests.conftest import REPO
from tests.small_s3 import SmallS3
from tests.small_store import small_store
from tests.store.rows import predicted, review, segments, texts
from vsa_core.errors import StoreError
from vsa_core.query import ask
from vsa_core.schemas import TABLES, table_from_rows
from vsa_core.store import Store
from vsa_core.store.disk import Place, Write
from vsa_core.verify import verify


def test_what_is_committed_is_found_by_another(store: Store, url: str) -> None:
    ref = store.commit("segments", "v1", segments("v1"), "a")
    other = Store(url)
    assert other.exists
    assert other.find("segments", "v1") == ref == other.fresh("segments", "v1", "a")
    assert other.find("segments", "v2") is None
    assert other.read(ref, ["text"])["text"].to_pylist() == ["words 0", "words 1", "words 2"]
    store.commit("segments", "v1", segments("v1", 1, "new"), "b")
    assert other.find("segments", "v1").fingerprint == "b"
    assert texts(other) == ["v1 new 0"]
    assert verify(other) == []


def test_a_store_never_written_to_holds_nothing(store: Store) -> None:
    assert not store.exists
    assert store.find("segments", "v1") is None
    assert store.refs("segments") == {}
    assert store.files("labels") == []
    assert store.parts("predictions") == []
    assert store.compact() == {}
    assert store.outdated() == {}
    assert store.purge(["v1"]) == {}
    assert verify(store) == []


def test_compaction_changes_no_answer(store: Store, url: str) -> None:
    for number in range(7):
        store.commit("segments", f"v{number}", segments(f"v{number}", number), f"f{number}")
    before, refs = texts(store), store.refs("segments")
    assert store.compact()["segments"] == (7, 1)
    for again in (store, Store(url)):
        assert texts(again) == before
        assert again.refs("segments") == refs
        assert again.find("segments", "v3") == refs["v3"]
        assert again.find("segments", "v0").rows == 0
        assert again.keys("segments") == sorted(refs)
    store.commit("segments", "v3", segments("v3", 1, "new"), "g")
    store.commit("segments", "v0", segments("v0", 1, "new"), "g")
    after = [text for text in before if not text.startswith("v3")] + ["v0 new 0", "v3 new 0"]
    assert texts(Store(url)) == sorted(after)
    assert store.compact(min_files=1)["segments"] == (3, 1)
    assert texts(Store(url)) == sorted(after)
    assert texts(store, keys=["v0", "v6"]) == sorted(
        text for text in after if text.startswith(("v0", "v6"))
    )
    assert verify(Store(url)) == []


def test_a_second_compaction_with_nothing_new_writes_nothing(store: Store) -> None:
    for number in range(3):
        store.commit("segments", f"v{number}", segments(f"v{number}"), "a")
    store.compact()
    (file,) = store.files("segments")
    store.compact(min_files=0)
    assert store.files("segments") == [file]


def test_append_only_tables_compact_and_take_no_other_rows_for_a_key(
    store: Store, url: str
) -> None:
    for number in range(4):
        store.commit("reviews", f"b{number}", review(f"r{number}"), "a")
    assert store.compact()["reviews"] == (4, 1)
    assert store.commit("reviews", "b1", review("r1"), "a").rows == 1
    with pytest.raises(StoreError, match="append-only"):
        store.commit("reviews", "b1", review("r9"), "other")
    store.commit("reviews", "b9", review("r9"), "a")
    found = [r for t in Store(url).scan("reviews") for r in t["review_id"].to_pylist()]
    assert sorted(found) == ["r0", "r1", "r2", "r3", "r9"]
    assert verify(Store(url)) == []


def test_two_parts_of_an_append_only_table_with_the_same_rows_count_once(
    store: Store, url: str
) -> None:
    """What two compactions at once, or one killed before it removed what it joined, leave."""
    for number in range(3):
        store.commit("reviews", f"b{number}", review(f"r{number}"), "a")
    place = store._place
    small = {f.name: place.read(f.name) for f in store.every_file("reviews")}
    store.compact()
    (joined,) = store.files("reviews")
    copy = joined.name[: -len("00000000.parquet")] + "ffffffff.parquet"
    place.put(copy, lambda out: out.write(place.read(joined.name)))
    for name, contents in small.items():
        place.put(name, lambda out, c=contents: out.write(c))
    again = Store(url)
    assert sum(t.num_rows for t in again.scan("reviews")) == 3
    assert list(ask(again, "SELECT count(*) AS n FROM reviews").rows()) == [{"n": 3}]
    assert verify(again) == []
    again.compact(min_files=0)
    assert len(again.every_file("reviews")) == 1
    assert sum(t.num_rows for t in Store(url).scan("reviews")) == 3


def test_a_compaction_killed_before_it_removes_what_it_joined_doubles_nothing(
    store: Store, url: str
) -> None:
    for number in range(3):
        store.commit("segments", f"v{number}", segments(f"v{number}"), "a")
    place = store._place
    small = {f.name: place.read(f.name) for f in store.every_file("segments")}
    before = texts(store)
    store.compact()
    for name, contents in small.items():
        place.put(name, lambda out, c=contents: out.write(c))
    again = Store(url)
    assert texts(again) == before
    sql = "SELECT count(*) AS n FROM segments"
    assert list(ask(again, sql).rows()) == [{"n": 9}]
    again.commit("segments", "v1", segments("v1", 1, "new"), "b")
    again.compact()
    assert len(Store(url).every_file("segments")) == 1
    assert texts(Store(url), keys=["v1"]) == ["v1 new 0"]
    assert verify(Store(url)) == []


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_committed_during_a_compaction_counts(
    store: Store, url: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Just before or after the joined file is put, and before what was joined is removed."""
    for number in range(4):
        store.commit("segments", f"v{number}", segments(f"v{number}", 2, "old"), "a")
    other, place = Store(url), type(store._place)
    put, seen = place.put, []

    def meanwhile() -> None:
        other.commit("segments", "v1", segments("v1", 1, "new"), "b")
        other.commit("segments", "v9", segments("v9", 1, "new"), "b")

    def putting(self: Place, name: str, write: Write) -> None:
        joined = "part-" in name and not seen
        if joined:
            seen.append(name)
        if joined and moment == "before":
            meanwhile()
        put(self, name, write)
        if joined and moment == "after":
            meanwhile()

    monkeypatch.setattr(place, "put", putting)
    store.compact()
    assert seen
    old = [f"v{number} old {i}" for number in (0, 2, 3) for i in range(2)]
    for _ in range(2):
        again = Store(url)
        assert texts(again) == sorted([*old, "v1 new 0", "v9 new 0"])
        assert again.find("segments", "v1").fingerprint == "b"
        assert verify(again) == []
        again.compact(min_files=0)


def test_a_compaction_leaves_what_it_cannot_join(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of another version is left to a migration, one that is torn to `vsa store verify`."""
    from dataclasses import replace

    with monkeypatch.context() as patched:
        patched.setitem(TABLES, "segments", replace(TABLES["segments"], version=0))
        store.commit("segments", "v0", segments("v0"), "a")
    for number in range(1, 4):
        store.commit("segments", f"v{number}", segments(f"v{number}"), "a")
    [torn] = [file for file in store.every_file("segments") if file.key == "v1"]
    store._place.put(torn.name, lambda out: out.write(b"PAR1"))
    now = Store(url)
    now.compact()
    assert sorted(str(file.key) for file in now.every_file("segments")) == ["None", "v0", "v1"]
    assert sorted(now.refs("segments")) == ["v2", "v3"]
    now.rewrite("segments", lambda rows, _, made_from: (rows, made_from))
    assert sorted(Store(url).refs("segments")) == ["v0", "v2", "v3"]


def test_runs_are_compacted_by_their_own_id(tmp_path: Path, url: str) -> None:
    local = small_store(tmp_path / "small")
    store = Store(url)
    (row, *_) = [r for t in local.scan("runs") for r in t.to_pylist()]
    for run in ("r1", "r2", "r3"):
        store.commit("runs", run, table_from_rows("runs", [{**row, "run_id": run}]), "a")
    assert store.compact()["runs"] == (3, 1)
    changed = {**row, "run_id": "r2", "status": "partial"}
    store.commit("runs", "r2", table_from_rows("runs", [changed]), "b")
    sql = "SELECT run_id, status FROM runs ORDER BY ALL"
    first = row["status"]
    assert [tuple(r.values()) for r in ask(Store(url), sql).rows()] == [
        ("r1", first),
        ("r2", "partial"),
        ("r3", first),
    ]


def test_a_large_compacted_file_is_left_until_most_of_it_is_superseded(store: Store) -> None:
    from vsa_core.store.compaction import compact_part

    def compact() -> None:
        compact_part(store._place, store._footers, "segments", "", 1, large=1)

    for number in range(4):
        store.commit("segments", f"v{number}", segments(f"v{number}"), "a")
    compact()
    (first,) = store.files("segments")
    for number in range(2):
        store.commit("segments", f"v{number}", segments(f"v{number}", 1, "new"), "b")
    compact()
    assert first.name in {file.name for file in store.files("segments")}
    assert len(store.files("segments")) == 2
    expected = texts(store)
    store.commit("segments", "v2", segments("v2"), "c")
    compact()
    assert first.name not in {file.name for file in store.files("segments")}
    assert texts(store) == expected
    assert verify(store) == []


def test_purge_leaves_nothing_of_a_video(store: Store, url: str) -> None:
    for number in (1, 2, 3):
        predicted(store, f"v{number}")
        store.commit("reviews", f"b{number}", review(f"r-{number}", f"v{number}"), "a")
    store.compact()
    for video in ("v1", "v4"):
        predicted(store, video)
    store.commit("reviews", "b5", pa.concat_tables([review("r5", "v1"), review("r6", "v2")]), "a")
    assert store.purge(["v1", "v9"]) == {
        "segments": 1,
        "predictions": 1,
        "embeddings": 1,
        "reviews": 2,
    }
    again = Store(url)
    for table in ("segments", "predictions", "embeddings"):
        ids = {i for t in again.scan(table) for i in t["video_id"].to_pylist()}
        assert ids == {"v2", "v3", "v4"}
    reviews = [i for t in again.scan("reviews") for i in t["review_id"].to_pylist()]
    assert sorted(reviews) == ["r-2", "r-3", "r6"]
    for table in TABLES:
        for file in again.every_file(table):
            assert b"v1" not in again._place.read(file.name)
    assert verify(again) == []
    assert again.purge(["v1"]) == {}
    again.compact(min_files=1)
    assert again.find("segments", "v1") is None
    assert again.find("segments", "v2").rows == 1


def test_files_of_an_older_version_are_named_and_rewritten(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    old = replace(TABLES["segments"], version=0)
    with monkeypatch.context() as patched:
        patched.setitem(TABLES, "segments", old)
        for number in range(4):
            store.commit("segments", f"v{number}", segments(f"v{number}"), f"f{number}")
            if number == 2:
                store.compact()
    now = Store(url)
    assert now.find("segments", "v0") is None
    assert now.refs("segments") == {}
    assert now.outdated() == {"segments": ["segments/0"]}
    assert f"segments/0, this is {TABLES['segments'].tag}" in verify(now)[0]
    seen = []

    def convert(rows: pa.Table, tag: str, made_from: str) -> tuple[pa.Table, str]:
        seen.append(tag)
        return rows, f"{made_from}!"

    now.rewrite("segments", convert)
    assert set(seen) == {"segments/0"}
    again = Store(url)
    assert again.outdated() == {}
    assert {k: r.fingerprint for k, r in again.refs("segments").items()} == {
        f"v{n}": f"f{n}!" for n in range(4)
    }
    assert sum(t.num_rows for t in again.scan("segments")) == 12
    assert verify(again) == []


def test_a_store_of_a_newer_vsa_is_refused(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    with monkeypatch.context() as patched:
        patched.setitem(TABLES, "segments", replace(TABLES["segments"], version=9))
        store.commit("segments", "v1", segments("v1"), "a")
    for use in (
        lambda s: s.find("segments", "v1"),
        lambda s: s.commit("segments", "v1", segments("v1"), "a"),
        lambda s: list(s.scan("segments")),
    ):
        with pytest.raises(StoreError, match=r"newer vsa \(segments/9\): update vsa"):
            use(Store(url))


def test_folders_are_complete_with_their_card(store: Store) -> None:
    assert store.folder("models", "m1") is None
    store.commit_folder("models", "m1", {"card.json": b"{}", "weights": b"x" * 100})
    assert store.folders("models") == ["m1"]
    assert store.read_folder("models", "m1", "weights") == b"x" * 100
    with pytest.raises(StoreError, match="gone"):
        store.read_folder("models", "m1", "other")
    store.remove_folder("models", "m1")
    assert store.folders("models") == store.unfinished_folders("models") == []
    store._place.put("models/m2/weights", lambda out: out.write(b"x"))
    assert store.unfinished_folders("models") == ["m2"]
    assert "models/m2: has no card.json" in verify(store)[0]


def test_a_store_can_be_sent_to_another_process(store: Store) -> None:
    store.commit("segments", "v1", segments("v1"), "a")
    assert pickle.loads(pickle.dumps(store)).keys("segments") == ["v1"]


def test_a_corrupt_file_is_named_put_aside_and_made_anew(store: Store, url: str) -> None:
    for video in ("v1", "v2"):
        predicted(store, video)
    store.commit("reviews", "b1", review("r1"), "a")
    place = store._place
    torn = [store.files("embeddings")[0], store.files("reviews")[0]]
    for file in torn:
        contents = place.read(file.name)
        place.remove([file.name])
        place.put(file.name, lambda out, c=contents: out.write(c[:-20]))
    problems = verify(Store(url))
    assert len(problems) == 3
    assert store.where(torn[0]) in problems[0] or store.where(torn[0]) in problems[1]
    assert any("what humans decided, which nothing makes anew" in p for p in problems)
    repaired = verify(Store(url), repair=True)
    assert sum("put aside as" in p for p in repaired) == 2
    again = Store(url)
    assert verify(again) == []
    assert again.find("predictions", "v1", part="x-1") is None  # its stage runs again
    assert again.find("predictions", "v2", part="x-1") is not None
    assert again.find("segments", "v1") is not None


def test_the_same_rows_wherever_a_store_is_copied(tmp_path: Path, s3: SmallS3) -> None:
    """Up to a bucket, changed there, down to a disk, changed there, and up again."""

    def copied(source: Store, target: str) -> Store:
        made = Store(target)
        base = source._place.path("").rstrip("/")
        to = made._place.path("").rstrip("/")
        fs.copy_files(
            base, to, source_filesystem=source.filesystem, destination_filesystem=made.filesystem
        )
        return made

    disk = Store(tmp_path / "one")
    for number in range(5):
        disk.commit("segments", f"v{number}", segments(f"v{number}"), "a")
    disk.compact()
    disk.commit("segments", "v0", segments("v0", 1, "disk"), "b")
    bucket = copied(disk, s3.url(f"{tmp_path.name}-up"))
    assert texts(bucket) == texts(disk)
    bucket.commit("segments", "v0", segments("v0", 1, "bucket"), "c")
    bucket.commit("segments", "v1", segments("v1", 1, "bucket"), "c")
    assert texts(bucket, keys=["v0", "v1"]) == ["v0 bucket 0", "v1 bucket 0"]
    bucket.compact()
    bucket.commit("segments", "v2", segments("v2", 1, "bucket"), "d")
    down = copied(bucket, str(tmp_path / "two"))
    assert texts(down) == texts(bucket)
    down.commit("segments", "v2", segments("v2", 1, "down"), "e")
    assert texts(down, keys=["v2"]) == ["v2 down 0"]
    expected = texts(down)
    down.compact(min_files=1)
    assert len(down.every_file("segments")) == 1
    assert texts(down) == expected == texts(copied(down, s3.url(f"{tmp_path.name}-again")))
    assert verify(down) == []


def test_readers_go_on_while_others_commit_and_compact(store: Store, url: str) -> None:
    for number in range(12):
        store.commit("segments", f"v{number:02}", segments(f"v{number:02}"), "a")
    program = f"""
        import select, sys
        from tests.store.rows import segments
        from vsa_core.store import Store
        store, turn = Store({url!r}), 0
        print("begun", flush=True)
        # Ten times a second, if the disk is as quick: a reader needs a moment without a swap.
        while turn < 2 or not select.select([sys.stdin], [], [], 0.1)[0]:
            for number in range(turn % 3, 12, 3):
                store.commit("segments", f"v{{number:02}}", segments(f"v{{number:02}}"), str(turn))
            store.compact()
            turn += 1
    """
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=REPO,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begun\n"
    for _ in range(8):
        assert len(texts(store)) == 36
        assert len(store.refs("segments")) == 12
        ref = store.find("segments", "v07")
        assert ref is not None
        assert store.read(ref).num_rows == 3
        sql = "SELECT count(*) AS n, count(DISTINCT segment_id) AS d FROM segments"
        assert list(ask(store, sql).rows()) == [{"n": 36, "d": 36}]
    writer.stdin.close()
    assert writer.wait(60) == 0
    writer.stdout.close()
    assert verify(Store(url)) == []


def test_two_that_compact_and_commit_at_once_lose_and_double_nothing(url: str) -> None:
    program = """
        import sys
        from tests.store.rows import review, segments
        from vsa_core.errors import StoreError
        from vsa_core.store import Store
        url, own = sys.argv[1:]
        store = Store(url)
        for turn in range(3):
            for number in range(4):
                key = f"v{own}{number}"
                store.commit("segments", key, segments(key, 2, f"turn {turn}"), str(turn))
                store.commit("segments", "shared", segments("shared", 2, "same"), "same")
                store.commit("reviews", f"{own}-{turn}-{number}",
                             review(f"{own}-{turn}-{number}"), "a")
            try:
                store.compact()
            except StoreError as error:
                assert "being compacted" in str(error), error
    """
    both = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(program), url, own], cwd=REPO)
        for own in "ab"
    ]
    assert [one.wait(120) for one in both] == [0, 0]
    store = Store(url)
    expected = [f"v{own}{n} turn 2 {i}" for own in "ab" for n in range(4) for i in range(2)]
    assert texts(store) == sorted([*expected, "shared same 0", "shared same 1"])
    assert sum(t.num_rows for t in store.scan("reviews")) == 24
    assert verify(store) == []
    store.compact(min_files=0)
    assert texts(Store(url)) == texts(store)
