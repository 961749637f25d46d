"""What an address leads to: one video, or every video of a channel, playlist, page or feed.

Listing asks for the list and not for each video on it. What the list does not say, and a filter
asks for, is looked up on the video's page when it is fetched, or here where `filters.max_videos`
has to count.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsa_core.config import Filters, Settings
from vsa_core.errors import SourceError
from vsa_core.ingest.addresses import (
    NAMELESS,
    clean,
    entry_id,
    extractor_of,
    is_address,
    key_of,
    named,
    only_video,
    plain,
    shown,
    source_id,
    with_told,
)
from vsa_core.ingest.filters import Facts, facts_of, passed_over, undecided
from vsa_core.ingest.refusals import Outcome, Refusal, retrying

if TYPE_CHECKING:
    from vsa_core.ingest.guard import Watch

NOT_YET = ("is_live", "is_upcoming", "post_live")  # of yt-dlp's live_status
_DEPTH = 5  # lists of lists, pages that lead to pages
_LISTS = ("YoutubeTab", "YoutubePlaylist")
_MAX_ENTRIES = 100_000
_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(frozen=True, slots=True)
class Item:
    """One address that should hold one video.

    Attributes:
        source_id: 16 hex digits of the SHA-256 of `<extractor>:<id>` as yt-dlp names it, the same
            whatever form of the URL is given; of the URL where the site has no name for it.
        url: where it is fetched from.
        title, published_at, duration_s, language, live_status: what the list says; None is not
            known. The title and all else are untrusted.
        asked: it was asked for by its own address, so that no filter applies.
        filters: what the list could not decide, for whoever sees the page; None for nothing.
        told: what a feed says of its episode, in yt-dlp's words; None for no feed.
    """

    source_id: str
    url: str
    title: str | None = None
    published_at: datetime | None = None
    duration_s: float | None = None
    language: str | None = None
    live_status: str | None = None
    asked: bool = False
    filters: Filters | None = None
    told: dict[str, Any] | None = None

    @property
    def shown(self) -> str:
        """Where it is fetched from, without a password: to be printed and stored."""
        return shown(self.url)


def listed(
    source: str, settings: Settings, known: Container[str] = (), *, channel: bool = False
) -> list[Item]:
    """Every video that an address, or a text file of addresses, leads to.

    Newest first where all dates are known, else in the site's order; each source once.

    Args:
        source: an http(s) URL, or a file with one on each line; `#` begins a comment.
        settings: `filters`, `download` and `sources` count.
        known: source ids that need nothing; for them nothing is looked up.
        channel: the address is a list, though it may not look like one today: it is looked at
            whatever is known of it, and is no video where it leads to none.

    Raises:
        SourceError: the list cannot be had, also after retries; it is a feed that does not parse
            or leads to nothing; no address; no such file.
    """
    if "://" in source:
        items = _of_address(source, settings, known, channel)
    else:
        items = []
        for url in _addresses(Path(source)):
            try:
                items += _of_address(url, settings, known, channel)
            except SourceError:  # the others are not to suffer; fetching it tells why
                items.append(Item(source_id(None, None, url), url, asked=True))
    unique: dict[str, Item] = {}
    for item in items:
        unique.setdefault(item.source_id, item)
    return list(unique.values())


# --- one source ---------------------------------------------------------------------------


def _check_address(url: str) -> None:
    if not is_address(url):
        raise SourceError(f"{shown(url)!r} is not an address vsa fetches: give http:// or https://")


def _addresses(file: Path) -> Iterator[str]:
    try:
        raw = file.read_bytes()
        wide = raw.startswith((BOM_UTF16_LE, BOM_UTF16_BE))  # as spreadsheets and Windows save it
        lines = raw.decode("utf-16" if wide else "utf-8-sig").splitlines()
    except OSError as error:
        raise SourceError(f"{str(file)!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{str(file)!r} is not text: give a file with one URL a line") from error
    found = False
    for number, line in enumerate(lines, 1):
        if url := _COMMENT.sub("", line).strip():
            try:
                _check_address(url)
            except SourceError as error:
                raise SourceError(f"{file}, line {number}: {error}") from error
            found = True
            yield url
    if not found:
        raise SourceError(f"{str(file)!r} holds no address: give one a line")


def _of_address(url: str, settings: Settings, known: Container[str], channel: bool) -> list[Item]:
    from vsa_core.ingest.downloader import downloader, watch_for

    _check_address(url)
    url = plain(url)
    extractor = extractor_of(url)
    key, video_id = extractor.ie_key(), extractor.get_temp_id(url)
    alone = Item(source_id(key, video_id, url), url, asked=True)
    if extractor.is_single_video(url):
        return [alone]
    if key == "Generic" and alone.source_id in known and not channel:
        return [alone]
    watch = watch_for(settings)
    with downloader(settings, watch) as (ydl, heard):
        try:
            entries = retrying(lambda: _all(ydl, url, watch), settings, watch, heard.warnings)
        except Refusal as refused:
            gone = refused.outcome is not Outcome.FAILED or refused.kind == "not_found"
            if gone and key not in _LISTS and not channel:
                return [alone]  # a page that is gone, or holds no video: fetching it tells why
            raise SourceError(f"{shown(url)}: {refused.reason}") from refused
        if len(entries) == 1 and entries[0].item.asked:
            return [entries[0].item]
        return _wanted(entries, settings, known, lambda item: _looked_up(ydl, item))


@dataclass(frozen=True, slots=True)
class _Entry:
    item: Item
    facts: Facts


def _all(ydl: Any, url: str, watch: Watch) -> list[_Entry]:
    """Every entry of an address, in the site's order; one that is asked for where it is a video."""
    found: dict[str, _Entry] = {}
    for entry in _entries(ydl, _extracted(ydl, url), url, watch, 0):
        found.setdefault(entry.item.source_id, entry)
        if len(found) > _MAX_ENTRIES:
            raise Refusal(Outcome.FAILED, "too_many", f"lists more than {_MAX_ENTRIES:,} videos")
    return list(found.values())


def _extracted(ydl: Any, url: str, key: str | None = None) -> dict[str, Any]:
    """What yt-dlp says an address is, without looking at what it leads to."""
    return ydl.extract_info(url, download=False, process=False, ie_key=key) or {}


def _entries(
    ydl: Any, result: dict[str, Any], page: str, watch: Watch, depth: int, *, listed: bool = False
) -> Iterator[_Entry]:
    watch.check()
    kind = result.get("_type") or "video"
    if kind in ("playlist", "multi_video", "compat_list"):
        page = str(result.get("webpage_url") or page)
        # Tabs of a channel do not say themselves whose they are.
        dated = key_of(result) == "YoutubeTab" or bool(result.get("_approximate"))
        for entry in _iterated(result.get("entries")):
            if entry:
                entry = {"_approximate": dated, **entry}
                yield from _entries(ydl, entry, page, watch, depth + 1, listed=True)
        return
    if kind in ("url", "url_transparent"):
        url = clean(str(result.get("url") or ""))
        if not is_address(url):
            return  # of an untrusted list; nothing else is fetched from
        if not listed and kind == "url" and _is_video(result, url):
            yield _Entry(Item(source_id(*named(url), url), url, asked=True), Facts())
            return
        if (not listed or _is_list(result, url)) and depth < _DEPTH:
            inside = _extracted(ydl, str(result["url"]), result.get("ie_key"))
            yield from _entries(ydl, inside, url, watch, depth + 1, listed=listed)
            return
        yield _entry(result, url, page)
    elif listed:
        yield _entry(result, page, page)
    else:
        url = str(result.get("webpage_url") or page)
        key = key_of(result)
        result = only_video(result)
        name = source_id(key, result.get("id"), page)
        facts = facts_of(result)
        item = Item(name, page if key in NAMELESS else url, asked=True)
        yield _Entry(_with(item, facts), facts)


def _iterated(entries: Any) -> Iterable[dict[str, Any]]:
    from yt_dlp.utils import PagedList

    return entries.getslice() if isinstance(entries, PagedList) else entries or ()


def _entry(entry: dict[str, Any], url: str, page: str) -> _Entry:
    facts = facts_of(entry, approximate=bool(entry.get("_approximate")))
    item = Item(entry_id(entry, page), url, told=entry.get("_told"))
    return _Entry(_with(item, facts), facts)


def _with(item: Item, facts: Facts) -> Item:
    """An item with what is known of it now."""
    return replace(
        item,
        title=facts.title,
        published_at=facts.published_at,
        duration_s=facts.duration_s,
        language=facts.language,
        live_status=facts.live_status,
    )


def _wanted(
    entries: list[_Entry], settings: Settings, known: Container[str], look_up: Any
) -> list[Item]:
    """The entries that the filters let through, newest first."""
    filters, most = settings.filters, settings.filters.max_videos
    if all(entry.facts.latest is not None for entry in entries):
        entries = sorted(entries, key=lambda entry: entry.facts.latest or 0, reverse=True)
    taken: list[Item] = []
    count = 0
    for entry in entries:
        item, facts = entry.item, entry.facts
        if passed_over(filters, facts):
            continue
        if facts.live_status in NOT_YET:
            taken.append(replace(item, filters=filters))
            continue
        open_question = undecided(filters, facts)
        if open_question and most is not None and item.source_id not in known:
            facts = look_up(item) or facts
            if passed_over(filters, facts):
                continue
            item = _with(item, facts)
            open_question = undecided(filters, facts)
        taken.append(replace(item, filters=filters if open_question else None))
        count += 1
        if count == most:
            break
    return taken


def _looked_up(ydl: Any, item: Item) -> Facts | None:
    """What the page of a video says; None when it does not say, which fetching it will tell."""
    from yt_dlp.utils import YoutubeDLError

    from vsa_core.ingest.guard import Stopped

    try:
        info = _extracted(ydl, item.url)
        if item.told:
            info = with_told(info, item.told)
        return facts_of(info) if (info.get("_type") or "video") == "video" else None
    except Stopped:
        raise
    except (YoutubeDLError, SourceError):
        return None


def _is_video(entry: dict[str, Any], url: str) -> bool:
    from yt_dlp.extractor import get_info_extractor

    key = key_of(entry)
    return bool(key and get_info_extractor(key).is_single_video(url))


def _is_list(entry: dict[str, Any], url: str) -> bool:
    """Whether an entry of a list is a list itself: a tab of a channel, a season of a series."""
    from yt_dlp.extractor import get_info_extractor

    key = key_of(entry)
    if not key or key == "Generic":
        return False
    return key in _LISTS or get_info_extractor(key).is_single_video(url) is False
