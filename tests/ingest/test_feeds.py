"""Feeds as they are found in the wild, served on loopback and read by the real yt-dlp."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ingest.conftest import settings_of
from tests.small_site import VTT, Site
from vsa_core.errors import SourceError
from vsa_core.ingest import fetched as named
from vsa_core.ingest import find_videos, ingest
from vsa_core.ingest.addresses import source_id
from vsa_core.ingest.listing import Item, listed
from vsa_core.ingest.web import Outcome, fetch
from vsa_core.store import Store
from vsa_core.transcripts.captions import find_captions, read_captions

_SPACES = (
    'xmlns:itunes="http://www.itunes.com/dtds/podcast-1.0.dtd" '
    'xmlns:media="http://search.yahoo.com/mrss/" '
    'xmlns:podcast="https://podcastindex.org/namespace/1.0"'
)


def rss(*items: str, head: str = "", before: str = '<?xml version="1.0"?>', more: str = "") -> str:
    """An RSS feed of some items; an item without a title is Talk <n>."""
    told = "".join(
        f"<item>{'' if '<title' in one else f'<title>Talk {n}</title>'}{one}</item>"
        for n, one in enumerate(items)
    )
    return (
        f'{before}<rss version="2.0" {_SPACES} {more}><channel><title>A small show</title>{head}'
        f"{told}</channel></rss>"
    )


def enclosure(url: str, kind: str | None = "video/mp4") -> str:
    """One enclosure."""
    return f'<enclosure url="{url}"' + (f' type="{kind}"' if kind is not None else "") + "/>"


def atom(*entries: str, more: str = "") -> str:
    """An Atom feed of some entries."""
    told = "".join(f"<entry><title>Talk {n}</title>{one}</entry>" for n, one in enumerate(entries))
    return (
        f'<feed xmlns="http://www.w3.org/2005/Atom" {more}><title>A small show</title>{told}</feed>'
    )


def paths(site: Site, body: str | bytes, kind: str = "text/xml", **sections: Any) -> list[str]:
    """What a feed served at /shows/feed leads to, without the site's address."""
    raw = body.encode() if isinstance(body, str) else body
    url = site.file("/shows/feed", raw, kind)
    return [item.url.removeprefix(site.address) for item in listed(url, settings_of(**sections))]


def one(site: Site, body: str | bytes, kind: str = "text/xml") -> Item:
    """The only episode of a feed."""
    raw = body.encode() if isinstance(body, str) else body
    (item,) = listed(site.file("/shows/feed", raw, kind), settings_of())
    return item


# --- what is read -------------------------------------------------------------------------

_LINK = enclosure("/1.mp4")
READ: dict[str, tuple[str | bytes, str]] = {
    "a blank line first": (rss(_LINK, before='\n \n<?xml version="1.0"?>'), "Talk 0"),
    "a byte order mark": (b"\xef\xbb\xbf" + rss(_LINK).encode(), "Talk 0"),
    "two marks and a line": (b"\xef\xbb\xbf\xef\xbb\xbf\n" + rss(_LINK).encode(), "Talk 0"),
    "no declaration": (rss(_LINK, before=""), "Talk 0"),
    "a comment first": (rss(_LINK, before="<!-- a > b --><?xml-stylesheet href='x'?>"), "Talk 0"),
    "a document type": (
        rss(_LINK, before='<!DOCTYPE rss PUBLIC "-//x//DTD" "http://127.0.0.1:1/rss.dtd">'),
        "Talk 0",
    ),
    "a declared space": (
        rss(
            f"<title>We&nbsp;love</title>{_LINK}",
            before='<!DOCTYPE rss [<!ENTITY nbsp "&#160;">]>',
        ),
        "We\xa0love",
    ),
    "entities of HTML": (rss(f"<title>a&nbsp;&eacute;t&hellip;</title>{_LINK}"), "a\xa0ét…"),
    "an unknown entity": (rss(f"<title>A &nosuch; B</title>{_LINK}"), "A &nosuch; B"),
    "a bare ampersand": (rss(f"<title>Q & A &amp; R&D; x</title>{_LINK}"), "Q & A & R&D; x"),
    "an ampersand in a link": (rss(enclosure("/1.mp4?a=1&b=2")), "Talk 0"),
    "character data": (rss(f"<title><![CDATA[Q & A <&nbsp;>]]></title>{_LINK}"), "Q & A <&nbsp;>"),
    "control characters": (rss(f"<title>Go\x0bod\x00&#8;&#xFFFF;</title>{_LINK}"), "Good"),
    "UTF-16": (rss(f"<title>Größe</title>{_LINK}").encode("utf-16"), "Größe"),
    "Latin-1, undeclared": (rss(f"<title>Größe</title>{_LINK}").encode("latin-1"), "Größe"),
    "Windows-1252 called Latin-1": (
        rss(
            f"<title>Größe \u2013 \u201ea\u201c</title>{_LINK}",
            before='<?xml version="1.0" encoding="ISO-8859-1"?>',
        ).encode("cp1252"),
        "Größe \u2013 \u201ea\u201c",
    ),
    "UTF-8 called Latin-1": (
        rss(
            f"<title>Größe</title>{_LINK}", before='<?xml version="1.0" encoding="latin1"?>'
        ).encode(),
        "Größe",
    ),
    "Cyrillic": (
        rss(
            f"<title>Привет</title>{_LINK}", before='<?xml version="1.0" encoding="windows-1251"?>'
        ).encode("cp1251"),
        "Привет",
    ),
    "one byte cut off": (
        rss(f"<title>Größe ä ö ü</title>{_LINK}<description>äöüäöü ?</description>")
        .encode()
        .replace(b"?</desc", b"\xc3</desc"),
        "Größe ä ö ü",
    ),
    "an undeclared prefix": (rss(f"<googleplay:author>x</googleplay:author>{_LINK}"), "Talk 0"),
    "another prefix": (
        rss('<m:content url="/1.mp4" type="video/mp4"/>', more='xmlns:m="http://search.yahoo.com/mrss/"'),
        "Talk 0",
    ),
    "white space in a title": (rss(f"<title>\n  Good\n  morning </title>{_LINK}"), "Good morning"),
    "a title in HTML": (
        atom('<link rel="enclosure" href="/1.mp4"/>').replace(
            "<title>Talk 0", '<title type="html">Q &amp;amp; A'
        ),
        "Q & A",
    ),
    "titles of other things": (
        rss(
            f"<image><title>No</title></image><media:content url='/x.jpg' type='image/jpeg'>"
            f"<media:title>No</media:title></media:content><title>Yes</title>{_LINK}"
        ),
        "Yes",
    ),
    "RDF": (
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns="http://purl.org/rss/1.0/"'
        ' xmlns:enc="http://purl.oclc.org/net/rss_2.0/enc#"><channel><title>S</title><items>'
        "<rdf:Seq>"
        '<rdf:li resource="x"/></rdf:Seq></items></channel><item rdf:about="x"><title>Talk</title>'
        '<link>/page</link><enc:enclosure rdf:resource="/1.mp4" enc:type="video/mp4"/></item>'
        "</rdf:RDF>",
        "Talk",
    ),
    "Atom": (atom('<link rel="enclosure" href="/1.mp4" type="video/mp4"/>'), "Talk 0"),
    "Atom 0.3 with content": (
        '<feed xmlns="http://purl.org/atom/ns#"><entry><title>Talk</title>'
        '<content type="video/mp4" src="/1.mp4"/></entry></feed>',
        "Talk",
    ),
    "Atom with prefixes": (
        '<a:feed xmlns:a="http://www.w3.org/2005/Atom"><a:entry><a:title>Talk</a:title>'
        '<a:link rel="enclosure" href="/1.mp4"/></a:entry></a:feed>',
        "Talk",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_feed_is_read_as_players_read_it(site: Site, name: str) -> None:
    body, title = READ[name]
    item = one(site, body)
    assert item.url.startswith(f"{site.address}/1.mp4")
    assert item.title == title
    assert not item.asked


@pytest.mark.parametrize("version", ["1", "1.1"])
@pytest.mark.parametrize("kind", ["application/json", "application/feed+json", "text/plain"])
def test_a_json_feed(site: Site, version: str, kind: str) -> None:
    files = [
        {"url": "notes.pdf", "mime_type": "application/pdf"},
        {"url": "1.mp4", "mime_type": "video/mp4", "duration_in_seconds": 61.5},
    ]
    items = [
        {
            "id": 7,
            "title": "Talk",
            "date_published": "2019-10-01T10:00:00+02:00",
            "attachments": files,
        },
        {"id": "8", "url": "https://www.youtube.com/watch?v=aaaaaaaaaa1"},
        "nonsense",
    ]
    feed = {"version": f"https://jsonfeed.org/version/{version}", "title": "S", "items": items}
    url = site.file("/shows/feed", b" \n" + json.dumps(feed).encode(), kind)
    first, second = listed(url, settings_of())
    assert first.url == f"{site.address}/shows/1.mp4"
    assert (first.title, first.duration_s) == ("Talk", 61.5)
    assert first.published_at.isoformat() == "2019-10-01T08:00:00+00:00"
    assert second.source_id == source_id("Youtube", "aaaaaaaaaa1", "")


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("<rss><channel><item></channel></rss>", "text/xml", r"line 1: mismatched tag"),
        ("\n\n<rss>\n<channel>\n<item <x>\n</rss>", "text/xml", r"line 5: "),
        ("<html>Back at noon</html>", "application/rss+xml", r"it begins with '<html>Back"),
        ("", "application/rss+xml", r"does not parse as a feed"),
        (rss(), "text/xml", r"holds no items"),
        (rss(enclosure("x.pdf", "application/pdf"), "<link/>"), "text/xml",
         r"no media \(items: 2; seen: application/pdf\)"),
        (rss(enclosure("ftp://x/1.mp4")), "text/xml", r"no media \(items: 1; seen: no file\)"),
        ('{"version": "https://jsonfeed.org/version/1", "items": {}}', "text/plain", "no list of"),
        ('{"version": "https://jsonfeed.org/version/1", "items": [', "text/plain", "JSON feed"),
        ("{" + '"a":{' * 5000 + "}" * 5000 + "}", "application/feed+json", "nested too deep"),
        ("<rss>" + "<a>" * 500, "text/xml", "nested more than 200 deep"),
        ("<rss " + "a='b' " * 200_000 + ">", "text/xml", "a tag of more than 1 MB"),
    ],
)  # fmt: skip
def test_a_feed_that_yields_nothing_is_told_in_one_line(
    site: Site, body: str, kind: str, said: str
) -> None:
    url = site.file("/feed", body.encode(), kind)
    with pytest.raises(SourceError, match=said) as told:
        listed(url, settings_of())
    assert str(told.value).startswith(f"{url}: ")
    assert "\n" not in str(told.value)


# --- which file ---------------------------------------------------------------------------


def content(url: str, **said: object) -> str:
    """A media:content."""
    return f'<media:content url="{url}" ' + " ".join(f'{k}="{v}"' for k, v in said.items()) + "/>"


_MP4 = enclosure("ok.mp4")
CHOSEN: dict[str, str] = {
    "a torrent first": enclosure("a.torrent", "application/x-bittorrent") + _MP4,
    "a torrent that says it is a video": enclosure("a.torrent") + _MP4,
    "a picture first": enclosure("a.jpg", "image/jpeg") + _MP4,
    "a page first": "<link>/page</link>" + enclosure("a.html", "text/html") + _MP4,
    "a transcript first": enclosure("a.vtt", "text/vtt") + _MP4,
    "no type": enclosure("ok.mp4", None),
    "an empty type": enclosure("ok.mp4", ""),
    "a vague type": enclosure("ok.mp4?x=1", "application/octet-stream"),
    "a wrong type": enclosure("ok.mp4", "text/html"),
    "no ending": enclosure("ok.mp4/download"),
    "nothing but an address": enclosure("ok.mp4/get", None),
    "a type in capitals": enclosure("ok.mp4/get", "Video/MP4; codecs=avc1"),
    "media:content": "<link>/page</link>" + content("ok.mp4", type="video/mp4"),
    "a medium": content("x", medium="image") + content("ok.mp4/x", medium="video"),
    "a group": "<media:group>" + content("a.png", type="image/png") + content("ok.mp4", height=240)
    + "</media:group>",
    "the best that is enough": content("a.mp4", type="video/mp4", height=1080)
    + content("b.mp4", type="video/mp4", height=240)
    + content("ok.mp4", type="video/mp4", height=480)
    + content("c.mp4", type="video/mp4", height=720),
    "the smallest where all are large": content("a.mp4", type="video/mp4", height=1080)
    + content("ok.mp4", type="video/mp4", height=720),
    "a picture before sound": enclosure("a.mp3", "audio/mpeg") + _MP4,
    "a picture without an ending": enclosure("a.mp3", "audio/mpeg") + enclosure("ok.mp4/get"),
    "no sample": content("a.mp4", type="video/mp4", expression="sample", height=480)
    + content("ok.mp4", type="video/mp4", height=240),
    "sound that is enough": content("a.mp3", type="audio/mpeg", bitrate=320)
    + content("ok.mp4.mp3", type="audio/mpeg", bitrate=128)
    + content("b.mp3", type="audio/mpeg", bitrate=64),
    "an alternative": enclosure("a.mp3", "audio/mpeg")
    + '<podcast:alternateEnclosure type="video/mp4" height="480"><podcast:source uri="ipfs://x"/>'
    '<podcast:source uri="ok.mp4"/></podcast:alternateEnclosure>',
    "white space": enclosure("\n  ok.mp4 "),
    "a base": '<x xml:base="/nothing/"/>' + enclosure("ok.mp4"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHOSEN)
def test_of_what_an_item_has_the_media_is_taken(site: Site, name: str) -> None:
    (path,) = paths(site, rss(CHOSEN[name]))
    assert path.startswith("/shows/ok.mp4")


def test_links_are_resolved_against_the_nearest_base(site: Site, film_bytes: bytes) -> None:
    inside = '<link rel="enclosure" type="video/mp4" href="{}"/>'
    body = atom(inside.format("a.mp4"), inside.format("/b.mp4"), inside.format("//h.test/c.mp4"),
                more=f'xml:base="{site.address}/base/"')  # fmt: skip
    body = body.replace("<entry>", '<entry xml:base="deep/">', 1)
    assert paths(site, body) == ["/base/deep/a.mp4", "/b.mp4", "http://h.test/c.mp4"]
    # Where the feed has moved, its new place is the base.
    site.answer("/old", lambda r: r.send(b"", status=301, Location="/shows/feed"))
    site.file(
        "/shows/feed", rss(enclosure("ep 1.mp4"), enclosure("größe.mp4")).encode(), "text/xml"
    )
    items = listed(f"{site.address}/old", settings_of())
    assert [item.url.removeprefix(site.address) for item in items] == [
        "/shows/ep%201.mp4", "/shows/größe.mp4",
    ]  # fmt: skip
    for path in ("/shows/ep%201.mp4", "/shows/gr%C3%B6%C3%9Fe.mp4"):
        site.file(path, film_bytes)


def test_what_has_no_media_leads_to_its_page(site: Site) -> None:
    body = rss("<link>/page</link>", '<link>/a</link><guid isPermaLink="false">x</guid>')
    assert paths(site, body) == ["/page", "/a"]
    video = "https://www.youtube.com/watch?v=aaaaaaaaaa1"
    flash = (
        '<media:content url="https://www.youtube.com/v/x" type="application/x-shockwave-flash"/>'
    )
    entry = f'<link rel="alternate" href="{video}"/><media:group>{flash}</media:group>'
    assert paths(site, atom(entry)) == [video]


def test_ids_name_episodes_and_no_two_the_same(site: Site) -> None:
    guid = "<guid>https://podcast.example.org/?p=1</guid>"
    item = one(site, rss(f"{guid}{enclosure('a.mp4?signed=1')}"))
    assert item.source_id == source_id("feed", "https://podcast.example.org/?p=1", "")
    assert one(site, rss(f"{guid}{enclosure('a.mp4?signed=2')}")).source_id == item.source_id
    assert len(paths(site, rss(f"{guid}{enclosure('a.mp4')}", f"{guid}{enclosure('b.mp4')}"))) == 2


def test_the_pages_of_a_feed_are_read_once_each(site: Site) -> None:
    def page(n: int, following: str) -> str:
        link = f'<atom:link rel="next" href="{following}"/>'
        return rss(f"<title>Talk {n}</title>{enclosure(f'{n}.mp4')}", head=link)

    site.file("/shows/2", page(2, "feed").encode(), "text/xml")
    assert paths(site, page(1, "2")) == ["/shows/1.mp4", "/shows/2.mp4"]
    assert site.asked == ["/shows/feed", "/shows/2"]
    site.asked.clear()
    assert paths(site, page(1, "")) == ["/shows/1.mp4"]
    more = {"version": "https://jsonfeed.org/version/1", "next_url": "2", "items": []}
    assert paths(site, json.dumps(more), "application/json") == ["/shows/2.mp4"]


# --- what is known of an episode ----------------------------------------------------------

_DATE = "<pubDate>Tue, 01 Oct 2019 10:00:00 +0200</pubDate>"
_HEAD = "<language>en-us</language>"


def row_of(site: Site, body: str, tmp_path: Path, **sections: Any) -> dict[str, Any]:
    """The row of the videos table that a feed's only episode becomes."""
    settings, store = settings_of(**sections), Store(tmp_path / "store")
    url = site.file("/shows/feed", body.encode(), "text/xml")
    (found,) = find_videos([url], settings, store)
    got = fetch(found.item, settings, tmp_path / "media")
    assert got.outcome is Outcome.FETCHED, got.reason
    return store.read(ingest(named(found, got), settings, store)).to_pylist()[0]


def late(body: bytes) -> Callable[[Any], None]:
    """A film that was written in 2024."""
    return lambda one: one.send(body, "video/mp4", Last_Modified="Mon, 01 Jan 2024 10:00:00 GMT")


@pytest.mark.parametrize(
    ("date", "wanted"),
    [
        ("<pubDate>Tue, 01 Oct 2019 10:00:00 EST</pubDate>", "2019-10-01T15:00:00+00:00"),
        ("<pubDate>1 Oct 19 10:00 +0200</pubDate>", "2019-10-01T08:00:00+00:00"),
        ("<dc:date>2019-10-01T10:00:00.5+02:00</dc:date>", "2019-10-01T08:00:00+00:00"),
        ("<published>2019-10-01T10:00:00Z</published>", "2019-10-01T10:00:00+00:00"),
        ("<updated>2019-10-02T10:00:00Z</updated>", "2019-10-02T10:00:00+00:00"),
        ("<pubDate>Tue 99999999999:00:00 +99:99</pubDate>", None),
        ("<pubDate>soon</pubDate>", None),
    ],
)
def test_dates_in_every_form(site: Site, date: str, wanted: str | None) -> None:
    published = one(site, rss(date + enclosure("a.mp4"))).published_at
    assert (published and published.isoformat()) == wanted


@pytest.mark.parametrize("dated", [True, False])
def test_facts_are_the_feeds_and_not_the_media_files(
    site: Site, film_bytes: bytes, tmp_path: Path, dated: bool
) -> None:
    site.answer("/shows/media_0001.mp4", late(film_bytes))
    guid = "<podcast:guid>917393e3-1b1e-5cef-ace4-edaa54e1f810</podcast:guid>"
    item = (
        f"<title>We love it &amp; more</title>{_DATE if dated else ''}{enclosure('media_0001.mp4')}"
    )
    row = row_of(site, rss(item, head=_HEAD + guid), tmp_path)
    assert row["title"] == "We love it & more"
    assert (row["published_at"] and row["published_at"].isoformat()) == (
        "2019-10-01T08:00:00+00:00" if dated else None
    )
    assert (row["channel"], row["language"]) == ("A small show", "en-US")
    assert row["channel_id"] == "917393e3-1b1e-5cef-ace4-edaa54e1f810"
    assert row["source_url"] == f"{site.address}/shows/media_0001.mp4"


def test_a_channel_without_an_id_is_named_by_its_address(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    site.file("/shows/a.mp4", film_bytes)
    row = row_of(site, atom('<link rel="enclosure" href="a.mp4"/>'), tmp_path)
    assert row["channel_id"] == f"{site.address}/shows/feed"


def test_a_site_that_knows_its_videos_knows_better_than_a_feed(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    facts = {
        "url": site.file("/f.mp4", film_bytes),
        "ext": "mp4",
        "title": "Theirs",
        "channel": "Us",
    }
    site.file("/api/v1", json.dumps(facts).encode(), "application/json")
    row = row_of(site, rss(f"<link>{site.address}/watch/v1</link>{_DATE}"), tmp_path)
    assert (row["title"], row["channel"]) == ("Theirs", "Us")
    assert row["published_at"].isoformat() == "2019-10-01T08:00:00+00:00"  # which they do not say


@pytest.mark.parametrize(
    ("said", "seconds"), [("01:02:03", 3723), ("62:03", 3723), ("3723", 3723), ("soon", None)]
)
def test_filters_see_what_the_feed_says(site: Site, said: str, seconds: float | None) -> None:
    item = f"<itunes:duration>{said}</itunes:duration>{_DATE}{enclosure('a.mp4')}"
    assert one(site, rss(item)).duration_s == seconds
    many = paths(site, rss(item), filters={"min_duration_s": 4000, "max_videos": 3})
    assert len(many) == (seconds is None)
    assert paths(site, rss(item), filters={"published_after": "2019-10-02"}) == []


# --- transcripts --------------------------------------------------------------------------

_VTT = VTT.format("Good morning.")
_SRT = "1\n00:00:00,000 --> 00:00:01,500\nGood morning.\n"
_JSON = json.dumps(
    {
        "version": "1.0.0",
        "segments": [
            {"speaker": "Ann", "startTime": 0, "endTime": 0.7, "body": "Good"},
            {"startTime": 0.7, "endTime": 1.5, "body": "morning."},
        ],
    }
)


def transcript(path: str, kind: str, language: str | None = "en") -> str:
    """A podcast:transcript."""
    spoken = f' language="{language}"' if language else ""
    return f'<podcast:transcript url="{path}" type="{kind}"{spoken}/>'


@pytest.mark.parametrize(
    ("body", "kind", "language"),
    [
        (_VTT, "text/vtt", "en"),
        (_VTT, "text/vtt; charset=utf-8", None),
        (_SRT, "application/x-subrip", "en-GB"),
        (_SRT, "application/srt", "en"),
        (_JSON, "application/json", "en"),
        (_JSON, "application/json", None),
    ],
)
def test_a_transcript_is_taken_as_captions(
    site: Site, film_bytes: bytes, tmp_path: Path, body: str, kind: str, language: str | None
) -> None:
    site.file("/shows/a.mp4", film_bytes)
    site.file("/shows/words?x=1", body.encode(), "application/octet-stream")
    site.file("/shows/page", b"<p>Good morning.</p>", "text/html")
    others = transcript("page", "text/html") + transcript("page", "text/plain")
    item = others + transcript("words?x=1", kind, language) + enclosure("a.mp4")
    got = fetch(one(site, rss(item)), settings_of(), tmp_path)
    captions = read_captions(find_captions(got.path, ["en"]), video=got.path)
    assert " ".join(cue.text for cue in captions.cues) == "Good morning."
    assert captions.cues[-1].end_ms == 1500
    assert "/shows/page" not in site.asked


@pytest.mark.parametrize("answer", [b"{", b'{"segments": [{}]}', b"[" * 9999, None])
def test_a_transcript_that_is_none_costs_no_video(
    site: Site, film_bytes: bytes, tmp_path: Path, answer: bytes | None
) -> None:
    site.file("/shows/a.mp4", film_bytes)
    if answer is not None:
        site.file("/shows/words", answer, "application/json")
    item = one(site, rss(transcript("words", "application/json") + enclosure("a.mp4")))
    got = fetch(item, settings_of(), tmp_path)
    assert got.outcome is Outcome.FETCHED
    assert find_captions(got.path, ["en"]) is None


def test_transcripts_lead_to_no_private_address(
    site: Site, film_bytes: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_here(address: str) -> bool:
        return address == "127.0.0.1"

    monkeypatch.setattr("vsa_core.ingest.guard.public", only_here)
    site.file("/shows/a.mp4", film_bytes)
    words = transcript("http://127.0.0.2:1/words.vtt", "text/vtt")
    public = settings_of(sources={"allow_private_addresses": False})
    url = site.file("/shows/feed", rss(words + enclosure("a.mp4")).encode(), "text/xml")
    (item,) = listed(url, public)
    assert fetch(item, public, tmp_path).outcome is Outcome.FETCHED
    nowhere = '<atom:link rel="next" href="http://127.0.0.2:1/"/>'
    site.file("/shows/feed", rss(enclosure("a.mp4"), head=nowhere).encode(), "text/xml")
    with pytest.raises(SourceError, match=r"127\.0\.0\.2.*not public"):
        listed(url, public, channel=True)


# --- the feeds of reports -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("bare_ampersand.xml", ["/amp/ep1.mp4"]),
        ("blank_first.xml", ["/blank/ep1.mp4"]),
        ("feed.json", ["/jf/ep1.mp4"]),
        ("media_content.xml", ["/mc/ep1.mp4"]),
        ("nbsp.xml", ["/nbsp/ep1.mp4"]),
        ("relative.xml", ["/rel/ep1.mp4", "/shows/rel/ep2.mp4"]),
        ("torrent_first.xml", ["/t/ep1.mp4"]),
        ("transcript.xml", ["/tr/ep1.mp4"]),
        ("two_enclosures.atom", ["/base/ep1.mp4"]),
    ],
)
def test_feeds_that_people_had_trouble_with(
    site: Site, shared: Path, name: str, wanted: list[str]
) -> None:
    body = (shared / "faults" / "feeds" / name).read_text(encoding="utf-8")
    port = re.sub(r".*:", "", site.address)
    found = paths(site, body.replace("PORT", port))
    assert sorted(found) == sorted(wanted)
