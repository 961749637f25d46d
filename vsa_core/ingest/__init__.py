"""From sources (files, folders, URLs) to rows of the videos table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vsa_core import progress
from vsa_core.config import Settings, fingerprint
from vsa_core.errors import MediaError
from vsa_core.ingest.folder import videos_in
from vsa_core.language import tag_of
from vsa_core.media import probe
from vsa_core.schemas import table_from_rows
from vsa_core.store import Store, TableRef

_INFO_MAX_BYTES = 50_000_000  # yt-dlp's own, with every format listed, are 0.1 to 2 MB


@dataclass(frozen=True, slots=True)
class Found:
    """A video that was found and named, but not opened yet.

    Attributes:
        path: the media file, absolute.
        source_url: where it came from: the address asked for, else the file's URI.
        video_id: `v` + 16 hex digits of the file's SHA-256; `x` + of its path when it cannot be
            read or is empty, because nothing has no content to be named after.
        sha256: of the file; None when it cannot be read.
        size: bytes; None when unreadable.
        mtime_ns: modification time; None when unreadable.
        problem: why there is nothing to open; None normally.
        replaces: ids under which the same path stood in the store as failed before.
    """

    path: str
    source_url: str
    video_id: str = ""
    sha256: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    problem: str | None = None
    replaces: tuple[str, ...] = ()


def find_videos(
    sources: Sequence[str], settings: Settings, store: Store, limit: int | None = None
) -> list[Found]:
    """Every video of some sources, in order, each content once.

    Args:
        sources: files, folders (searched to the bottom) or http(s) URLs (fetched into
            `media/` in the store).
        limit: stop after so many videos; None for all.

    Raises:
        SourceError: a source that does not exist, a folder without a video.
    """
    found: list[Found] = []
    for source in sources:
        if "://" in source:
            from vsa_core.ingest.web import fetch

            path, problem = fetch(
                source, settings.sources, settings.transcripts.languages, store.root / "media"
            )
            found.append(Found(str(path or source), source, problem=problem))
        else:
            for path, problem in videos_in(Path(source), settings.sources.extensions):
                found.append(Found(str(path), path.as_uri(), problem=problem))
    found = list({item.path: item for item in found}.values())[:limit]
    progress.begin("find", len(found))
    known, failed = _known_files(store)
    with ThreadPoolExecutor(4) as pool:
        contexts = [copy_context() for _ in found]
        named = list(
            pool.map(lambda item, context: context.run(_named, item, known), found, contexts)
        )
    unique = {item.video_id: item for item in reversed(named)}
    return [
        replace(item, replaces=tuple(failed.get(item.path, ())))
        for item in named
        if unique[item.video_id] is item
    ]


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
    """The item with its id, from the content unless the same file was hashed before."""
    by_path = "x" + hashlib.sha256(item.path.encode()).hexdigest()[:16]
    try:
        if item.problem is not None:
            return replace(item, video_id=by_path)
        stat = Path(item.path).stat()
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
    except OSError as error:
        reason = f"{item.path} cannot be read: {error.strerror}"
        return replace(item, video_id=by_path, problem=reason)
    finally:
        progress.advance("find", 1)


def ingest(found: Found, settings: Settings, store: Store) -> TableRef:
    """Open a found video and put its row into the videos table, failed or not.

    Raises:
        MediaError: it cannot be decoded, or is longer than allowed; the row says so too.
    """
    info, info_note = _info_beside(Path(found.path))
    made_from = fingerprint(
        "ingest/1",
        [found.path, found.sha256, found.size, found.mtime_ns, found.source_url, found.problem],
        info,
        settings.sources.max_duration_s,
    )
    for stale in found.replaces:
        if stale != found.video_id:
            store.discard("videos", stale)
    ref = store.fresh("videos", found.video_id, made_from)
    if ref is not None and not found.replaces:
        return ref
    row = _row(found, info)
    row["note"] = info_note
    try:
        if found.problem is not None:
            raise MediaError(found.problem)
        media = probe(Path(found.path))
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
        )
    except MediaError as error:
        row.update(status="error", note=str(error))
        store.commit("videos", found.video_id, table_from_rows("videos", [row]), made_from)
        raise
    return store.commit("videos", found.video_id, table_from_rows("videos", [row]), made_from)


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
        "source_id": None,
        "view_count": info.get("view_count"),
    }


def _info_beside(video: Path) -> tuple[dict[str, Any], str | None]:
    """What yt-dlp's `name.info.json` says (untrusted: only strings and times of known keys)."""
    path = video.with_name(f"{video.stem}.info.json")
    try:
        if path.stat().st_size > _INFO_MAX_BYTES:
            return {}, f"{path.name} is too large to be an info.json and was not read"
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, None
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
