"""Atom feeds, YouTube's among them, as a list of yt-dlp's; RSS yt-dlp reads itself."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin
from xml.etree import ElementTree

_ATOM = "{http://www.w3.org/2005/Atom}"


def atom(ydl: Any, url: str) -> dict[str, Any] | None:
    """The entries of an Atom feed; None when the address holds none.

    Args:
        ydl: YoutubeDL, whose network is used.
        url: of the feed.
    """
    from yt_dlp.networking import Request
    from yt_dlp.utils import unified_timestamp

    with ydl.urlopen(Request(url)) as answer:
        head = answer.read(2048)
        if b"<feed" not in head:
            return None
        text = head + answer.read()
    if b"<!ENTITY" in text:  # whose expansion may be larger than any memory
        return None
    try:
        feed = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    if feed.tag != f"{_ATOM}feed":
        return None
    entries = []
    for entry in feed.iterfind(f"{_ATOM}entry"):
        links = {
            link.get("rel", "alternate"): link.get("href")
            for link in entry.iterfind(f"{_ATOM}link")
        }
        target = links.get("enclosure") or links.get("alternate")
        if target:
            entries.append(
                {
                    "_type": "url",
                    "url": urljoin(url, target),
                    "title": entry.findtext(f"{_ATOM}title"),
                    "timestamp": unified_timestamp(
                        entry.findtext(f"{_ATOM}published") or entry.findtext(f"{_ATOM}updated")
                    ),
                }
            )
    return {"_type": "playlist", "id": url, "webpage_url": url, "entries": entries}
