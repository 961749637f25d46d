"""Nothing but the public web is reached, whoever names the address and whenever."""

from __future__ import annotations

import gzip
import io
import os
import socket
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ingest.conftest import settings_of
from tests.small_site import Request, Site, certificate, small_site
from vsa_core.errors import ConfigError
from vsa_core.ingest import guard
from vsa_core.ingest.downloader import downloader, watch_for
from vsa_core.ingest.listing import Item
from vsa_core.ingest.web import Fetched, Outcome, fetch

STRICT = {"sources": {"allow_private_addresses": False}}


def tried(url: str, media: Path, **sections: dict) -> Fetched:
    """What becomes of an address where private ones are refused."""
    return fetch(Item("a" * 16, url, asked=True), settings_of(**{**STRICT, **sections}), media)


@pytest.fixture
def one_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1, where the site is, passes for public; 127.0.0.2 does not."""
    monkeypatch.setattr(guard, "public", lambda address: address == "127.0.0.1")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
        "fec0::1", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert not guard.public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public(address: str) -> None:
    assert guard.public(address)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "0.0.0.0", "0",
        "169.254.169.254", "localhost", "LOCALHOST.", "[::1]", "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
    ],
)  # fmt: skip
def test_an_address_that_is_not_public_is_refused_however_it_is_written(
    site: Site, film_bytes: bytes, tmp_path: Path, host: str
) -> None:
    site.file("/talk.mp4", film_bytes)
    port = site.address.rpartition(":")[2]
    one = tried(f"http://{host}:{port}/talk.mp4", tmp_path)
    assert (one.outcome, one.kind) == (Outcome.REFUSED, "private_address")
    assert "sources.allow_private_addresses" in one.reason
    assert site.asked == []


@pytest.mark.usefixtures("one_public")
@pytest.mark.parametrize("host", ["127.0.0.2", "0x7f.2", "inside.test"])
def test_a_redirect_to_a_private_address_is_not_followed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    resolve = socket.getaddrinfo

    def resolved(name: str, *rest: object) -> object:
        return resolve("127.0.0.2" if name == "inside.test" else name, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    target = f"http://{host}/secret.mp4"
    site.answer("/away.mp4", lambda one: one.send(b"", status=302, Location=target))
    one = tried(f"{site.address}/away.mp4", tmp_path)
    assert (one.outcome, one.kind) == (Outcome.REFUSED, "private_address")
    assert site.asked == ["/away.mp4"]


@pytest.mark.usefixtures("one_public")
def test_a_name_that_changes_its_mind_is_caught_when_it_is_connected_to(
    site: Site, film_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve, asked = socket.getaddrinfo, []

    def rebinding(name: str, *rest: object) -> object:
        if name != "rebind.test":
            return resolve(name, *rest)
        asked.append(name)
        return resolve("127.0.0.1" if len(asked) == 1 else "127.0.0.2", *rest)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    site.file("/talk.mp4", film_bytes)
    port = site.address.rpartition(":")[2]
    one = tried(f"http://rebind.test:{port}/talk.mp4", tmp_path)
    assert one.kind == "private_address"
    assert len(asked) == 2  # once for each connection, so that what was checked is what is used
    assert site.asked == ["/talk.mp4"]


@pytest.mark.usefixtures("one_public")
def test_segments_of_a_stream_are_held_to_it_too(site: Site, tmp_path: Path) -> None:
    lines = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.2/a.ts\n#EXT-X-ENDLIST\n"
    url = site.file("/film.m3u8", lines.encode(), "application/x-mpegURL")
    assert tried(url, tmp_path).kind == "private_address"


@pytest.mark.usefixtures("one_public")
def test_captions_are_held_to_it_too(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    site.file("/talk.mp4", film_bytes)
    track = '<track src="http://127.0.0.2/talk.vtt" srclang="en" kind="captions">'
    one = tried(site.page("/talk", f'<video src="talk.mp4">{track}</video>'), tmp_path)
    assert one.outcome is Outcome.FETCHED  # without them
    assert list(one.path.parent.glob("*.vtt")) == []


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_a_redirect_out_of_the_web_is_not_followed(site: Site, tmp_path: Path, target: str) -> None:
    site.answer("/away.mp4", lambda one: one.send(b"", status=302, Location=target))
    one = fetch(Item("a" * 16, f"{site.address}/away.mp4"), settings_of(), tmp_path)
    assert one.path is None
    assert one.outcome in (Outcome.REFUSED, Outcome.FAILED)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x.mp4", "http://", "x"])
def test_only_the_web_is_fetched_from(tmp_path: Path, url: str) -> None:
    one = fetch(Item("a" * 16, url), settings_of(), tmp_path)
    assert (one.outcome, one.kind) == (Outcome.REFUSED, "not_web")


def test_a_proxy_connects_for_us_but_not_to_private_addresses(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    def as_proxy(request: Request) -> None:
        request.send(b"", status=302, Location="http://192.168.0.1/secret.mp4")

    site.file("http://far.test/talk.mp4", film_bytes)
    site.answer("http://far.test/away.mp4", as_proxy)
    through = {"download": {"proxy": site.address}}
    assert tried("http://far.test/talk.mp4", tmp_path, **through).outcome is Outcome.FETCHED
    site.asked.clear()
    for url in ("http://10.0.0.1/x.mp4", "http://far.test/away.mp4"):
        one = fetch(Item("b" * 16, url), settings_of(**STRICT, **through), tmp_path)
        assert one.kind == "private_address"
    assert site.asked == ["http://far.test/away.mp4"]


def test_the_environment_names_no_proxy(
    site: Site, film_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    item = Item("a" * 16, site.file("/talk.mp4", film_bytes), asked=True)
    assert fetch(item, settings_of(), tmp_path).outcome is Outcome.FETCHED


def test_a_packed_page_is_unpacked_only_so_far(site: Site, tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=9) as file:
        file.write(b"<html><!--")
        for _ in range(70):
            file.write(b" " * 1_000_000)
    body = bomb.getvalue()
    site.answer("/bomb", lambda one: one.send(body, Content_Encoding="gzip"))
    one = fetch(Item("a" * 16, f"{site.address}/bomb"), settings_of(), tmp_path)
    assert (one.outcome, one.kind) == (Outcome.REFUSED, "too_large")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_packed_page_is_read(site: Site, film_bytes: bytes, tmp_path: Path, coding: str) -> None:
    site.file("/talk.mp4", film_bytes)
    page = b'<html><head><title>T</title></head><body><video src="talk.mp4"></video></body></html>'
    body = gzip.compress(page) if coding == "gzip" else zlib.compress(page)
    site.answer("/talk", lambda one: one.send(body, Content_Encoding=coding))
    one = fetch(Item("a" * 16, f"{site.address}/talk", asked=True), settings_of(), tmp_path)
    assert one.outcome is Outcome.FETCHED


def test_every_request_goes_through_our_own_handler() -> None:
    settings = settings_of()
    with downloader(settings, watch_for(settings)) as (ydl, _):
        assert list(ydl._request_director.handlers) == ["Guarded"]


def test_cookies_are_sent_and_the_file_stays_as_it_is(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    sent = []

    def asks(request: Request) -> None:
        sent.append(request.headers.get("Cookie"))
        request.send(film_bytes, "video/mp4", Set_Cookie="seen=1")

    file = tmp_path / "cookies.txt"
    file.write_text("# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tname\tvalue\n")
    before = file.read_text()
    item = Item("a" * 16, site.answer("/talk.mp4", asks), asked=True)
    one = fetch(item, settings_of(download={"cookies_file": file}), tmp_path / "media")
    assert one.outcome is Outcome.FETCHED
    assert sent[0] == "name=value"
    assert file.read_text() == before


@pytest.mark.parametrize("text", [None, "this is no cookie file\n", "a\tb\n"])
def test_a_cookies_file_that_cannot_be_used_is_told_before_anything_is_fetched(
    site: Site, tmp_path: Path, text: str | None
) -> None:
    file = tmp_path / "cookies.txt"
    if text is not None:
        file.write_text(text)
    item = Item("a" * 16, f"{site.address}/talk.mp4", asked=True)
    with pytest.raises(ConfigError, match=r"cookies_file .*cookies\.txt"):
        fetch(item, settings_of(download={"cookies_file": file}), tmp_path / "media")
    assert site.asked == []


_PLUGIN = """
from yt_dlp.extractor.common import InfoExtractor
open({mark!r}, "w").close()
class EvilIE(InfoExtractor):
    _VALID_URL = r"http://.*"
"""


def test_nobody_elses_code_or_settings_are_loaded(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    mark = tmp_path / "loaded"
    plugin = tmp_path / "config/yt-dlp/plugins/evil/yt_dlp_plugins/extractor/evil.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(_PLUGIN.format(mark=str(mark)))
    (tmp_path / "config/yt-dlp/config").write_text("--simulate\n")
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.ingest.conftest import settings_of\n"
        "from vsa_core.ingest.listing import Item\n"
        "from vsa_core.ingest.web import fetch\n"
        "print(fetch(Item('a' * 16, sys.argv[1]), settings_of(), Path(sys.argv[2])).outcome)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, site.file("/talk.mp4", film_bytes), str(tmp_path / "media")],
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "fetched"
    assert not mark.exists()


def test_https_is_held_to_the_same_limits(
    film_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi

    def trickling(request: Request) -> None:
        request.head(Content_Type="text/html")
        while True:
            request.wfile.write(b" ")
            time.sleep(0.05)

    item = Item("a" * 16, "", asked=True)
    with small_site(certificate(tmp_path)) as site:
        talk = replace(item, url=site.file("/talk.mp4", film_bytes))
        unknown = fetch(talk, settings_of(), tmp_path / "media")
        assert (unknown.outcome, unknown.kind) == (Outcome.FAILED, "certificate")
        assert site.asked == []
        monkeypatch.setattr(certifi, "where", lambda: str(tmp_path / "certificate.pem"))
        assert fetch(talk, settings_of(**STRICT), tmp_path / "media").kind == "private_address"
        assert fetch(talk, settings_of(), tmp_path / "media").path.read_bytes() == film_bytes
        slow = replace(item, source_id="b" * 16, url=site.answer("/slow", trickling))
        settings = settings_of(download={"time_limit_s": 0.6})
        assert fetch(slow, settings, tmp_path / "media").kind == "time_limit"
