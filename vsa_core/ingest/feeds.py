"""Feeds (RSS, RDF, Atom, JSON Feed) as lists of yt-dlp's, with what they say of each episode.

A feed is read as podcast players do: white space before it, undeclared entities and prefixes, bare
ampersands, control characters and a wrongly declared encoding are no reason to refuse it. It is
read piece by piece, and no further than some number of items.
"""

from __future__ import annotations

import codecs
import html
import html.entities
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat

from yt_dlp.extractor.generic import GenericIE
from yt_dlp.networking import Request
from yt_dlp.utils import (
    KNOWN_EXTENSIONS,
    MEDIA_EXTENSIONS,
    determine_ext,
    parse_duration,
    unified_timestamp,
)

from vsa_core.config import Settings
from vsa_core.ingest.addresses import clean, shown
from vsa_core.ingest.limits import check_json
from vsa_core.ingest.refusals import Outcome, Refusal

_HEAD_BYTES = 8192
_JSON_HEAD_BYTES = 1_000_000  # of JSON, whose keys have no order
_MAX_ITEMS = 20_000  # of all pages; daily shows of ten years have 4,000
_MAX_PAGES = 300
_MAX_MARKS = 3_000_000  # of a page
_MAX_DEPTH = 200
_MAX_LINKS = 100  # of one item
_MAX_TEXT = 2000
_CHUNK = 1 << 20

# Nothing is tried twice here (`*+`, `(?>`): a page may be made to be slow to match.
_PROLOG = re.compile(
    r"(?>[\s\ufeff]|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*+(?:\[.*?\]\s*)?>)*+",
    re.DOTALL | re.IGNORECASE,
)
_ROOT = re.compile(r"<(?:[\w.-]+:)?(?:rss|feed|rdf)[\s/>]", re.IGNORECASE)
_TYPES = re.compile(r"application/(?:rss|atom|rdf|feed)\+(?:xml|json)", re.IGNORECASE)
_JSON_FEED = re.compile(r'"version"\s*:\s*"https?:\\?/\\?/jsonfeed\.org\\?/version')
_ENCODING = re.compile(rb"<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]+)")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
# What browsers know; others of Python's make of bytes what no feed means.
_CODECS = re.compile(
    r"(?:iso-?8859|latin|windows|cp\d|koi8|gb|big5|shift|sjis|euc|mac|utf-?16)[\w.:-]*",
    re.IGNORECASE,
)
_CONTROLS = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ODD = re.compile(
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)|&(?:#(?:[0-9]{1,8}|[xX][0-9a-fA-F]{1,7});|(\w+);)?",
    re.DOTALL,
)
_SPACE = re.compile(r"[ \t\r\n]+")
_NESTED = re.compile(r"<!ENTITY[^>]{0,1000}?&[A-Za-z_]")
_LONG_TAG = re.compile(r"<[^<>]{1000000}")

# Prefixes as they are used here, by how their namespaces end or begin.
_PREFIXES = (
    ("media", "search.yahoo.com/mrss"),
    ("itunes", "itunes.com/dtds/podcast"),
    ("podcast", "podcastindex.org/namespace"),
    ("podcast", "podcast-namespace/"),
    ("dc", "purl.org/dc/"),
    ("", "www.w3.org/2005/atom"),
    ("", "purl.org/atom/ns"),
    ("", "purl.org/rss/"),
    ("", "/net/rss_2.0/enc"),
    ("", "backend.userland.com/rss"),
)
_USUAL = {"media": "media", "itunes": "itunes", "podcast": "podcast", "dc": "dc", "atom": ""}
_ITEMS = ("item", "entry")
_DATES = ("pubDate", "published", "dc:date", "issued", "date_published", "updated", "modified")

_WANTED = {
    *_DATES, "title", "itunes:title", "media:title", "link", "guid", "id", "podcast:guid",
    "language", "dc:language", "itunes:duration",
}  # fmt: skip

_MEDIA_TYPE = re.compile(
    r"(?:audio|video)/|application/(?:ogg|mp4|dash\+xml|(?:x-|vnd\.apple\.)?mpegurl)", re.IGNORECASE
)
_VAGUE_TYPES = ("", "application/octet-stream", "binary/octet-stream", "application/force-download")
_CAPTIONS = {
    "text/vtt": "vtt", "application/x-subrip": "srt", "application/srt": "srt", "text/srt": "srt",
    "application/json": "json",
}  # fmt: skip


class FeedsIE(GenericIE):
    """yt-dlp's generic extractor, which leaves feeds to us: it takes the first enclosure of an
    item whatever it is, drops what the feed says of it, and reads no Atom and no JSON.

    Args:
        settings: `sources` and `download` say which of several renditions is enough.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    @classmethod
    def ie_key(cls) -> str:
        """That of the extractor it stands for."""
        return "Generic"

    def _request_webpage(self, *args: Any, **kwargs: Any) -> Any:
        answer = super()._request_webpage(*args, **kwargs)
        kind = answer.get_header("Content-Type", "") if answer else "video/"
        if not _MEDIA_TYPE.match(kind):
            head = answer.peek(_HEAD_BYTES)
            if head.lstrip().startswith(b"{"):
                head = answer.peek(_JSON_HEAD_BYTES)
            if is_feed(head, kind):
                raise _IsFeed(answer)
        return answer

    def _real_extract(self, url: str) -> Any:
        try:
            return super()._real_extract(url)
        except _IsFeed as found:
            return self._feed(url, found.answer)

    def _feed(self, url: str, answer: Any) -> dict[str, Any]:
        """All pages of a feed, the first of which is here.

        Raises:
            Refusal: it does not parse, is too large, or leads to nothing.
        """
        feed, seen, known = Feed(), {url, answer.url}, -1
        while True:
            read_feed(answer.whole(), answer.get_header("Content-Type", ""), answer.url, feed)
            following = feed.following and _unlocked(feed.following, url)
            # Some servers have the same page under every number.
            before, known = known, len({item.name for item in feed.items})
            if not following or following in seen or known == before:
                break
            seen.add(following)
            if len(seen) > _MAX_PAGES:
                raise _refused("too_many", f"its feed has more than {_MAX_PAGES} pages")
            answer = self._downloader.urlopen(Request(following))
        entries = list(feed.entries(shown(clean(url)), self._settings))
        if not entries:
            kinds = ", ".join(sorted(feed.kinds)[:5]) or "no file"
            seen_there = f"no media (items: {len(feed.items)}; seen: {kinds})"
            raise _refused("no_media", f"its feed holds {seen_there if feed.items else 'no items'}")
        for entry in entries:
            files = [file for one in entry["_told"]["subtitles"].values() for file in one]
            for file in [entry, *files]:
                file["url"] = _unlocked(file["url"], url)
        return {"_type": "playlist", "id": url, "webpage_url": url, "entries": entries}


def _unlocked(place: str, feed: str) -> str:
    """An address with the name and password of the feed's, where both are at one host."""
    home = "/".join(feed.split("/")[:3])
    return place.replace(shown(home), home, 1) if place.startswith(f"{shown(home)}/") else place


class _IsFeed(Exception):  # noqa: N818 - it is no error
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer


def _refused(kind: str, reason: str) -> Refusal:
    """What is wrong with a feed may be mended tomorrow."""
    return Refusal(Outcome.FAILED, kind, reason)


@dataclass(frozen=True, slots=True)
class _Link:
    """A file or page that an item leads to.

    Attributes:
        url: absolute.
        kind: media type as the feed says, which may be wrong; "" for none.
        height: px; None is not known.
        kbps: kbit/s; None is not known.
        full: whether it is all of it, and not a sample.
    """

    url: str
    kind: str = ""
    height: float | None = None
    kbps: float | None = None
    full: bool = True

    def liking(self, settings: Settings) -> tuple[float, ...]:
        """How much it is to be had before others; (0,) when it is no media.

        What both its type and its ending say is media goes first, then picture before sound, then
        the best rendition that is not better than wanted.
        """
        ending = determine_ext(self.url, default_ext="").lower()
        media = ending in KNOWN_EXTENSIONS or f".{ending}" in settings.sources.extensions
        typed = bool(_MEDIA_TYPE.match(self.kind))
        if self.kind.lower() in _VAGUE_TYPES:
            sure = 2 if media else 0 if ending in _OTHER_ENDINGS else 1
        elif typed:
            sure = 3 if media else 0 if ending in _OTHER_ENDINGS else 2
        else:
            sure = 1 if media else 0
        if not sure:
            return (0,)
        audio = self.kind.startswith("audio/") or ending in MEDIA_EXTENSIONS.audio
        size, most = self.height, float(settings.sources.max_height_px)
        if audio:
            size, most = self.kbps, float(settings.download.max_audio_kbps)
        fits = size is None or size <= most
        return (min(sure, 2), not audio, self.full, fits, (size or 0) * (1 if fits else -1), sure)


_OTHER_ENDINGS = {
    "torrent", "pdf", "zip", "epub", "txt", "xml", "json", *MEDIA_EXTENSIONS.subtitles,
    *MEDIA_EXTENSIONS.thumbnails, "jpeg", "gif", "svg",
}  # fmt: skip


@dataclass(slots=True)
class _Item:
    """One item or entry as it stands in a feed, unchecked."""

    said: dict[str, str] = field(default_factory=dict)
    links: list[_Link] = field(default_factory=list)
    page: str | None = None
    captions: list[tuple[str, str, str]] = field(default_factory=list)  # language, ending, address

    @property
    def guid(self) -> str | None:
        """The feed's name for it."""
        return self.said.get("guid") or self.said.get("id")

    @property
    def name(self) -> object:
        """What tells it from others."""
        return self.guid or (self.page, *self.links[:1])


class Feed:
    """What was read of a feed.

    Attributes:
        said: what it says of itself, by name of the element.
        items: in its order, of all pages.
        kinds: types of what is no media.
        following: address of the next page; None for none.
    """

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.items: list[_Item] = []
        self.kinds: set[str] = set()
        self.following: str | None = None

    def add(self, item: _Item) -> None:
        """One more item.

        Raises:
            Refusal: there are too many.
        """
        if len(self.items) >= _MAX_ITEMS:
            raise _refused("too_many", f"its feed holds more than {_MAX_ITEMS:,} items")
        self.items.append(item)

    def entries(self, address: str, settings: Settings) -> Iterator[dict[str, Any]]:
        """The items that lead somewhere, as entries of a list of yt-dlp's.

        Args:
            address: of the feed; names the channel of a feed that has no id.
            settings: `sources` and `download` count.
        """
        often = Counter(item.guid for item in self.items)
        for item in self.items:
            said = item.said
            best = max(item.links, key=lambda link: link.liking(settings), default=None)
            if best is None or best.liking(settings) == (0,):
                self.kinds |= {link.kind or link.url[-20:] for link in item.links[:5]}
                best = None
            url = best.url if best else item.page
            if url is None:
                continue
            date = next((said[key] for key in _DATES if said.get(key)), None)
            language = said.get("language") or said.get("dc:language") or self.said.get("language")
            told = {
                "title": said.get("title") or said.get("itunes:title") or said.get("media:title"),
                "timestamp": _time(date),
                "language": language,
                "channel": self.said.get("title"),
                "channel_id": self.said.get("podcast:guid") or address,
            }
            captions: dict[str, list[dict[str, str]]] = {}
            for tongue, ending, place in item.captions:
                offered = {"url": place, "ext": ending}
                captions.setdefault(tongue or language or "und", []).append(offered)
            yield {
                "_type": "url",
                "url": url,
                "ie_key": "Generic" if best and best.liking(settings)[-1] > 2 else None,
                "title": told["title"],
                "timestamp": told["timestamp"],
                "duration": parse_duration(said.get("itunes:duration")),
                "language": language,
                # What names several names none.
                "_guid": item.guid if often[item.guid] == 1 else None,
                "_told": {**told, "subtitles": captions},
            }


# --- reading ------------------------------------------------------------------------------


def is_feed(head: bytes, kind: str) -> bool:
    """Whether an answer is a feed, by how it begins or what the server says it is."""
    text = _decoded(head, kind)
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return bool(_TYPES.match(kind) or _JSON_FEED.search(text))
    prolog = _PROLOG.match(text)
    return bool(_TYPES.match(kind) or (prolog and _ROOT.match(text, prolog.end())))


def read_feed(raw: bytes, kind: str, page: str, feed: Feed) -> None:
    """Add a page of a feed to what was read of it.

    Args:
        raw: the page.
        kind: its content type.
        page: its address, against which links are resolved.
        feed: is added to.

    Raises:
        Refusal: it does not parse, or goes beyond a limit.
    """
    text = _CONTROLS.sub("", _decoded(raw, kind))
    feed.following = None
    if text.lstrip().startswith("{"):
        _read_json(text, page, feed)
        return
    prolog = _PROLOG.match(text)
    start = prolog.end() if prolog else 0
    if not _ROOT.match(text, start):
        begins = " ".join(text[:60].split())
        raise _refused("feed", f"does not parse as a feed: it begins with {begins!r}")
    # Declarations are left out; of entities within entities a page of any size can be made.
    if _NESTED.search(text, 0, start):
        reason = "its feed declares entities that hold others, which are not expanded"
        raise Refusal(Outcome.REFUSED, "entities", reason)
    if text.count("<") + text.count("&") > _MAX_MARKS:
        raise _refused("feed", f"its feed has more than {_MAX_MARKS:,} tags and entities")
    if _LONG_TAG.search(text):
        raise _refused("feed", "its feed has a tag of more than 1 MB")
    reader = _Reader(page, feed)
    try:
        mended = _ODD.sub(_mended, text[start:])
        for place in range(0, len(mended), _CHUNK):
            reader.parser.Parse(mended[place : place + _CHUNK], False)
        reader.parser.Parse("", True)
    except expat.ExpatError as error:
        line = error.lineno + text.count("\n", 0, start)
        raise _refused(
            "feed", f"does not parse as a feed (line {line}: {expat.ErrorString(error.code)})"
        ) from error


def _decoded(raw: bytes, kind: str) -> str:
    """The text: UTF-8 whatever is declared, if it is; else as declared; else Windows-1252."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    if raw[:2] in (b"<\0", b"\0<", b"{\0", b"\0{"):
        return raw.decode("utf-16-le" if raw[1] == 0 else "utf-16-be", "replace")
    text = raw.decode("utf-8-sig", "replace")
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    if text.count("\ufffd") * 10 <= beyond - 1 or not beyond:
        return text
    declared = _ENCODING.search(raw[:1024])
    header = _CHARSET.search(kind)
    for name in (declared and declared[1].decode(), header and header[1]):
        # As browsers do: who says Latin-1 means Windows-1252.
        if name and _CODECS.fullmatch(name) and not re.fullmatch(r"(?i)iso-?8859-1|latin-?1", name):
            try:
                return raw.decode(name, "replace")
            except LookupError:
                continue
    return raw.decode("cp1252", "replace")


def _mended(found: re.Match[str]) -> str:
    """A reference as XML has it: entities of HTML are characters, a bare ampersand is one."""
    whole, name = found[0], found[1]
    if whole.startswith("<!") or name in ("amp", "lt", "gt", "quot", "apos"):
        return whole
    if whole.startswith("&#"):
        return html.escape(_CONTROLS.sub("", html.unescape(whole)))
    known = html.entities.html5.get(f"{name};") if name else None
    return html.escape(known) if known else f"&amp;{whole[1:]}"


class _Reader:
    """Takes what expat finds in a page of a feed, and keeps what matters."""

    def __init__(self, page: str, feed: Feed) -> None:
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self._feed = feed
        self._page = page
        self._prefixes = dict(_USUAL)
        self._open: list[tuple[str, str]] = []  # name and base of every element around
        self._words: list[str] | None = None  # of the element that is read
        self._room = 0
        self._html = False  # whether it is escaped once more
        self._item: _Item | None = None
        self._depth = 0  # of the item
        self._another = ""  # type and height of an alternative enclosure, whose sources come inside
        self._height: float | None = None

    def _name(self, name: str) -> str:
        """A name with the usual prefix of its namespace, whatever prefix the feed gives it."""
        prefix, colon, local = name.rpartition(":")
        if not colon:
            return name
        usual = self._prefixes.get(prefix, "?")
        return f"{usual}:{local}" if usual else local

    def _start(self, raw: str, attributes: Mapping[str, str]) -> None:
        for key, value in attributes.items():
            if key.startswith("xmlns:"):
                where = value.lower()
                for prefix, place in _PREFIXES:
                    if place in where:
                        self._prefixes[key[6:]] = prefix
        if len(self._open) >= _MAX_DEPTH:
            raise _refused("feed", f"its feed is nested more than {_MAX_DEPTH} deep")
        name = self._name(raw)
        base = self._open[-1][1] if self._open else self._page
        if given := attributes.get("xml:base"):
            base = _joined(base, given) or base
        if not self._open and attributes.get("xml:lang"):
            self._feed.said.setdefault("language", attributes["xml:lang"])
        self._open.append((name, base))
        if name in _ITEMS and self._item is None:
            self._item, self._depth = _Item(), len(self._open)
            about = next((attributes[k] for k in attributes if k.endswith(":about")), None)
            if about:
                self._item.said["id"] = about[:_MAX_TEXT]
        elif self._item is not None:
            self._inside(self._item, name, base, {k.lower(): v for k, v in attributes.items()})
        elif name == "link" and attributes.get("rel") == "next":
            self._feed.following = _joined(base, attributes.get("href", ""))
        around = self._open[-2][0] if len(self._open) > 1 else ""
        direct = len(self._open) == self._depth + 1 if self._item else around in ("channel", "feed")
        self._words = [] if direct and name in _WANTED else None
        self._room = _MAX_TEXT
        self._html = attributes.get("type") == "html"

    def _inside(self, item: _Item, name: str, base: str, said: Mapping[str, str]) -> None:
        """An element somewhere in an item, with its attributes by names in lower case."""
        if len(item.links) + len(item.captions) >= _MAX_LINKS:
            return
        local = {key.rpartition(":")[2]: value for key, value in said.items()}
        kind = local.get("type", "").partition(";")[0].strip().lower()
        if name == "podcast:alternateEnclosure":
            self._another, self._height = kind, _number(said.get("height"))
        place = next(
            (local[key] for key in ("url", "href", "uri", "resource", "src") if key in local), ""
        )
        url = _joined(base, place)
        if url is None:
            return
        rel = said.get("rel", "alternate")
        if name == "podcast:source":
            item.links.append(_Link(url, self._another, self._height))
        elif name in ("enclosure", "media:content") or (
            name in ("link", "content") and (rel == "enclosure" or _MEDIA_TYPE.match(kind))
        ):
            medium = said.get("medium", "")
            if medium and (not kind or medium not in ("audio", "video")):
                kind = f"{medium}/"
            kbps = _number(said.get("bitrate"))
            full = said.get("expression") != "sample"
            item.links.append(_Link(url, kind, _number(said.get("height")), kbps, full))
        elif name == "link" and rel == "alternate" and len(self._open) == self._depth + 1:
            if kind in ("", "text/html", "application/xhtml+xml"):
                item.page = item.page or url
        elif name == "podcast:transcript":
            ending = _CAPTIONS.get(kind) or determine_ext(url, default_ext="").lower()
            if ending in _CAPTIONS.values() and not kind.endswith(("html", "plain")):
                item.captions.append((said.get("language", ""), ending, url))

    def _text(self, text: str) -> None:
        if self._words is not None and self._room > 0:
            self._words.append(text[: self._room])
            self._room -= len(text)

    def _end(self, _: str) -> None:
        name, base = self._open.pop()
        item = self._item
        if item is not None and len(self._open) < self._depth:
            self._feed.add(item)
            self._item, self._depth = None, 0
        elif self._words is not None:
            text = "".join(self._words)
            text = _SPACE.sub(" ", html.unescape(text) if self._html else text).strip()
            if item is None:
                if text:
                    self._feed.said.setdefault(name, text)
            elif name == "link":
                item.page = item.page or _joined(base, text)
            elif text:
                item.said.setdefault(name, text)
        self._words = None


def _read_json(text: str, page: str, feed: Feed) -> None:
    try:
        check_json(text)
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else str(error)
        raise _refused("feed", f"does not parse as a JSON feed: {reason}") from error
    if not isinstance(found, dict) or not isinstance(found.get("items"), list):
        raise _refused("feed", "does not parse as a JSON feed: it holds no list of items")
    feed.said.update(_strings(found, "title", "language"))
    following = found.get("next_url")
    feed.following = _joined(page, following) if isinstance(following, str) else None
    for one in found["items"]:
        if not isinstance(one, dict):
            continue
        item = _Item(_strings(one, "id", "title", "date_published", "language"))
        for file in _dicts(one.get("attachments"))[:_MAX_LINKS]:
            said = _strings(file, "url", "mime_type", "duration_in_seconds")
            url = _joined(page, said.get("url", ""))
            if url is not None:
                item.links.append(_Link(url, said.get("mime_type", "").partition(";")[0].strip()))
                if "duration_in_seconds" in said:
                    item.said.setdefault("itunes:duration", said["duration_in_seconds"])
        said = _strings(one, "url", "external_url")
        item.page = _joined(page, said.get("url") or said.get("external_url") or "")
        feed.add(item)


def _strings(found: Mapping[str, Any], *keys: str) -> dict[str, str]:
    """Those of some keys that have a text or a number, as texts."""
    return {
        key: str(found[key])[:_MAX_TEXT].strip()
        for key in keys
        if isinstance(found.get(key), str | int | float) and str(found[key])[:_MAX_TEXT].strip()
    }


def _dicts(found: Any) -> list[dict[str, Any]]:
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _joined(base: str, place: str) -> str | None:
    """An address of the web as it is meant at another; None for what is none."""
    place = "".join(place.split("\n")).strip().replace(" ", "%20")
    if not place or len(place) > 8 * _MAX_TEXT:
        return None
    try:
        url = urljoin(base, place)
        return url if urlsplit(url).scheme.lower() in ("http", "https") else None
    except ValueError:
        return None


def _time(text: str | None) -> float | None:
    try:
        found: float | None = unified_timestamp(text)
        return found
    except OverflowError:  # a date that nobody meant
        return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
