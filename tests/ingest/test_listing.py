"""What the real yt-dlp lists from a site of our own on loopback."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.ingest.conftest import settings_of
from tests.small_site import Request, Site, film
from vsa_core import archive
from vsa_core.errors import SourceError
from vsa_core.ingest.addresses import source_id
from vsa_core.ingest.listing import listed
from vsa_core.ingest.web import Outcome, fetch
from vsa_core.store import Store

DAY = timedelta(days=1)
NEW_YEAR = datetime(2024, 1, 1, 10, tzinfo=UTC)


def feed(site: Site, count: int) -> str:
    """An RSS feed of a talk a day, the oldest first; returns its URL."""
    items = [
        (
            f"Talk {n}",
            (NEW_YEAR + n * DAY).strftime("%a, %d %b %Y %H:%M:%S GMT"),
            f"{site.address}/talk{n}.mp4",
        )
        for n in range(count)
    ]
    return site.rss("/feed.xml", items)


def channel(site: Site, **tabs: list[dict]) -> str:
    """A channel of the small platform with tabs of pages of a hundred; returns its URL."""
    pages = {}
    for tab, videos in tabs.items():
        chunks = [videos[n : n + 100] for n in range(0, len(videos), 100)]
        pages[tab] = len(chunks)
        for number, chunk in enumerate(chunks):
            site.file(f"/api/us/{tab}/{number}", json.dumps(chunk).encode(), "application/json")
    site.file("/api/tabs/us", json.dumps(pages).encode(), "application/json")
    return f"{site.address}/@us"


def test_a_feed_of_thirty(site: Site) -> None:
    items = listed(feed(site, 30), settings_of())
    assert [item.title for item in items] == [f"Talk {n}" for n in range(29, -1, -1)]
    assert items[0].published_at == NEW_YEAR + 29 * DAY
    assert items[0].url == f"{site.address}/talk29.mp4"
    assert len({item.source_id for item in items}) == 30
    assert not any(item.asked for item in items)
    assert site.asked == ["/feed.xml"]


def test_a_channel_of_two_thousand_costs_a_request_a_page(site: Site) -> None:
    videos = [{"id": f"v{n}", "title": f"Talk {n}"} for n in range(2000)]
    shorts = [{"id": f"s{n}", "title": f"Short {n}"} for n in range(150)]
    streams = [{"id": f"l{n}", "title": f"Stream {n}"} for n in range(3)]
    items = listed(channel(site, videos=videos, shorts=shorts, streams=streams), settings_of())
    assert [item.title for item in items] == [v["title"] for v in [*videos, *shorts, *streams]]
    assert len(site.asked) == 1 + 20 + 2 + 1
    assert items[0].source_id == source_id("SmallVideo", "v0", "")


def test_a_video_has_one_id_whatever_form_of_its_address_is_given(site: Site) -> None:
    watched, short = (f"{site.address}/{form}/abc" for form in ("watch", "short"))
    (one,), (other,) = listed(watched, settings_of()), listed(short, settings_of())
    assert one.source_id == other.source_id
    assert one.asked
    assert site.asked == []  # what can only be one video is not looked at to list it
    video = "dQw4w9WgXcQ"
    forms = ("youtu.be/{}?si=x", "www.youtube.com/watch?v={}&t=3", "m.youtube.com/shorts/{}")
    ids = {listed("https://" + form.format(video), settings_of())[0].source_id for form in forms}
    assert ids == {source_id("Youtube", video, "")}


def test_an_atom_feed_as_youtube_has_it(site: Site) -> None:
    entry = (
        "<entry><title>Talk {0}</title><published>2024-01-0{0}T10:00:00+00:00</published>"
        '<link rel="alternate" href="https://www.youtube.com/watch?v=aaaaaaaaaa{0}"/></entry>'
    )
    xml = '<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom">{}</feed>'
    body = xml.format("".join(entry.format(n) for n in range(1, 4)))
    items = listed(site.file("/atom", body.encode(), "text/xml; charset=UTF-8"), settings_of())
    assert [item.title for item in items] == ["Talk 3", "Talk 2", "Talk 1"]
    assert items[0].source_id == source_id("Youtube", "aaaaaaaaaa3", "")


@pytest.mark.parametrize("root", ['feed xmlns="http://www.w3.org/2005/Atom"', "rss"])
def test_a_feed_that_is_a_bomb_does_no_harm(site: Site, root: str) -> None:
    names = "abcdefghij"
    entities = "".join(f'<!ENTITY {one} "{f"&{before};" * 10}">' for before, one in pairwise(names))
    name = root.split()[0]
    doctype = f'<!DOCTYPE {name} [<!ENTITY a "{"x" * 50}">{entities}]>'
    inside = "<channel><item><title>&j;</title><link>http://x/</link></item></channel>"
    xml = f'<?xml version="1.0"?>{doctype}<{root}>{inside}</{name}>'
    url = site.file("/bomb.xml", xml.encode(), "text/xml")
    (item,) = listed(url, settings_of())
    assert item.asked  # no list: fetching it tells why it is no video either
    assert item.url == url


def test_a_feed_leads_nowhere_but_to_the_web(site: Site) -> None:
    odd = ["file:///etc/passwd", "javascript:alert(1)", "ftp://x/y.mp4", "http://", "https://[x"]
    odd.append("javascript:x#__youtubedl_smuggle=%5B")
    items = [("Odd", "", url) for url in odd]
    url = site.rss("/feed.xml", [*items, ("Fine", "", f"{site.address}/talk.mp4")])
    assert [item.title for item in listed(url, settings_of())] == ["Fine"]


def test_every_video_of_a_page_has_an_id_of_its_own(site: Site, tmp_path: Path) -> None:
    films = {name: film(tmp_path, seconds) for name, seconds in (("a", 1), ("b", 2), ("c", 3))}
    for name, body in films.items():
        site.file(f"/{name}.mp4?key=1", body)
        site.file(f"/{name}.mp4?key=2", body)

    def page(*names: str, key: int) -> str:
        return site.page("/all", "".join(f'<video src="{n}.mp4?key={key}"></video>' for n in names))

    items = listed(page("a", "b", key=1), settings_of())
    assert len({item.source_id for item in items}) == 2
    again = listed(page("c", "a", "b", key=2), settings_of())
    assert [item.source_id for item in again[1:]] == [item.source_id for item in items]
    for item, name in zip(again, "cab", strict=True):
        one = fetch(item, settings_of(), tmp_path / "media")
        assert one.path.read_bytes() == films[name]
    page("c", key=2)
    assert fetch(again[1], settings_of(), tmp_path / "other").kind in (None, "no_video")


def test_a_text_file_of_addresses(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    site.file("/one.mp4", film_bytes)
    site.answer("/down", lambda request: request.send(b"", status=503))
    file = tmp_path / "talks.txt"
    lines = [
        "\ufeff# talks",
        f"{site.address}/one.mp4   # the first",
        "",
        feed(site, 3),
        f"{site.address}/one.mp4",
        f"{site.address}/down",
    ]
    file.write_text("\n".join(lines), encoding="utf-8")
    items = listed(str(file), settings_of())
    paths = [item.url.removeprefix(site.address) for item in items]
    assert paths == ["/one.mp4", "/talk2.mp4", "/talk1.mp4", "/talk0.mp4", "/down"]
    assert [item.asked for item in items] == [True, False, False, False, True]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_address_file_as_people_write_them(tmp_path: Path, encoding: str, end: str) -> None:
    lines = [
        "# Gespräche",
        "",
        "   \t",
        "https://www.youtube.com/watch?v=aaaaaaaaaa1&t=3s\t# the first",
        "  HTTPS://WWW.YouTube.com/watch?v=aaaaaaaaaa1&list=PLx  ",
        "https://youtu.be/aaaaaaaaaa1#t=9",
        "#https://youtu.be/aaaaaaaaaa3",
        "https://youtu.be/aaaaaaaaaa2",
    ]
    file = tmp_path / "talks.txt"
    file.write_bytes(end.join(lines).encode(encoding))
    found = [item.source_id for item in listed(str(file), settings_of())]
    assert found == [source_id("Youtube", f"aaaaaaaaaa{n}", "") for n in (1, 2)]


def test_an_address_file_without_an_address_is_told(tmp_path: Path) -> None:
    file = tmp_path / "talks.txt"
    file.write_text("# none yet\n\n")
    with pytest.raises(SourceError, match="holds no address"):
        listed(str(file), settings_of())


@pytest.mark.parametrize("night", ["a page", "nothing", "an error", "elsewhere", "no feed"])
def test_an_outage_makes_no_video_of_a_channel(site: Site, night: str) -> None:
    url, page = feed(site, 3), site.page("/maintenance", "We are back soon.")
    there = site.pages["/feed.xml"]
    answers = {
        "a page": lambda one: one.send(b"<html>Back soon</html>", "application/rss+xml"),
        "nothing": lambda one: one.send(b"", status=404),
        "an error": lambda one: one.send(b"", status=503),
        "elsewhere": lambda one: one.send(b"", status=302, Location=page),
        "no feed": lambda one: one.send(b"<p>Back soon", "text/html"),
    }
    site.answer("/feed.xml", answers[night])
    settings = settings_of(download={"retries": 0})
    with pytest.raises(SourceError, match=r"^http://127\.0\.0\.1:\d+/feed\.xml: "):
        listed(url, settings, channel=True)
    # Whatever is remembered of the address: it is a list again as soon as it is one.
    site.pages["/feed.xml"] = there
    remembered = {source_id(None, None, url)}
    assert len(listed(url, settings, remembered, channel=True)) == 3
    site.asked.clear()
    (alone,) = listed(url, settings, remembered)  # a video that was asked for, and is labelled
    assert (alone.asked, site.asked) == (True, [])


def test_passwords_go_only_where_they_belong(site: Site, film_bytes: bytes, tmp_path: Path) -> None:
    sent: dict[str, str | None] = {}

    def locked(request: Request) -> None:
        sent[request.path] = request.headers.get("Authorization")
        if sent[request.path] is None and request.path != "/elsewhere.mp4":
            request.send(b"", status=401)
        elif request.path == "/moved.mp4":
            there = site.address.replace("127.0.0.1", "localhost")
            request.send(b"", status=302, Location=f"{there}/elsewhere.mp4")
        elif request.path == "/feed.xml":
            request.send(inside[1], inside[0])
        else:
            request.send(film_bytes, "video/mp4")

    site.rss("/feed.xml", [("One", "", "one.mp4"), ("Two", "", "/moved.mp4")])
    inside = site.pages["/feed.xml"]
    for path in ("/feed.xml", "/one.mp4", "/moved.mp4", "/elsewhere.mp4"):
        site.answer(path, locked)
    url = site.address.replace("://", "://ann:s3cret@") + "/feed.xml"
    items = listed(url, settings_of())
    store = Store(tmp_path / "store")
    for item in items:
        got = fetch(item, settings_of(), tmp_path / "media")
        assert got.outcome is Outcome.FETCHED, got.reason
        archive.record(store, "a", [archive.Attempt(item, archive.State.LABELLED)], {})
    assert sent["/one.mp4"] is not None
    assert sent["/elsewhere.mp4"] is None
    assert items[0].source_id == source_id(None, None, f"{site.address}/one.mp4")
    with pytest.raises(SourceError, match="nowhere") as told:
        listed(url.replace("feed.xml", "nowhere"), settings_of(), channel=True)
    kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) > 5
    assert not [one for one in [*kept, str(told.value).encode()] if b"s3cret" in one]
    rows = [row for table in store.scan("attempts") for row in table.to_pylist()]
    assert f"{site.address}/one.mp4" in {row["url"] for row in rows}


@pytest.mark.parametrize("text", ["nonsense", "file:///etc/passwd", None, "\udcff"])
def test_a_text_file_that_is_none_of_addresses_is_refused(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "talks.urls"
    if text is not None:
        file.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(SourceError, match=r"talks\.urls"):
        listed(str(file), settings_of())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/x.mp4", "http://"])
def test_only_web_addresses_are_listed(url: str) -> None:
    with pytest.raises(SourceError, match="give http:// or https://"):
        listed(url, settings_of())


def test_a_listing_that_is_busy_is_asked_again(site: Site) -> None:
    url = feed(site, 3)
    whole = site.pages["/feed.xml"]

    def recovers(request: Request) -> None:
        if len(site.asked) < 3:
            request.send(b"busy", status=503)
        else:
            request.send(whole[1], whole[0])

    site.answer("/feed.xml", recovers)
    assert len(listed(url, settings_of())) == 3


def test_a_listing_that_breaks_off_is_no_list(site: Site) -> None:
    url = channel(site, videos=[{"id": f"v{n}"} for n in range(300)])
    site.answer("/api/us/videos/2", lambda request: request.send(b"busy", status=503))
    with pytest.raises(SourceError, match=r"/@us: .*503"):
        listed(url, settings_of())
    assert site.asked.count("/api/us/videos/2") == 3


# --- filters ------------------------------------------------------------------------------


def titles(url: str, **filters: object) -> list[str | None]:
    """Titles of what the filters let through."""
    return [item.title for item in listed(url, settings_of(filters=filters))]


def test_filters_that_the_listing_decides(site: Site) -> None:
    url = feed(site, 10)
    assert titles(url, published_after=date(2024, 1, 9)) == ["Talk 9", "Talk 8"]
    assert titles(url, published_before=date(2024, 1, 3)) == ["Talk 1", "Talk 0"]
    assert titles(url, max_videos=2) == ["Talk 9", "Talk 8"]
    assert titles(url, title="^talk [37]$") == ["Talk 7", "Talk 3"]
    assert titles(url, published_before=date(2024, 1, 9), max_videos=1) == ["Talk 7"]
    assert set(site.asked) == {"/feed.xml"}


def test_an_address_that_was_asked_for_is_not_filtered(site: Site, film_bytes: bytes) -> None:
    url = site.talk("/talk", film_bytes, "Good morning.", "A talk")
    assert len(titles(url, title="something else")) == 1


def test_what_only_the_page_tells_is_decided_when_it_is_fetched(
    site: Site, film_bytes: bytes, tmp_path: Path
) -> None:
    site.file("/long.mp4", film_bytes)
    for video, seconds in (("long", 100), ("short", 10)):
        facts = {"url": f"{site.address}/long.mp4", "ext": "mp4", "duration": seconds}
        site.file(f"/api/{video}", json.dumps(facts).encode(), "application/json")
    url = channel(site, videos=[{"id": "short"}, {"id": "long"}, {"id": "tiny", "duration": 1}])
    settings = settings_of(filters={"min_duration_s": 60})
    items = listed(url, settings)
    assert len(items) == 2  # the list says of one how long it is
    # The filters are the channel's, whatever the settings of the run are.
    short, long = (fetch(item, settings_of(), tmp_path) for item in items)
    assert (short.outcome, short.kind) == (Outcome.REFUSED, "filtered")
    assert "filters.min_duration_s" in short.reason
    assert long.outcome is Outcome.FETCHED


def test_to_count_videos_what_is_not_known_is_looked_up_until_there_are_enough(
    site: Site, film_bytes: bytes
) -> None:
    for n in range(6):
        facts = {"url": "http://x/x.mp4", "ext": "mp4", "language": "de" if n % 2 else "en"}
        site.file(f"/api/v{n}", json.dumps(facts).encode(), "application/json")
    url = channel(site, videos=[{"id": f"v{n}", "title": f"Talk {n}"} for n in range(6)])
    settings = settings_of(filters={"languages": ["de"], "max_videos": 2})
    items = listed(url, settings)
    assert [item.url[-2:] for item in items] == ["v1", "v3"]
    assert site.asked[-4:] == ["/api/v0", "/api/v1", "/api/v2", "/api/v3"]
    site.asked.clear()
    known = {item.source_id for item in items}
    assert [item.source_id for item in listed(url, settings, known)] == [i.source_id for i in items]
    assert [path for path in site.asked if "/api/v" in path] == ["/api/v0", "/api/v2"]


def test_streams_that_are_not_over_are_listed_and_not_counted(site: Site) -> None:
    videos = [
        {"id": "soon", "live_status": "is_upcoming"},
        {"id": "now", "live_status": "is_live"},
        {"id": "done", "live_status": "was_live"},
        {"id": "plain"},
    ]
    items = listed(channel(site, streams=videos), settings_of(filters={"max_videos": 1}))
    assert [item.live_status for item in items] == ["is_upcoming", "is_live", "was_live"]


def test_dates_told_in_words_are_not_taken_for_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ago = datetime.now(UTC) - 180 * DAY
    stamp = {"timestamp": ago.timestamp()}

    def entry(video: str) -> dict:
        return {
            "_type": "url",
            "ie_key": "Youtube",
            "id": video,
            "url": f"https://youtu.be/{video}",
        }

    tabs = [
        {"_type": "playlist", "entries": [{**entry(f"aaaaaaaaaa{n}"), **stamp}]} for n in range(2)
    ]
    told = {"_type": "playlist", "extractor_key": "YoutubeTab", "entries": tabs}
    monkeypatch.setattr("vsa_core.ingest.listing._extracted", lambda *_: told)
    day = (ago - 5 * DAY).date()
    items = listed("https://www.youtube.com/@us", settings_of(filters={"published_after": day}))
    assert [item.published_at for item in items] == [None, None]
    assert all(item.filters.published_after == day for item in items)
