"""One video from an http(s) address, fetched by yt-dlp into the folder of downloads."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsa_core.config import Settings, fingerprint
from vsa_core.errors import MediaError, StoreError
from vsa_core.ingest.addresses import entry_id, is_address, only_video, shown, with_told
from vsa_core.ingest.filters import facts_of, passed_over
from vsa_core.ingest.listing import NOT_YET, Item
from vsa_core.ingest.media_folder import LOCK, UNFINISHED, claimed, media_file, put_in_place
from vsa_core.ingest.online_captions import captions_of
from vsa_core.ingest.refusals import Outcome as Outcome
from vsa_core.ingest.refusals import Refusal, retrying
from vsa_core.media import probe

if TYPE_CHECKING:
    from vsa_core.ingest.guard import Watch

_TEXT_MAX = 20_000  # of one value in info.json
_LIST_MAX = 500


@dataclass(frozen=True, slots=True)
class Fetched:
    """What became of an address.

    Attributes:
        item: the address.
        outcome: what became of it.
        path: the media file; None unless it was fetched.
        kind: why it was not, in a word, as in the attempts table; None if it was.
        reason: the same in one line.
    """

    item: Item
    outcome: Outcome
    path: Path | None = None
    kind: str | None = None
    reason: str | None = None


def fetch(item: Item, settings: Settings, media: Path) -> Fetched:
    """Download an address's video, its captions and what the site says of it, unless it is here.

    Each address has a folder below `media`, named by its source id and put in place by one rename
    when it is complete. A download that was cut off is resumed, unless the file changed meanwhile.

    Args:
        item: as `listed` gave it.
        settings: `download`, `sources` and `transcripts` count.
        media: the folder of downloads.

    Raises:
        StoreError: our own disk is full, or the folder cannot be written.
        ConfigError: the cookies file cannot be read.
        Interrupted: the person asked to stop.
    """
    folder = media / item.source_id
    here = media_file(folder)
    if here is not None:
        return Fetched(item, Outcome.FETCHED, here)
    unfinished = folder.with_name(folder.name + UNFINISHED)
    try:
        if item.live_status in NOT_YET:
            raise _not_yet(item.live_status)
        if not is_address(item.url):
            raise Refusal(Outcome.REFUSED, "not_web", "is neither http nor https")
        with claimed(unfinished) as ours:
            if not ours:
                raise Refusal(Outcome.FAILED, "busy", "is being fetched by another run")
            if media_file(folder) is None:  # another run may just have put it in place
                _download(item, settings, unfinished)
                put_in_place(unfinished, folder)
    except Refusal as refused:
        nothing = refused.kind in ("not_found", "not_a_video", "no_media", "cut_off")
        if refused.outcome is not Outcome.FAILED or nothing:  # there is nothing to go on with
            shutil.rmtree(unfinished, ignore_errors=True)
        return Fetched(item, refused.outcome, None, refused.kind, f"{item.shown}: {refused.reason}")
    except OSError as error:
        raise StoreError(
            f"{error.filename or media} cannot be written: {error.strerror}: make room, or set "
            "download.media_dir"
        ) from error
    return Fetched(item, Outcome.FETCHED, media_file(folder))


def _download(item: Item, settings: Settings, unfinished: Path) -> None:
    """Everything of one video into its unfinished folder.

    Raises:
        Refusal: it is not to be had, or not now.
    """
    from vsa_core.ingest.downloader import downloader, watch_for

    watch = watch_for(settings)
    watch.wait(settings.download.sleep_s)
    part = _Part(unfinished, watch)
    part.clear(keep_media=True)
    options = {
        "paths": {"home": str(unfinished)},
        "outtmpl": {"default": f"{item.source_id}.%(ext)s"},
        "writesubtitles": True,  # has the extractors look for them; which, we choose
        "writeautomaticsub": True,
        "progress_hooks": [part.grown],
    }
    with downloader(settings, watch, **options) as (ydl, heard):
        told: dict[str, Any] = {}

        def once() -> None:
            info = _video(ydl, item, watch)
            if item.told:
                info = with_told(info, item.told)
            _refuse(info, item, settings)
            told["duration"] = info.get("duration")
            captions_of(ydl, info, item.source_id, unfinished, settings, watch)
            _write_info(ydl, info, unfinished / f"{item.source_id}.info.json")
            part.fetch(ydl, info)

        try:
            retrying(once, settings, watch, heard.warnings)
        except Refusal as refused:
            if refused.kind == "no_video" and _is_media(item.url):
                raise Refusal(
                    Outcome.FAILED, "no_media", "a page came instead of the media file"
                ) from refused
            raise
    path = media_file(unfinished)
    if path is None:
        raise Refusal(Outcome.FAILED, "no_file", "nothing was downloaded")
    try:
        media = probe(path)
    except MediaError as error:
        path.unlink()
        why = str(error).replace(str(path), "the file")
        raise Refusal(
            Outcome.FAILED, "not_a_video", f"what came does not decode, and was not kept ({why})"
        ) from error
    if _cut_off(path):
        path.unlink()
        raise Refusal(Outcome.FAILED, "cut_off", "what came ends in the middle, and was not kept")
    if told["duration"] is None:
        _refuse({"duration": media.duration_ms / 1000}, item, settings)


class _Part:
    """What of a video's file lies in an unfinished folder, and which version of it.

    Args:
        folder: the unfinished folder.
        watch: sees which version the server sends.
    """

    def __init__(self, folder: Path, watch: Watch) -> None:
        self._folder = folder
        self._note = folder / ".resume.json"
        self._watch = watch
        self._made_from: str | None = None
        self._noted: dict[str, Any] = {}

    def clear(self, *, keep_media: bool) -> None:
        """Remove what an earlier try left, or all of it but the unfinished media."""
        for path in self._folder.iterdir():
            media = ".part" in path.name or path.suffix == ".ytdl" or path == self._note
            if path.name != LOCK and not (media and keep_media):
                path.unlink()

    def fetch(self, ydl: Any, info: dict[str, Any]) -> None:
        """Download the media file, going on where the same file was cut off.

        Raises:
            Stopped: it is too large, takes too long, or another file came than the part here.
            YoutubeDLError: the rest.
        """
        from vsa_core.ingest.guard import Stopped

        keys = ("id", "format_id", "protocol", "duration", "title", "timestamp")
        self._made_from = fingerprint([info.get(key) for key in keys])
        self._noted = _object(self._note)
        if self._noted.get("made_from") == self._made_from:
            self._watch.version = self._noted.get("version")
        else:
            for path in self._folder.glob("*.part*"):
                path.unlink()
            for path in self._folder.glob("*.ytdl"):
                path.unlink()
        # A file in pieces has no version of its own; there what the page says has to do.
        self._watch.whole_file = info.get("protocol") in ("http", "https")
        try:
            ydl.process_info({**info, "requested_subtitles": None})
        except Stopped as stopped:
            if stopped.kind in ("changed", "too_large"):
                self.clear(keep_media=False)
                self._watch.version = None
            raise
        finally:
            self._watch.whole_file = False
        self._note.unlink(missing_ok=True)

    def grown(self, state: dict[str, Any]) -> None:
        """yt-dlp's progress hook: holds to the limits, and notes which version the part is of."""
        self._watch.check()
        self._watch.measure(state.get("downloaded_bytes"))
        now = {"made_from": self._made_from, "version": self._watch.version}
        if self._made_from is not None and now != self._noted:
            self._note.write_text(json.dumps(now), encoding="utf-8")
            self._noted = now


def _video(ydl: Any, item: Item, watch: Watch) -> dict[str, Any]:
    """What yt-dlp knows of the one video that is meant, its formats included."""
    result = ydl.extract_info(item.url, download=False, process=False) or {}
    page = item.url
    result = only_video(result)
    for _ in range(6):
        watch.check()
        kind = result.get("_type") or "video"
        if kind in ("video", "url_transparent"):
            result = ydl.process_ie_result(result, download=False) or {}
            if (result.get("_type") or "video") == "video" and result.get("id"):
                return dict(result)
        elif kind == "url":
            page = str(result["url"])
            result = ydl.extract_info(
                page, download=False, process=False, ie_key=result.get("ie_key")
            )
            result = result or {}
            continue
        entries = [entry for entry in result.get("entries") or () if entry]
        meant = [entry for entry in entries if entry_id(entry, page) == item.source_id]
        if not meant and len(entries) != 1:
            break
        parent = {
            key: result[key]
            for key in ("extractor", "extractor_key", "webpage_url", "original_url")
            if result.get(key)
        }
        result = {**parent, **(meant or entries)[0]}
    raise Refusal(
        Outcome.REFUSED, "no_video", "the page holds no single video, or no longer this one"
    )


def _refuse(info: dict[str, Any], item: Item, settings: Settings) -> None:
    """Raise Refusal for what the page says is not to be fetched."""
    facts = facts_of(info)
    if facts.live_status in NOT_YET:
        raise _not_yet(facts.live_status)
    longest_s = settings.sources.max_duration_s
    if facts.duration_s is not None and facts.duration_s > longest_s:
        raise Refusal(
            Outcome.REFUSED,
            "too_long",
            f"lasts {facts.duration_s:.0f} s, over the limit of {longest_s:.0f} s: raise "
            "sources.max_duration_s to take it",
        )
    if item.filters is not None and not item.asked:
        unwanted = passed_over(item.filters, facts)
        if unwanted is not None:
            raise Refusal(Outcome.REFUSED, "filtered", unwanted)


def _cut_off(path: Path) -> bool:
    """Whether an MP4 file ends before its boxes do; it plays until then, and nobody says so."""
    size, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place + 16 <= size:
            file.seek(place)
            head = file.read(16)
            if place == 0 and head[4:8] != b"ftyp":
                return False
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:], "big")
            if length < 8:  # 0: to the end; less makes no sense
                return False
            place += length
    return place > size


def _is_media(url: str) -> bool:
    """Whether an address ends as those of media files do, and no page's."""
    from yt_dlp.utils import KNOWN_EXTENSIONS, determine_ext

    return determine_ext(url, default_ext="").lower() in KNOWN_EXTENSIONS


def _not_yet(status: str) -> Refusal:
    said = {"is_live": "is live now", "is_upcoming": "has not started yet"}
    return Refusal(
        Outcome.LATER,
        "live",
        said.get(status, "was live and is not ready yet") + ": left for later",
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_info(ydl: Any, info: dict[str, Any], path: Path) -> None:
    """What the site says, as in yt-dlp's info.json, but without formats, cookies and headers."""
    plain = ydl.sanitize_info(info)
    hidden = (
        "url", "manifest_url", "cookies", "http_headers", "format", "protocol", "webpage_url_domain"
    )  # fmt: skip
    kept: dict[str, Any] = {}
    for key, value in plain.items():
        if key.startswith("_") or key in hidden:
            continue
        if isinstance(value, str):
            kept[key] = shown(value[:_TEXT_MAX])
        elif isinstance(value, int | float):
            kept[key] = value
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            kept[key] = [one[:1000] for one in value[:_LIST_MAX]]
    path.write_text(json.dumps(kept, ensure_ascii=False, indent=1), encoding="utf-8")
