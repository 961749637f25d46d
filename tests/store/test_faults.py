"""A store under a dying process, a full disk, a clock that was moved back, a bad network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.small_s3 import FaultyS3, SmallS3
from tests.store.rows import segments, texts
from vsa_core.errors import StoreError
from vsa_core.query import ask
from vsa_core.schemas import TABLES
from vsa_core.store import Store
from vsa_core.verify import verify


def child(program: str, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *args],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )


class TestDisk:
    @pytest.mark.parametrize("dies_at", ["os.fsync", "Path.replace", "Path.unlink"])
    def test_a_compaction_that_is_killed_costs_nothing(self, tmp_path: Path, dies_at: str) -> None:
        store = Store(tmp_path)
        for number in range(6):
            store.commit("segments", f"v{number}", segments(f"v{number}"), "a")
        before = texts(store)
        program = f"""
            import os, signal, sys
            from pathlib import Path
            from vsa_core.store import Store
            store = Store(sys.argv[1])
            calls = []
            real = {dies_at}
            def dying(*args, **named):
                calls.append(args)
                # Of the removals the third: some of what was joined is gone, some is not.
                if len(calls) == {3 if dies_at == "Path.unlink" else 1}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **named)
            {dies_at} = dying
            store.compact()
        """
        assert child(program, str(tmp_path)).wait(60) == -signal.SIGKILL
        again = Store(tmp_path)
        assert texts(again) == before
        assert list(ask(again, "SELECT count(*) AS n FROM segments").rows()) == [{"n": 18}]
        again.sweep()
        assert verify(again) == []
        again.compact(min_files=1)
        assert len(again.every_file("segments")) == 1
        assert texts(Store(tmp_path)) == before

    def test_a_disk_that_takes_no_more_costs_only_the_write_in_hand(self, tmp_path: Path) -> None:
        """The kernel refuses to write on, in a commit, a compaction, a purge and a rewrite."""
        store = Store(tmp_path)
        for number in range(4):
            store.commit("segments", f"v{number}", segments(f"v{number}", 200), "a")
        before = texts(store)
        program = """
            import resource, signal, sys
            from tests.store.rows import segments
            from vsa_core.errors import StoreError
            from vsa_core.store import Store
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            store, larger = Store(sys.argv[1]), segments("v1", 3000)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
            for write in (
                lambda: store.commit("segments", "v1", larger, "b"),
                lambda: store.compact(),
                lambda: store.commit_folder("models", "m", {"card.json": b"x" * 5000}),
            ):
                try:
                    write()
                except StoreError as error:
                    print(error)
        """
        running = child(program, str(tmp_path))
        said, _ = running.communicate(timeout=60)
        assert running.returncode == 0
        assert said.count("cannot be written: File too large") == 3, said
        again = Store(tmp_path)
        assert texts(again) == before
        assert list((tmp_path / ".tmp").iterdir()) == []
        assert verify(again) == []

    def test_a_clock_that_was_moved_back_does_not_bring_old_rows_back(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        for text in ("first", "second", "third"):
            for number in range(3):
                rows = segments(f"v{number}", 1, text)
                store.commit("segments", f"v{number}", rows, text)
            (tmp_path / "segments" / "v2.parquet").rename(tmp_path / "kept")
            store.compact()
            (tmp_path / "kept").rename(tmp_path / "segments" / "v2.parquet")
            # Each file seems a day older than the one before it.
            day = {"first": 3, "second": 2, "third": 1}[text] * 86_400
            for path in (tmp_path / "segments").iterdir():
                os.utime(path, (day, day))
        assert texts(Store(tmp_path)) == [f"v{n} third 0" for n in range(3)]
        for order in (1, -1):
            for day, path in enumerate(sorted((tmp_path / "segments").iterdir())[::order]):
                os.utime(path, (day * 86_400, day * 86_400))
            assert texts(Store(tmp_path)) == [f"v{n} third 0" for n in range(3)]

    def test_only_one_compacts_at_a_time(self, tmp_path: Path) -> None:
        store = Store(tmp_path)
        for number in range(3):
            store.commit("segments", f"v{number}", segments(f"v{number}"), "a")
        busy = Store(tmp_path)._place.compacting()
        with busy, pytest.raises(StoreError, match="being compacted by another process"):
            store.compact()
        assert store.compact()["segments"] == (3, 1)


class TestBucket:
    @pytest.fixture
    def url(self, faulty: FaultyS3, tmp_path: Path) -> str:
        """Through the proxy, with little patience."""
        return faulty.s3.url(
            tmp_path.name, max_attempts="2", request_timeout="1", connect_timeout="1"
        )

    @pytest.fixture
    def store(self, url: str) -> Store:
        store = Store(url)
        for number in range(3):
            store.commit("segments", f"v{number}", segments(f"v{number}"), "a")
        return store

    @pytest.fixture(autouse=True)
    def nothing_lost(self, store: Store, s3: SmallS3, tmp_path: Path) -> Iterator[None]:
        """After each fault, seen past the proxy."""
        yield
        good = Store(s3.url(tmp_path.name))
        assert {"v0", "v2"} <= set(good.keys("segments"))
        assert len(texts(good, keys=["v0", "v2"])) == 6
        assert len(texts(good)) == len(set(texts(good)))
        assert verify(good) == []
        for name in s3.objects(tmp_path.name):
            if name.endswith(".parquet"):
                assert good._place.read(name)[-4:] == b"PAR1"

    @pytest.mark.parametrize("fault", [503, "cut", "lost", "slow"])
    def test_a_fault_that_passes_is_not_noticed(
        self, store: Store, faulty: FaultyS3, fault: int | str
    ) -> None:
        hit: list[str] = []

        def once(method: str, path: str, _: int) -> int | str | None:
            """The first request of each kind to each kind of name fails."""
            kind = f"{method} {next((k for k in ('list', 'part-', 'v1/', 'v0/') if k in path), '')}"
            if kind in hit or method not in ("GET", "PUT", "DELETE"):
                return None
            hit.append(kind)
            return fault

        faulty.fault = once
        store.commit("segments", "v1", segments("v1", 1, "new"), "b")
        assert store.fresh("segments", "v1", "b") is not None
        assert texts(store, keys=["v1"]) == ["v1 new 0"]
        store.compact()
        assert texts(store, keys=["v1"]) == ["v1 new 0"]
        assert {"GET list", "PUT v1/", "GET v1/", "PUT part-"} <= set(hit)

    @pytest.mark.parametrize(
        ("method", "fault"),
        [
            *(("PUT", f) for f in (500, 503, 403, "cut", "lost", "hang")),
            ("GET", 500),
            ("GET", "cut"),
        ],
    )
    def test_a_fault_that_stays_is_one_line(
        self, store: Store, faulty: FaultyS3, fault: int | str, method: str
    ) -> None:
        def always(verb: str, path: str, _: int) -> int | str | None:
            return fault if verb == method and "parquet" in path else None

        ref = store.find("segments", "v1")
        assert ref is not None
        faulty.fault = always
        new = segments("v1", 1, "new")
        do = {
            "PUT": lambda: store.commit("segments", "v1", new, "b"),
            "GET": lambda: store.read(ref),
        }[method]
        with pytest.raises(StoreError, match=r"s3://.* cannot be reached .* see to the network"):
            do()
        faulty.fault = lambda *_: None
        assert len(texts(store, keys=["v1"])) in (1, 3)

    @pytest.mark.parametrize("at", ["part-", "?delete", ".claim"])
    def test_a_compaction_that_is_killed_costs_nothing(
        self, store: Store, url: str, faulty: FaultyS3, at: str
    ) -> None:
        before = texts(store)
        store.commit("segments", "v1", segments("v1"), "b")
        self.killed(faulty, url, "store.compact()", at)
        again = Store(url)
        assert texts(again) == before
        again.compact(min_files=1)
        assert len(again.every_file("segments")) == 1
        assert texts(Store(url)) == before

    @pytest.mark.parametrize("at", ["PUT", "DELETE"])
    def test_a_commit_that_is_killed_leaves_the_old_rows_or_the_new(
        self, store: Store, url: str, faulty: FaultyS3, at: str
    ) -> None:
        self.killed(
            faulty, url, "store.commit('segments', 'v1', segments('v1', 1, 'new'), 'b')", at
        )
        assert len(texts(Store(url), keys=["v1"])) == (3 if at == "PUT" else 1)

    @staticmethod
    def killed(faulty: FaultyS3, url: str, what: str, at: str) -> None:
        """A process that dies while its first request of a kind is under way."""
        running = child(
            f"""
            import sys
            from tests.store.rows import segments
            from vsa_core.store import Store
            store = Store(sys.argv[1])
            {what}
            """,
            url,
        )

        def kill(method: str, path: str, _: int) -> str | None:
            if at == method or at in path:
                running.kill()
                running.wait()
                return "cut" if method == "PUT" else None
            return None

        faulty.fault = kill
        assert running.wait(60) == -signal.SIGKILL
        faulty.fault = lambda *_: None

    def test_a_bucket_that_is_not_there_is_one_line(self, s3: SmallS3) -> None:
        lost = Store(SmallS3(s3.endpoint, "nobodys").url("store"))
        assert not lost.exists
        with pytest.raises(StoreError, match="there is no such bucket: make it"):
            lost.commit("segments", "v1", segments("v1"), "a")

    def test_a_commit_moves_on_when_a_compaction_begins_meanwhile(
        self, store: Store, url: str, faulty: FaultyS3, s3: SmallS3, tmp_path: Path
    ) -> None:
        """Its object lies where a compaction has already looked, which removes it."""
        other = Store(s3.url(tmp_path.name))
        begun: list[str] = []

        def compacted(method: str, path: str, _: int) -> None:
            if method == "PUT" and "/v1/" in path and not begun:
                begun.append(path)
                other.compact(min_files=1)

        faulty.fault = compacted
        store.commit("segments", "v1", segments("v1", 1, "new"), "b")
        assert begun
        assert texts(other, keys=["v1"]) == ["v1 new 0"]
        assert {f.epoch for f in other.every_file("segments") if f.key == "v1"} == {2}

    def test_a_compaction_that_another_overtakes_is_withdrawn(
        self, store: Store, url: str, faulty: FaultyS3, s3: SmallS3, tmp_path: Path
    ) -> None:
        """A purge comes between: what it removed does not come back."""
        other = Store(s3.url(tmp_path.name))
        begun: list[str] = []

        def purged(method: str, path: str, _: int) -> None:
            if method == "PUT" and "part-" in path and not begun:
                begun.append(path)
                assert other.purge(["v1"]) == {"segments": 3}

        faulty.fault = purged
        store.compact()
        assert begun
        assert other.find("segments", "v1") is None
        assert Store(url).keys("segments") == ["v0", "v2"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:secret@bucket/store", "credentials do not belong into a URL"),
        ("s3://", "names no bucket"),
        ("s3://bucket/store?endpoint=x", "no option is named endpoint; there are"),
        ("s3://bucket/store?request_timeout=soon", "cannot be opened"),
        ("nosuch://bucket/store", "nothing here opens nosuch://"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(url: str, said: str) -> None:
    with pytest.raises(StoreError, match=said) as caught:
        Store(url)
    assert "secret" not in str(caught.value)


def test_a_url_that_went_through_a_path_is_still_one(s3: SmallS3, tmp_path: Path) -> None:
    url = s3.url(tmp_path.name)
    assert Store(Path(url)).location == Store(url).location == url


def test_other_filesystems_come_from_fsspec(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}/store")
    store.commit("segments", "v1", segments("v1"), "a")
    store.commit("segments", "v1", segments("v1", 1, "new"), "b")
    store.commit("segments", "v2", segments("v2", 1), "b")
    store.compact()
    assert texts(store) == ["v1 new 0", "v2 words 0"]
    assert verify(store) == []


def test_a_mark_that_is_no_json_is_no_matter(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.commit("segments", "v1", segments("v1"), "a")
    mark = tmp_path / "vsa-store.json"
    assert json.loads(mark.read_text())["tables"]["segments"] == TABLES["segments"].version
    mark.write_text("{")
    again = Store(tmp_path)
    assert again.outdated() == {}
    assert json.loads(mark.read_text())["tables"]["segments"] == TABLES["segments"].version
