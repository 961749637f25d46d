"""The real yt-dlp fetches from a site of our own on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.ingest.conftest import settings_of
from tests.small_site import VTT, Request, Site, film
from vsa_core.errors import StoreError
from vsa_core.ingest.listing import Item, listed
from vsa_core.ingest.media_folder import claimed, evict
from vsa_core.ingest.web import Fetched, Outcome, fetch
from vsa_core.media import probe
from vsa_core.progress import LISTENER, Interrupted
from vsa_core.transcripts.captions import find_captions, read_captions


def got(url: str, media: Path, **sections: dict) -> Fetched:
    """What becomes of the one video an address leads to."""
    settings = settings_of(**sections)
    (item,) = listed(url, settings)
    return fetch(item, settings, media)


def unfinished(media: Path) -> list[str]:
    """Names of what lies in unfinished folders."""
    return sorted(path.name for path in media.glob("*.part/*") if path.name != ".lock")


def test_a_page_with_a_video_and_captions(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    url = site.talk("/talk", film_bytes, "Good morning.", "A talk")
    one = got(url, tmp_path)
    assert (one.outcome, one.kind, one.reason) == (Outcome.FETCHED, None, None)
    assert one.path.read_bytes() == film_bytes
    names = sorted(path.name for path in one.path.parent.iterdir())
    source = one.item.source_id
    assert names == [f"{source}.en.vtt", f"{source}.info.json", f"{source}.mp4"]
    assert one.path.parent == tmp_path / source
    captions = read_captions(find_captions(one.path, ["en"]), video=one.path)
    assert (captions.source, captions.language) == ("captions", "en")
    told = json.loads(one.path.with_name(f"{source}.info.json").read_text())
    assert told["title"] == "A talk"
    assert not {"formats", "http_headers", "cookies", "url"} & set(told)


def test_what_is_here_is_not_asked_for_again(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    url = site.file("/talk.mp4", film_bytes)
    first = got(url, tmp_path)
    site.asked.clear()
    assert fetch(first.item, settings_of(), tmp_path) == first
    assert site.asked == []


def test_captions_in_another_language_are_fetched_where_none_is_in_a_wanted_one(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    url = site.talk("/talk", film_bytes, "Good morning.", "A talk")
    one = got(url, tmp_path, transcripts={"languages": ["de"]})
    assert [p.name for p in one.path.parent.glob("*.vtt")] == [f"{one.item.source_id}.en.vtt"]


@pytest.mark.parametrize(
    ("offered", "kind", "due"),
    [
        ({"fr": "Bonjour.", "es": "Hola."}, "subtitles", "es.vtt"),
        ({"fr": "Bonjour.", "it": "Ciao."}, "subtitles", "fr.vtt"),
        ({"fr": "Bonjour.", "es": "Hola."}, "automatic_captions", "es-orig.vtt"),
    ],
)
def test_of_foreign_captions_those_of_what_is_spoken_are_fetched(
    site: Site, film_bytes: bytes, tmp_path: Path, offered: dict[str, str], kind: str, due: str
) -> None:
    url = platform(site, "other", film_bytes, language="es", **{kind: captions(site, **offered)})
    one = got(url, tmp_path, transcripts={"languages": ["en"]})
    assert [p.name for p in one.path.parent.glob("*.vtt")] == [f"{one.item.source_id}.{due}"]


def platform(site: Site, video: str, film_bytes: bytes, **told: object) -> str:
    """A video of the small platform; returns its URL."""
    site.file(f"/{video}.mp4", film_bytes)
    facts = {"url": f"{site.address}/{video}.mp4", "ext": "mp4", **told}
    site.file(f"/api/{video}", json.dumps(facts).encode(), "application/json")
    return f"{site.address}/watch/{video}"


def captions(site: Site, **languages: str) -> dict[str, list[dict[str, str]]]:
    """Captions as an extractor gives them, of the words of each language."""
    found = {}
    for language, words in languages.items():
        tag = language.replace("_", "-")
        path = f"/{hashlib.sha256(words.encode()).hexdigest()[:8]}.vtt"
        url = site.file(path, VTT.format(words).encode(), "text/vtt")
        found[tag] = [
            {"url": url.replace(".vtt", ".ttml"), "ext": "ttml"},
            {"url": url, "ext": "vtt"},
        ]
    return found


def test_captions_people_made_go_before_automatic_ones(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    url = platform(
        site,
        "both",
        film_bytes,
        language="de",
        subtitles=captions(site, de="Von Hand."),
        automatic_captions=captions(site, en="By machine.", de_orig="Von der Maschine."),
    )
    one = got(url, tmp_path, transcripts={"languages": ["en", "de"]})
    assert [p.name for p in one.path.parent.glob("*.vtt")] == [f"{one.item.source_id}.de.vtt"]
    found = read_captions(find_captions(one.path, ["en", "de"]), video=one.path)
    assert [cue.text for cue in found.cues] == ["Von Hand."]


def test_automatic_captions_are_those_of_what_is_spoken(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    url = platform(
        site,
        "auto",
        film_bytes,
        language="de",
        automatic_captions=captions(site, en="Translated.", de="Gehört."),
    )
    one = got(url, tmp_path, transcripts={"languages": ["en", "de"]})
    assert [p.name for p in one.path.parent.glob("*.vtt")] == [f"{one.item.source_id}.de-orig.vtt"]
    assert one.path.with_suffix(".info.json").is_file()


def test_captions_that_are_gone_cost_no_video(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    offered = {"en": [{"url": f"{site.address}/gone.vtt", "ext": "vtt"}]}
    one = got(platform(site, "bare", film_bytes, subtitles=offered), tmp_path)
    assert one.outcome is Outcome.FETCHED
    assert find_captions(one.path, ["en"]) is None


def test_captions_that_are_late_are_waited_for(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    offered = {"en": [{"url": f"{site.address}/late.vtt", "ext": "vtt"}]}
    site.answer("/late.vtt", lambda request: request.send(b"slow down", status=429))
    one = got(platform(site, "late", film_bytes, subtitles=offered), tmp_path)
    assert (one.outcome, one.kind) == (Outcome.FAILED, "rate_limited")
    assert site.asked.count("/late.vtt") == 3
    assert "/late.mp4" not in site.asked


_NO_RUNTIME = "No supported JavaScript runtime could be found. Only deno is enabled by default"
REFUSED = [
    ("Private video. Sign in if you've been granted access", "refused", "private"),
    ("This video has been removed by the uploader", "refused", "removed"),
    ("Join this channel to get access to members-only content", "refused", "members_only"),
    ("Sign in to confirm your age. It may be inappropriate", "refused", "age_restricted"),
    ("The uploader has not made this video available in your country", "refused", "geo_blocked"),
    ("This video is DRM protected", "refused", "drm"),
    (
        "Sign in to confirm you’re not a bot. Use --cookies for it. See  http://x",
        "failed",
        "bot_check",
    ),
    ("Premieres in 3 hours", "later", "live"),
]


@pytest.mark.parametrize(
    ("told", "outcome", "kind"),
    [
        *(({"error": said}, outcome, kind) for said, outcome, kind in REFUSED),
        ({"live_status": "is_live"}, "later", "live"),
        ({"live_status": "is_upcoming"}, "later", "live"),
        ({"duration": 7 * 3600}, "refused", "too_long"),
        ({"warning": _NO_RUNTIME, "formats": [], "url": None}, "failed", "js_runtime"),
    ],
)
def test_what_a_platform_refuses_is_told_in_a_word_and_not_tried_again(
    site: Site, film_bytes: bytes, tmp_path: Path, told: dict, outcome: str, kind: str
) -> None:
    one = got(platform(site, "x", film_bytes, **told), tmp_path)
    assert (one.outcome, one.kind, one.path) == (outcome, kind, None)
    assert one.reason.startswith(f"{site.address}/watch/x: ")
    for noise in ("\n", "ERROR", "--cookies", "report this"):
        assert noise not in one.reason
    if kind == "js_runtime":
        assert "install deno" in one.reason
        assert "yt-dlp-ejs" in one.reason
    assert site.asked == ["/api/x"]
    assert outcome == "failed" or not list(tmp_path.glob("*.part"))


def test_a_stream_that_is_live_in_the_listing_is_not_asked_for(site: Site, tmp_path: Path) -> None:
    item = Item("0" * 16, f"{site.address}/watch/live", live_status="is_upcoming")
    assert fetch(item, settings_of(), tmp_path).outcome is Outcome.LATER
    assert site.asked == []


@pytest.mark.parametrize(
    ("path", "outcome", "kind"),
    [
        ("/words", "refused", "no_video"),
        ("/gone.mp4", "refused", "removed"),
        ("/missing.mp4", "failed", "not_found"),
        ("/noise.mp4", "failed", "not_a_video"),
        ("/half.mp4", "failed", "cut_off"),
        ("/begun.mp4", "failed", "not_a_video"),
        ("/out-of-order.mp4", "failed", "no_media"),
        ("/out-of-order.mp3?x=1", "failed", "not_a_video"),
    ],
)
def test_what_is_no_video_is_told_in_one_line_and_not_kept(
    site: Site, film_bytes: bytes, tmp_path: Path, path: str, outcome: str, kind: str
) -> None:
    site.page("/words", "Nothing but words.")
    site.answer("/gone.mp4", lambda request: request.send(b"", status=410))
    site.file("/noise.mp4", bytes(range(256)) * 400)
    site.file("/half.mp4", film_bytes[: len(film_bytes) // 2])
    site.file("/begun.mp4", film_bytes[:1000])
    site.page("/out-of-order.mp4", "We are back at noon.")
    site.file("/out-of-order.mp3?x=1", b"We are back at noon.", "text/plain")
    one = got(site.address + path, tmp_path)
    assert (one.outcome, one.kind, one.path) == (outcome, kind, None)
    assert one.reason.startswith(f"{site.address}{path}: ")
    assert "\n" not in one.reason
    assert ".part" not in one.reason
    assert list(tmp_path.glob("*/*.mp*")) == []
    # What was wrong may be mended: the same address is fetched another day.
    site.file(path, film_bytes)
    assert fetch(one.item, settings_of(), tmp_path).outcome is Outcome.FETCHED


def test_a_server_that_is_busy_is_asked_again(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    item = Item("a" * 16, f"{site.address}/busy.mp4", asked=True)
    site.answer("/busy.mp4", lambda request: request.send(b"busy", status=503))
    one = fetch(item, settings_of(), tmp_path)
    assert (one.outcome, one.kind) == (Outcome.FAILED, "server_error")
    assert len(site.asked) == 3

    def recovers(request: Request) -> None:
        if len(site.asked) < 6:
            request.send(b"busy", status=503, Retry_After="0")
        else:
            request.send(film_bytes, "video/mp4")

    site.answer("/busy.mp4", recovers)
    assert fetch(item, settings_of(), tmp_path).outcome is Outcome.FETCHED


def test_a_server_that_asks_to_wait_too_long_is_left(site: Site, tmp_path: Path) -> None:
    item = Item("a" * 16, f"{site.address}/busy.mp4", asked=True)
    site.answer("/busy.mp4", lambda one: one.send(b"", status=429, Retry_After="3600"))
    assert fetch(item, settings_of(), tmp_path).kind == "rate_limited"
    assert len(site.asked) == 1


class Cut:
    """A file whose connection breaks in the middle, once for each of some bodies."""

    def __init__(self, body: bytes, tag: str = '"one"', times: int = 1) -> None:
        self.body, self.tag, self.left = body, tag, times
        self.ranges: list[str] = []
        self.sent = threading.Event()

    def __call__(self, request: Request) -> None:
        self.ranges.append(request.headers.get("Range", ""))
        # The first request only looks at what kind of file it is.
        if len(self.ranges) > 1 and self.left:
            self.left -= 1
            request.head(
                Content_Type="video/mp4", Content_Length=str(len(self.body)), ETag=self.tag
            )
            request.wfile.write(self.body[: len(self.body) // 2])
            self.sent.set()
        else:
            request.send_range(self.body, self.tag)


def test_a_download_that_is_cut_is_resumed(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    cut = Cut(film_bytes)
    item = Item("a" * 16, site.answer("/cut.mp4", cut), asked=True)
    one = fetch(item, settings_of(), tmp_path)
    assert one.outcome is Outcome.FETCHED
    assert one.path.read_bytes() == film_bytes
    assert cut.ranges[-1] == f"bytes={len(film_bytes) // 2}-"


def test_a_download_is_resumed_by_the_next_run(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    cut = Cut(film_bytes)
    item = Item("a" * 16, site.answer("/cut.mp4", cut), asked=True)
    one = fetch(item, settings_of(download={"retries": 0}), tmp_path)
    assert (one.outcome, one.kind) == (Outcome.FAILED, "network")
    assert unfinished(tmp_path) == [".resume.json", f"{'a' * 16}.info.json", f"{'a' * 16}.mp4.part"]
    one = fetch(item, settings_of(), tmp_path)
    assert one.path.read_bytes() == film_bytes
    assert cut.ranges[-1] == f"bytes={len(film_bytes) // 2}-"
    assert unfinished(tmp_path) == []


@pytest.mark.parametrize("told", ["by its tag", "by its size"])
def test_a_file_that_changed_is_not_mixed_with_the_part_of_the_old_one(
    site: Site, film_bytes: bytes, tmp_path: Path, told: str
) -> None:
    cut = Cut(film_bytes)
    item = Item("a" * 16, site.answer("/cut.mp4", cut), asked=True)
    assert fetch(item, settings_of(download={"retries": 0}), tmp_path).path is None
    short = film(tmp_path, 1)
    new = short if told == "by its size" else short.ljust(len(film_bytes), b"\0")
    cut.body, cut.tag = new, '"one"' if told == "by its size" else '"two"'
    one = fetch(item, settings_of(), tmp_path)
    assert one.path.read_bytes() == new


def test_new_content_at_an_address_is_fetched_after_eviction(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    url = site.talk("/talk", film_bytes, "Good morning.", "A talk")
    media = tmp_path / "media"
    old = got(url, media)
    assert old.path.read_bytes() == film_bytes
    evict(media, old.path)
    new = film(tmp_path, 1)
    site.talk("/talk", new, "Good evening.", "Another talk")
    one = got(url, media)
    assert one.path == old.path
    assert one.path.read_bytes() == new
    assert "evening" in one.path.with_name(f"{one.item.source_id}.en.vtt").read_text()
    assert "Another" in one.path.with_name(f"{one.item.source_id}.info.json").read_text()


_FETCH = """
import sys
from pathlib import Path
from tests.ingest.conftest import settings_of
from vsa_core.ingest.listing import Item
from vsa_core.ingest.web import fetch
fetch(Item("a" * 16, sys.argv[1], asked=True), settings_of(), Path(sys.argv[2]))
"""


def test_a_killed_download_is_resumed(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    halted, go_on = threading.Event(), threading.Event()
    ranges: list[str] = []

    def halts(request: Request) -> None:
        ranges.append(request.headers.get("Range", ""))
        if len(ranges) != 2:
            request.send_range(film_bytes, '"one"')
            return
        request.head(Content_Type="video/mp4", Content_Length=str(len(film_bytes)), ETag='"one"')
        request.wfile.write(film_bytes[: len(film_bytes) // 2])
        request.wfile.flush()
        halted.set()
        go_on.wait(30)

    url = site.answer("/halts.mp4", halts)
    process = subprocess.Popen([sys.executable, "-c", _FETCH, url, str(tmp_path)])
    assert halted.wait(30)
    part = tmp_path / ("a" * 16 + ".part") / ("a" * 16 + ".mp4.part")
    until = time.monotonic() + 10
    while not (part.exists() and (part.parent / ".resume.json").exists() and part.stat().st_size):
        assert time.monotonic() < until
        time.sleep(0.01)
    with claimed(part.parent) as ours:
        assert not ours  # somebody works at it
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    go_on.set()
    one = fetch(Item("a" * 16, url, asked=True), settings_of(), tmp_path)
    assert one.path.read_bytes() == film_bytes
    assert ranges[-1].startswith("bytes=")
    assert ranges[-1] != "bytes=0-"


def test_what_another_run_fetches_is_left_to_it(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    item = Item("a" * 16, site.file("/talk.mp4", film_bytes), asked=True)
    with claimed(tmp_path / ("a" * 16 + ".part")):
        one = fetch(item, settings_of(), tmp_path)
    assert (one.outcome, one.kind) == (Outcome.FAILED, "busy")
    assert site.asked == []
    assert fetch(item, settings_of(), tmp_path).outcome is Outcome.FETCHED


def endless(request: Request) -> None:
    """A video that never ends and does not say how long it is."""
    request.head(Content_Type="video/mp4")
    while True:
        request.wfile.write(bytes(50_000))


def lying(request: Request) -> None:
    """A video that says it is short and goes on."""
    request.head(Content_Type="video/mp4", Transfer_Encoding="chunked")
    while True:
        request.wfile.write(b"c350\r\n" + bytes(50_000) + b"\r\n")


def trickling(request: Request) -> None:
    """A page of a byte now and then."""
    request.head(Content_Type="text/html")
    while True:
        request.wfile.write(b" ")
        time.sleep(0.05)


def never_begins(request: Request) -> None:
    """Headers that never end."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        request.wfile.write(b"X")
        time.sleep(0.05)


@pytest.mark.parametrize("answer", [endless, lying])
def test_an_endless_download_is_cut_off_at_its_size(
    site: Site, tmp_path: Path, answer: object
) -> None:
    item = Item("a" * 16, site.answer("/endless.mp4", answer), asked=True)
    one = fetch(item, settings_of(sources={"max_download_mb": 1}), tmp_path)
    assert (one.outcome, one.kind) == (Outcome.REFUSED, "too_large")
    assert "sources.max_download_mb" in one.reason
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_says_it_is_too_large_is_not_begun(site: Site, tmp_path: Path) -> None:
    item = Item("a" * 16, site.file("/large.mp4", bytes(1_000_001)), asked=True)
    one = fetch(item, settings_of(sources={"max_download_mb": 1}), tmp_path)
    assert one.kind == "too_large"


@pytest.mark.parametrize("answer", [endless, trickling, never_begins])
def test_what_takes_too_long_is_cut_off(site: Site, tmp_path: Path, answer: object) -> None:
    item = Item("a" * 16, site.answer("/endless.mp4", answer), asked=True)
    settings = settings_of(download={"time_limit_s": 0.6, "rate_limit_kb_s": 100})
    one = fetch(item, settings, tmp_path)
    assert (one.outcome, one.kind) == (Outcome.FAILED, "time_limit")
    assert "download.time_limit_s" in one.reason


def test_a_person_who_stops_the_run_stops_the_download(site: Site, tmp_path: Path) -> None:
    class Stop:
        asked = 0

        def begin(self, stage: str, total: int) -> None: ...

        def advance(self, stage: str, items: float) -> None:
            if list(tmp_path.glob("*/*.mp4.part")):
                raise Interrupted

    item = Item("a" * 16, site.answer("/endless.mp4", endless), asked=True)
    token = LISTENER.set(Stop())
    try:
        with pytest.raises(Interrupted):
            fetch(item, settings_of(), tmp_path)
    finally:
        LISTENER.reset(token)
    assert f"{'a' * 16}.mp4.part" in unfinished(tmp_path)


def test_a_full_disk_is_our_own_error(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    (tmp_path / "media").write_text("in the way")
    item = Item("a" * 16, site.file("/talk.mp4", film_bytes), asked=True)
    with pytest.raises(StoreError, match=r"media.* cannot be written"):
        fetch(item, settings_of(), tmp_path / "media")


def test_the_smallest_format_that_is_enough_is_taken(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    large = site.file("/large.mp4", film_bytes + bytes(99))
    formats = [
        {"format_id": "small", "url": site.file("/s.mp4", film_bytes), "height": 360},
        {"format_id": "large", "url": large, "height": 1080},
        {"format_id": "silent", "url": large, "height": 480, "acodec": "none"},
        {"format_id": "live", "url": "rtmp://127.0.0.1/x", "height": 480},
    ]
    full = [{"vcodec": "avc1", "acodec": "mp4a", "ext": "mp4", **one} for one in formats]
    one = got(platform(site, "many", film_bytes, formats=full, url=None), tmp_path)
    assert one.path.read_bytes() == film_bytes
    told = json.loads(one.path.with_name(f"{one.item.source_id}.info.json").read_text())
    assert told["format_id"] == "small"


def test_a_stream_in_segments(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    third = -(-len(film_bytes) // 3)
    lines = "".join(f"#EXTINF:1,\npart{n}.ts\n" for n in range(3))
    for n in range(3):
        site.file(f"/part{n}.ts", film_bytes[n * third : (n + 1) * third], "video/mp2t")
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n"
    url = site.file(
        "/film.m3u8", f"{head}{lines}#EXT-X-ENDLIST\n".encode(), "application/x-mpegURL"
    )
    one = got(url, tmp_path)
    assert one.outcome is Outcome.FETCHED
    assert one.path.read_bytes() == film_bytes
    assert probe(one.path).has_video
