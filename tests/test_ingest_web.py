"""The real yt-dlp against a site of our own on loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import bad_media
from vsa_core.config import Sources
from vsa_core.errors import SourceError
from vsa_core.ingest.web import _untranslated, fetch
from vsa_core.media import probe

LOOPBACK = Sources(allow_private_addresses=True)


class Site(SimpleHTTPRequestHandler):
    """Serves a folder and remembers what was asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        with contextlib.suppress(ConnectionError):  # a client may have read enough
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[str]]]:
    folder = tmp_path_factory.mktemp("site")
    bad_media.write(folder / "talk.mp4", bad_media.film(50), bad_media.sweep(2))
    (folder / "page.html").write_text(
        "<html><head><title>A talk</title></head><body>"
        '<video src="talk.mp4"><track src="talk.vtt" srclang="en" kind="captions"></video></body>'
    )
    (folder / "talk.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:01.500\nGood morning.\n")
    (folder / "words.html").write_text("<html><body>Nothing but words.</body></html>")
    handler = type("Here", (Site,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    server.shutdown()


def test_a_video_is_fetched_once(site: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = site
    path, problem = fetch(f"{address}/talk.mp4", LOOPBACK, ["en"], tmp_path)
    assert problem is None
    assert probe(path).duration_ms == pytest.approx(2000, abs=100)
    assert path.with_name(f"{path.stem}.info.json").is_file()
    count = len(asked)
    assert fetch(f"{address}/talk.mp4", LOOPBACK, ["en"], tmp_path) == (path, None)
    assert len(asked) == count


def test_a_page_with_a_video_and_captions(site: tuple[str, list[str]], tmp_path: Path) -> None:
    path, problem = fetch(f"{site[0]}/page.html", LOOPBACK, ["en"], tmp_path)
    assert problem is None
    assert probe(path).has_video
    assert [p.suffix for p in path.parent.glob("*.vtt")] == [".vtt"]


def test_captions_in_other_languages_are_left(site: tuple[str, list[str]], tmp_path: Path) -> None:
    path, _ = fetch(f"{site[0]}/page.html", LOOPBACK, ["de"], tmp_path)
    assert list(path.parent.glob("*.vtt")) == []
    path, _ = fetch(f"{site[0]}/page.html?again", LOOPBACK, [], tmp_path)
    assert len(list(path.parent.glob("*.vtt"))) == 1


def test_without_wanted_languages_no_translation_is_fetched() -> None:
    translated = {tag: [] for tag in ("af", "en", "es", "es-orig", "zu")}
    info = {"language": "es", "automatic_captions": translated, "subtitles": {"live_chat": []}}
    assert _untranslated(info) == ["es", r"es\-orig"]
    info["subtitles"] = {"pt-BR": [], "es": []}
    assert _untranslated(info) == [r"pt\-BR", "es", r"es\-orig"]
    assert _untranslated({"automatic_captions": translated}) == [r"es\-orig"]
    assert _untranslated({}) == []


@pytest.mark.parametrize("page", ["missing.mp4", "words.html"])
def test_what_is_no_video_is_one_line(
    site: tuple[str, list[str]], tmp_path: Path, page: str
) -> None:
    path, problem = fetch(f"{site[0]}/{page}", LOOPBACK, ["en"], tmp_path)
    assert path is None
    assert problem.startswith(f"{site[0]}/{page}: ")
    assert "\n" not in problem
    assert "report" not in problem
    assert "ERROR" not in problem


def test_a_private_address_is_refused_unless_allowed(
    site: tuple[str, list[str]], tmp_path: Path
) -> None:
    count = len(site[1])
    path, problem = fetch(f"{site[0]}/talk.mp4", Sources(), ["en"], tmp_path)
    assert path is None
    assert "is not public: set sources.allow_private_addresses" in problem
    assert len(site[1]) == count


def test_a_download_over_the_limit_is_cut_off(
    site: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsa_core.ingest.web._MEGABYTE", 1000)
    settings = Sources(allow_private_addresses=True, max_download_mb=1)
    path, problem = fetch(f"{site[0]}/talk.mp4", settings, ["en"], tmp_path)
    assert path is None
    assert problem


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x.mp4", "http://"])
def test_only_web_addresses_are_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="give http:// or https://"):
        fetch(url, Sources(), ["en"], tmp_path)
