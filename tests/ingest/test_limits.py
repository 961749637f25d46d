"""Few bytes that stand for much: what they become is bounded, and one line says by what."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ingest.conftest import settings_of
from tests.small_site import Site
from vsa_core.errors import SourceError
from vsa_core.ingest import find_videos, ingest
from vsa_core.ingest.listing import listed
from vsa_core.ingest.web import Outcome, fetch
from vsa_core.store import Store

_MPD = 'xmlns="urn:mpeg:dash:schema:mpd:2011" mediaPresentationDuration="PT1H"'
_TEMPLATE = '<SegmentTemplate media="$Number$.m4s" {}>{}</SegmentTemplate>'
_SMOOTH = '<StreamIndex Type="video" Url="Q({{bitrate}})">{}</StreamIndex>'


def dash(template: str, renditions: int = 1, periods: int = 1) -> str:
    """A DASH manifest."""
    each = "".join(f'<Representation id="{n}" bandwidth="9"/>' for n in range(renditions))
    inside = f'<AdaptationSet mimeType="video/mp4">{template}{each}</AdaptationSet>'
    return f"<MPD {_MPD}>" + f"<Period>{inside}</Period>" * periods + "</MPD>"


def timeline(repeats: int) -> str:
    """A template of so many segments, in one element."""
    line = f"<SegmentTimeline><S d='1' r='{repeats - 1}'/></SegmentTimeline>"
    return _TEMPLATE.format('timescale="1"', line)


def feed(items: int) -> str:
    """A feed of so many episodes."""
    item = "<item><title>T</title><enclosure url='a.mp4' type='video/mp4'/></item>"
    return f"<rss><channel>{item * items}</channel></rss>"


_JSON_FEED = '{"version": "https://jsonfeed.org/version/1", "items": ['
BOMBS: dict[str, tuple[str, str]] = {
    "a time line": (dash(timeline(20_000_000)), "500,000 segments"),
    "short segments": (
        dash(_TEMPLATE.format('duration="1" timescale="1000000"', "")), "500,000 segments"
    ),
    "many renditions": (dash(timeline(1000), renditions=1000), "500,000 segments"),
    "empty renditions": (dash("", renditions=3000), "2,000 renditions"),
    "many periods": (dash(timeline(50_000), periods=50), "500,000 segments"),
    "smooth streaming": (
        "<SmoothStreamingMedia Duration='1'>"
        + _SMOOTH.format("<QualityLevel Bitrate='1'/><c d='1' r='20000000'/>")
        + "</SmoothStreamingMedia>",
        "500,000 segments",
    ),
    "a playlist": ("#EXTM3U\n#EXT-X-TARGETDURATION:1\n" + "a\n" * 300_000, "250,000 lines"),
    "a playlist in old lines": ("#EXTM3U\r" + "a\r" * 300_000, "250,000 lines"),
    "a master playlist": (
        "#EXTM3U\n" + "#EXT-X-STREAM-INF:BANDWIDTH=1\na.m3u8\n" * 3000, "2,000 renditions"
    ),
    "a feed": (feed(300_000), "20,000 items"),
    "a deep feed": ("<rss>" + "<a>" * 3_500_000, "3,000,000 tags"),
    "a feed of ampersands": (f"<rss>{'&' * 3_500_000}</rss>", "3,000,000 tags"),
    "a deep document": ("<smil>" + "<a>" * 600_000, "500,000 tags"),
    "a wide document": (f"<smil>{'<a/>' * 600_000}</smil>", "500,000 tags"),
    "attributes": ("<smil " + "".join(f"a{n}='' " for n in range(600_000)) + "/>", "500,000 tags"),
    "entities": ("<!DOCTYPE smil [<!ENTITY a '<b/>'>]><smil>&a;</smil>", "entities of its own"),
    "a page of films": ("<html>" + "<video src=a.mp4></video>" * 300_000, "500,000 tags"),
    "a wide JSON feed": (_JSON_FEED + "[]," * 1_000_001 + "1]}", "1,000,000 values"),
    "a deep JSON feed": (_JSON_FEED + "[" * 500_000, "nested too deep"),
    "a JSON feed of items": (_JSON_FEED + '{},' * 20_001 + "1]}", "20,000 items"),
    "a page without end": ("<html>" + " " * 33_000_000, "32 MB"),
}  # fmt: skip

_CHILD = """
import json, sys, tempfile
from pathlib import Path
from tests.ingest.conftest import settings_of
from vsa_core.errors import SourceError
from vsa_core.ingest.listing import listed
from vsa_core.ingest.web import fetch
settings = settings_of(download={"retries": 0})
for url in sys.argv[1:]:
    try:
        (item,) = listed(url, settings)
        said = fetch(item, settings, Path(tempfile.mkdtemp())).reason
    except SourceError as error:
        said = str(error)
    print(json.dumps([url, said]))
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0])
"""


def test_no_address_becomes_more_than_it_may(site: Site) -> None:
    said = {}
    for number, (name, (body, wanted)) in enumerate(BOMBS.items()):
        kind = "application/x-mpegurl" if body.startswith("#") else "text/xml"
        kind = "application/feed+json" if body.startswith("{") else kind
        said[site.file(f"/{number}", body.encode(), kind)] = (name, wanted)
    packed = gzip.compress(bytes(50_000_000))
    for path, kind in (("/packed", "application/rss+xml"), ("/packed.html", "text/html")):
        url = site.answer(
            path, lambda one, kind=kind: one.send(packed, kind, Content_Encoding="gzip")
        )
        said[url] = (path, "32 MB|direct|decode")
    run = subprocess.run(
        [sys.executable, "-c", _CHILD, *said], capture_output=True, text=True, check=True
    )
    *lines, peak_kb = run.stdout.splitlines()
    for url, told in map(json.loads, lines):
        name, wanted = said[url]
        assert re.search(wanted, told), (name, told)
        assert told.startswith(url)
        assert "\n" not in told
    assert len(lines) == len(said)
    # 130 MB are there before anything is asked for; unbounded, each of these takes gigabytes.
    assert int(peak_kb) < 600_000


@pytest.mark.parametrize("loop", ["redirects", "longer and longer", "a page that refreshes"])
def test_what_leads_to_itself_ends(site: Site, tmp_path: Path, loop: str) -> None:
    if loop == "a page that refreshes":
        url = site.page("/x", '<meta http-equiv="refresh" content="0; url=/x">')
    else:
        steps = "/x" if loop == "redirects" else "/x?"
        for n in range(40):
            there = steps if loop == "redirects" else f"/x?{n + 1}"
            here = steps if loop == "redirects" else f"/x?{n}"
            site.answer(here, lambda one, there=there: one.send(b"", status=302, Location=there))
        url = site.address + (steps if loop == "redirects" else "/x?0")
    with pytest.raises(SourceError, match=r"redirect loop|holds no video"):
        listed(url, settings_of(download={"retries": 0}), channel=True)
    assert len(site.asked) < 20


@pytest.mark.parametrize("same", [True, False])
def test_the_pages_of_a_feed_end(site: Site, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    monkeypatch.setattr("vsa_core.ingest.feeds._MAX_PAGES", 9)
    for n in range(20):
        link = f'<link rel="next" href="/feed{n + 1}"/>'
        entry = f'<entry><link rel="enclosure" href="a{0 if same else n}.mp4"/></entry>'
        site.file(f"/feed{n}", f"<feed>{link}{entry}</feed>".encode(), "text/xml")
    if same:
        assert len(listed(f"{site.address}/feed0", settings_of())) == 1
        assert len(site.asked) == 2
    else:
        with pytest.raises(SourceError, match="more than 9 pages"):
            listed(f"{site.address}/feed0", settings_of())
        assert len(site.asked) == 9


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("[" * 200_000, "nested too deep"),
        ('{"a": [' + "[]," * 2_000_001 + "1]}", "more than 2,000,000 values"),
    ],
)
def test_facts_beside_a_film_cost_only_themselves(
    site: Site, film_bytes: bytes, tmp_path: Path, body: str, said: str
) -> None:
    (tmp_path / "film.mp4").write_bytes(film_bytes)
    (tmp_path / "film.info.json").write_text(body)
    store = Store(tmp_path / "store")
    (found,) = find_videos([str(tmp_path / "film.mp4")], settings_of(), store)
    (row,) = store.read(ingest(found, settings_of(), store)).to_pylist()
    assert (row["status"], row["title"]) == ("ok", "film")
    assert said in row["note"]


def test_a_manifest_of_a_long_film_is_read(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    # Six hours in two renditions; only the first segments are there.
    url = site.file("/film.mpd", dash(timeline(10_800), renditions=2).encode(), "text/xml")
    (item,) = listed(url, settings_of())
    got = fetch(item, settings_of(download={"retries": 0}), tmp_path)
    assert (got.outcome, got.kind) == (Outcome.FAILED, "not_found")
    assert "/1.m4s" in site.asked[-1]
