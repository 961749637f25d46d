"""From sources (files, folders, URLs) to rows of the videos table."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from vsa_core import progress
from vsa_core.config import Settings, fingerprint
from vsa_core.errors import MediaError, said
from vsa_core.incomplete import incomplete
from vsa_core.ingest.folder import videos_in
from vsa_core.language import tag_of
from vsa_core.media import ENDS_EARLY, Media, probe
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store, TableRef

if TYPE_CHECKING:
    from vsa_core.ingest.listing import Item
    from vsa_core.ingest.web import Fetched

URL_LISTS = (".txt", ".urls")
_INFO_MAX_BYTES = 50_000_000  # yt-dlp's own, with every format listed, are 0.1 to 2 MB
_INFO_MAX_VALUES = 2_000_000  # 100,000 comments have 1.5 million


@dataclass(frozen=True, slots=True)
class Found:
    """A video that was found and named, but not opened yet.

    Attributes:
        path: the media file, absolute; the address while it is not fetched.
        source_url: where it came from: the address asked for, else the file's URI.
        video_id: `v` + 16 hex digits of the file's SHA-256; `x` + of its path when it cannot be
            read or is empty, because nothing has no content to be named after. Of an address
            that was labelled before, the video it was then; empty for a new one.
        sha256: of the file; None when it cannot be read, or is not fetched.
        size: bytes; None when unreadable.
        mtime_ns: modification time; None when unreadable.
        problem: why there is nothing to open; None normally.
        replaces: ids under which the same path stood in the store as failed before.
        item: the address it is fetched from; None for a file that lay there.
    """

    path: str
    source_url: str
    video_id: str = ""
    sha256: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    problem: str | None = None
    replaces: tuple[str, ...] = ()
    item: Item | None = None


def find_videos(
    sources: Sequence[str],
    settings: Settings,
    store: Store,
    limit: int | None = None,
    *,
    known: Mapping[str, str] | None = None,
) -> list[Found]:
    """Every video of some sources, in order, each content and each address once.

    Files are hashed, unless the same file was hashed before. Addresses are listed (a channel or
    playlist is many), not fetched: `fetched` does that.

    Args:
        sources: files, folders (searched to the bottom), http(s) URLs, or text files of URLs.
        settings: `sources`, `filters` and `download` count.
        store: where files seen before are known from.
        limit: stop after so many videos; None for all.
        known: video id by source id of addresses that were labelled before.

    Raises:
        SourceError: a source that does not exist, a folder without a video, an address that
            cannot be listed.
    """
    known = known or {}
    found: list[Found] = []
    for source in sources:
        if "://" in source or Path(source).suffix.lower() in URL_LISTS:
            from vsa_core.ingest.listing import listed

            found.extend(
                Found(item.shown, item.shown, known.get(item.source_id, ""), item=item)
                for item in listed(source, settings, known)
            )
        else:
            for path, problem in videos_in(Path(source), settings.sources.extensions):
                name = os.fsencode(path).decode(errors="backslashreplace")
                if name != str(path):
                    problem = f"{name} has a name that is no UTF-8: rename it"
                found.append(Found(name, path.as_uri(), problem=problem))
    found = list({f.item.source_id if f.item else f.path: f for f in found}.values())[:limit]
    progress.begin("find", len(found))
    hashed, failed = _known_files(store)
    with ThreadPoolExecutor(4) as pool:
        contexts = [copy_context() for _ in found]
        named = list(
            pool.map(lambda item, context: context.run(_named, item, hashed), found, contexts)
        )
    unique = {item.video_id or item.path: item for item in reversed(named)}
    return [
        replace(item, replaces=tuple(failed.get(item.path, ())))
        for item in named
        if unique[item.video_id or item.path] is item
    ]


def fetched(found: Found, fetch: Fetched) -> Found:
    """What was found at an address, once it was fetched, named by its content."""
    if fetch.path is None:
        return replace(found, video_id="", problem=fetch.reason)
    return _identified(replace(found, path=str(fetch.path), video_id=""), {})


def _known_files(
    store: Store,
) -> tuple[dict[tuple[str, int, int], str], dict[str, list[str]]]:
    """SHA-256 by (path, size, mtime) of files seen before, and failed video ids by path."""
    known: dict[tuple[str, int, int], str] = {}
    failed: dict[str, list[str]] = {}
    columns = ["video_id", "status", "media_path", "media_bytes", "media_mtime_ns", "sha256"]
    for table in store.scan("videos", columns=columns):
        for row in table.to_pylist():
            if row["status"] == "error":
                failed.setdefault(row["media_path"], []).append(row["video_id"])
            if row["sha256"]:
                key = (row["media_path"], row["media_bytes"], row["media_mtime_ns"])
                known[key] = row["sha256"]
    return known, failed


def _named(item: Found, known: dict[tuple[str, int, int], str]) -> Found:
    """A found file with its id; an address as it is."""
    try:
        return item if item.item is not None else _identified(item, known)
    finally:
        progress.advance("find", 1)


def _identified(item: Found, known: dict[tuple[str, int, int], str]) -> Found:
    """The item with its id, from the content unless the same file was hashed before."""
    by_path = "x" + hashlib.sha256(item.path.encode()).hexdigest()[:16]
    try:
        if item.problem is not None:
            return replace(item, video_id=by_path)
        stat = Path(item.path).stat()
        if not S_ISREG(stat.st_mode):  # to read a pipe or a device may never end
            problem = f"{item.path} is no file: give a video file, or a folder of them"
            return replace(item, video_id=by_path, problem=problem)
        sha256 = known.get((item.path, stat.st_size, stat.st_mtime_ns))
        if sha256 is None:
            with Path(item.path).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return replace(
            item,
            video_id="v" + sha256[:16] if stat.st_size else by_path,
            sha256=sha256,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
        )
    except Exception as error:  # noqa: BLE001 - one file's, which is told when it is opened
        reason = (error.strerror if isinstance(error, OSError) else None) or said(error)
        return replace(item, video_id=by_path, problem=f"{item.path} cannot be read: {reason}")


def standing(found: Found, row: str, settings: Settings, has_info: bool = True) -> bool:
    """Whether a videos row of this fingerprint is what `ingest` would write now.

    Args:
        found: a file.
        row: fingerprint of the row that stands.
        settings: of the run.
        has_info: False spares looking for an info.json that is known not to be there.
    """
    info = _info_beside(Path(found.path))[0] if has_info else {}
    return row == _made_from(found, info, settings) and not found.replaces


def _made_from(found: Found, info: Mapping[str, Any], settings: Settings) -> str:
    return fingerprint(
        "ingest/2",
        [found.path, found.sha256, found.size, found.mtime_ns, found.source_url, found.problem],
        info,
        settings.sources.max_duration_s,
        settings.transcripts.languages,
    )


def ingest(found: Found, settings: Settings, store: Store) -> TableRef:
    """Open a found video and put its row into the videos table, failed or not.

    Raises:
        MediaError: it cannot be decoded, or is longer than allowed; the row says so too, as it
            does of what nobody expected.
    """
    info, info_note = _info_beside(Path(found.path))
    made_from = _made_from(found, info, settings)
    for stale in found.replaces:
        if stale != found.video_id:
            store.discard("videos", stale)
    ref = store.fresh("videos", found.video_id, made_from)
    if ref is not None and store.read(ref, ["status"])["status"][0].as_py() == "ok":
        return ref
    row = _row(found, info)
    row["note"] = info_note
    try:
        if found.problem is not None:
            raise MediaError(found.problem)
        media = probe(Path(found.path), settings.transcripts.languages)
        longest_s = settings.sources.max_duration_s
        if media.duration_ms > longest_s * 1000:
            raise MediaError(
                f"{found.path} lasts {media.duration_ms / 1000:.0f} s, over the limit of "
                f"{longest_s:.0f} s: raise sources.max_duration_s to take it"
            )
        row.update(
            duration_ms=media.duration_ms,
            width=media.width,
            height=media.height,
            fps=media.fps,
            has_video=media.has_video,
            has_audio=media.has_audio,
            sound_track=media.sound_track,
            note="; ".join(filter(None, [info_note, *_odd(media)])) or None,
        )
    except Exception as error:
        reason = said(error)
        if found.item is not None:  # what lies here is named by us, and means nothing to a person
            reason = reason.replace(found.path, found.item.shown)
        row.update(status="error", note=reason)
        store.commit("videos", found.video_id, table_from_rows("videos", [row]), made_from)
        if isinstance(error, MediaError):
            raise MediaError(reason) from error
        raise
    return store.commit("videos", found.video_id, table_from_rows("videos", [row]), made_from)


def _odd(media: Media) -> list[str]:
    """What is odd about a file; that its end is missing is said once."""
    notes = list(media.notes)
    if not any(note.startswith(ENDS_EARLY) for note in notes) and (cut := incomplete(media)):
        notes.append(cut)
    return notes


def _row(found: Found, info: dict[str, Any]) -> dict[str, Any]:
    path = Path(found.path)
    published = info.get("published_at")
    return {
        "video_id": found.video_id,
        "status": "ok",
        "note": None,
        "channel_id": info.get("channel_id") or info.get("uploader_id"),
        "channel": info.get("channel") or info.get("uploader"),
        "source_url": info.get("webpage_url") or found.source_url,
        "title": info.get("title") or path.stem,
        "published_at": datetime.fromisoformat(published) if published else None,
        "duration_ms": None,
        "language": info.get("language"),
        "media_path": found.path,
        "media_bytes": found.size,
        "media_mtime_ns": found.mtime_ns,
        "captions_kind": None,
        "sha256": found.sha256,
        "width": None,
        "height": None,
        "fps": None,
        "has_video": False,
        "has_audio": False,
        "sound_track": None,
        "source_id": found.item.source_id if found.item else None,
        "view_count": info.get("view_count"),
    }


def _info_beside(video: Path) -> tuple[dict[str, Any], str | None]:
    """What yt-dlp's `name.info.json` says (untrusted: only strings and times of known keys)."""
    path = video.with_name(f"{video.stem}.info.json")
    try:
        if path.stat().st_size > _INFO_MAX_BYTES:
            return {}, f"{path.name} is too large to be an info.json and was not read"
        text = path.read_text(encoding="utf-8")
        if sum(map(text.count, ",[{")) > _INFO_MAX_VALUES:
            return {}, f"{path.name} holds more than {_INFO_MAX_VALUES:,} values and was not read"
        raw = json.loads(text)
    except FileNotFoundError:
        return {}, None
    except RecursionError:
        return {}, f"{path.name} was not read: it is nested too deep"
    except (OSError, ValueError) as error:
        return {}, f"{path.name} was not read: {' '.join(str(error).split())[:120]}"
    if not isinstance(raw, dict):
        return {}, f"{path.name} was not read: it holds no object"
    keys = (
        "channel_id", "uploader_id", "channel", "uploader", "webpage_url", "title", "language"
    )  # fmt: skip
    info: dict[str, Any] = {
        key: str(raw[key])[:2000] for key in keys if isinstance(raw.get(key), str) and raw[key]
    }
    info["language"] = tag_of(info.get("language"))
    info["published_at"] = _published_at(raw)
    if type(views := raw.get("view_count")) is int and 0 <= views < 2**63:
        info["view_count"] = views
    return info, None


def _published_at(raw: dict[str, Any]) -> str | None:
    """ISO time of publication from `timestamp`, else from `upload_date` (YYYYMMDD, UTC)."""
    try:
        if isinstance(raw.get("timestamp"), int | float):
            return datetime.fromtimestamp(raw["timestamp"], UTC).isoformat()
        if isinstance(raw.get("upload_date"), str):
            return datetime.strptime(raw["upload_date"], "%Y%m%d").replace(tzinfo=UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return None
    return None
