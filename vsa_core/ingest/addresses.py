"""Addresses and what they are called, so that a video is one whatever form its address has."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit

_LONG_GUID = 16  # a feed's ids of this length are taken to be unique among feeds
NAMELESS = (None, "Generic", "HTML5MediaEmbed")  # extractors that know no name, only a place
_USER = re.compile(r"(?<=://)[^/?#\s'\"<>]*@")


def is_address(url: str) -> bool:
    """Whether it is an http(s) address."""
    try:
        parts = urlsplit(url)
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def shown(text: str) -> str:
    """A text to print or store, without the names and passwords in its addresses."""
    return _USER.sub("", text)


def plain(url: str) -> str:
    """An address with scheme and host in lower case, as the extractors' patterns want them."""
    url = url.strip()
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    user, at, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user + at + host.lower()))


def source_id(extractor: str | None, video_id: str | None, url: str) -> str:
    """The id of an address: of the site's own name for the video, else of the URL."""
    name = _address(url)
    if extractor not in NAMELESS and video_id:
        name = f"{extractor}:{video_id}"
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def entry_id(entry: dict[str, Any], page: str) -> str:
    """The id of an entry of a list.

    Args:
        entry: yt-dlp's.
        page: address of the list. Of several videos on a page without names of their own, each is
            named after the page and its file, without the query, which often is a signature.
    """
    key, video_id = key_of(entry), entry.get("id")
    url = clean(str(entry.get("url") or ""))
    if entry.get("_type") in ("url", "url_transparent"):
        if not key or not (video_id or key in NAMELESS):
            key, video_id = named(url)
        guid = entry.get("_guid")
        if key == "Generic" and isinstance(guid, str) and len(guid) >= _LONG_GUID:
            return source_id("feed", guid, url)
        return source_id(key, video_id, url)
    if key not in NAMELESS and video_id:
        return source_id(key, str(video_id), page)
    formats = entry.get("formats")
    last = formats[-1] if isinstance(formats, list) and formats else entry
    file = _address(str(last.get("url") or entry.get("id") or "")).partition("?")[0]
    return source_id("page", f"{_address(page)} {file}", page)


def only_video(info: dict[str, Any]) -> dict[str, Any]:
    """A page's only video, without the number that yt-dlp puts behind the page's title for it."""
    if key_of(info) == "HTML5MediaEmbed" and isinstance(info.get("title"), str):
        return {**info, "title": info["title"].removesuffix(" (1)")}
    return info


def with_told(info: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """What a page says of a video, and what a feed said of it before.

    A media file says nothing of when it was published, only when it was written, and its name is
    no title: there the feed goes first. A site that knows its videos by name knows better.
    """
    said = {key: value for key, value in told.items() if value}
    known = {key: value for key, value in info.items() if value is not None}
    captions = {**said.pop("subtitles", {}), **(known.pop("subtitles", None) or {})}
    if key_of(known) in NAMELESS:
        return {**info, "timestamp": None, "upload_date": None, **said, "subtitles": captions}
    return {**info, **said, **known, "subtitles": captions}


def extractor_of(url: str) -> Any:
    """yt-dlp's extractor of an address; the generic one takes what no other does."""
    from yt_dlp.extractor import gen_extractor_classes

    return next(one for one in gen_extractor_classes() if one.suitable(url))


def named(url: str) -> tuple[str, str | None]:
    """The extractor of an address, and the site's id of the video, where the address tells."""
    extractor = extractor_of(url)
    return extractor.ie_key(), extractor.get_temp_id(url)


def key_of(entry: dict[str, Any]) -> str | None:
    """The extractor that made an entry, or that an entry which is an address is for."""
    key = entry.get("extractor_key") or entry.get("ie_key")
    if entry.get("_type") in ("url", "url_transparent"):
        key = entry.get("ie_key")
    return str(key) if key else None


def clean(url: str) -> str:
    """A URL without what yt-dlp packed into it."""
    from yt_dlp.utils import unsmuggle_url

    try:
        return str(unsmuggle_url(url)[0])
    except (ValueError, KeyError):  # it only looks like yt-dlp's, as anybody can write it
        return url.partition("#")[0]


def _address(url: str) -> str:
    """A URL as it is compared: host in lower case, without a fragment, a name and a password."""
    try:
        parts = urlsplit(plain(url))
    except ValueError:
        return url
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
