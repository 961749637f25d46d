"""One video from an http(s) address, fetched by yt-dlp into the store's media folder."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vsa_core.config import Sources
from vsa_core.errors import SourceError

_MEGABYTE = 1_000_000
_UNFINISHED = ".part"


def fetch(
    url: str, settings: Sources, languages: Sequence[str], media: Path
) -> tuple[Path | None, str | None]:
    """Download a page's video, its captions and its info.json, unless that was done before.

    Args:
        url: http or https; anything else is refused.
        settings: limits on size and addresses.
        languages: of the captions wanted, BCP 47; empty for those in the video's own language:
            all that people made, and automatic ones that are no translation.
        media: folder of the store; each address gets a folder of its own below it, named by a
            hash, put in place when it is complete. An interrupted download is resumed.

    Returns:
        (the media file, None), or (None, why it could not be fetched).

    Raises:
        SourceError: not an http(s) address.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise SourceError(f"{url!r} is not an address vsa fetches: give http:// or https://")
    folder = media / hashlib.sha256(url.encode()).hexdigest()[:16]
    done = _media_file(folder)
    if done is not None:
        return done, None
    try:
        if not settings.allow_private_addresses:
            _refuse_private(parts.hostname)
        unfinished = folder.with_name(folder.name + _UNFINISHED)
        _download(url, settings, languages, unfinished)
        if _media_file(unfinished) is None:
            return None, f"{url}: the page holds no video that could be fetched"
        unfinished.rename(folder)
        return _media_file(folder), None
    except (SourceError, OSError) as error:
        return None, f"{url}: {' '.join(str(error).split())}"


def _media_file(folder: Path) -> Path | None:
    """The one media file in a finished folder."""
    if not folder.is_dir():
        return None
    side = (".json", ".vtt", ".srt", ".part", ".ytdl")
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() not in side]
    return files[0] if files else None


def _refuse_private(host: str) -> None:
    """Raise SourceError when a host resolves to an address that is not public."""
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise SourceError(f"host {host!r} cannot be resolved ({error})") from error
    for address in sorted(addresses):
        if not ipaddress.ip_address(address.partition("%")[0]).is_global:
            raise SourceError(
                f"host {host!r} is at {address}, which is not public: set "
                "sources.allow_private_addresses to fetch it"
            )


def _download(url: str, settings: Sources, languages: Sequence[str], folder: Path) -> None:
    import yt_dlp

    limit = settings.max_download_mb * _MEGABYTE

    def stop_when_too_large(state: dict[str, Any]) -> None:
        if state.get("downloaded_bytes", 0) > limit:
            raise yt_dlp.utils.DownloadError(
                f"larger than {settings.max_download_mb} MB (sources.max_download_mb)"
            )

    height = settings.max_height_px
    options = {
        # One file with picture and sound: joining two needs the ffmpeg program, which a plain
        # install does not have.
        "format": f"b[height<={height}]/b/bv*[height<={height}]/ba",
        "paths": {"home": str(folder)},
        "outtmpl": {"default": "%(id).80B.%(ext)s"},
        "restrictfilenames": True,
        "noplaylist": True,
        "writeinfojson": True,
        "writesubtitles": True,
        "writeautomaticsub": True,
        "subtitlesformat": "vtt",
        # Patterns: a language stands for its regional forms and yt-dlp's `-orig` too.
        "subtitleslangs": [f"{re.escape(tag)}(-.*)?" for tag in languages],
        "max_filesize": limit,
        "progress_hooks": [stop_when_too_large],
        "retries": 5,
        "fragment_retries": 5,
        "socket_timeout": 20,
        "quiet": True,
        "noprogress": True,
        "no_warnings": True,
        "logger": logging.getLogger("vsa.yt_dlp"),
    }
    logging.getLogger("vsa.yt_dlp").addHandler(logging.NullHandler())
    logging.getLogger("vsa.yt_dlp").propagate = False
    try:
        with yt_dlp.YoutubeDL(options) as downloader:
            if not languages:
                info = downloader.extract_info(url, download=False)
                downloader.params["subtitleslangs"] = _untranslated(info or {})
            downloader.extract_info(url)
    except yt_dlp.utils.YoutubeDLError as error:
        # Colours, the prefix and advice on reporting bugs are for yt-dlp's own users.
        said = re.sub(r"\x1b\[[0-9;]*m|^ERROR: |;? please report this issue.*", "", str(error))
        raise SourceError(said) from error


def _untranslated(info: Mapping[str, Any]) -> list[str]:
    """Patterns of the caption languages of a page that are no machine's translation.

    A platform offers its automatic captions translated into a hundred languages. The ones in the
    language spoken are called `<language>-orig`, or bear the language of the video.

    Args:
        info: what yt-dlp found out about the page.
    """
    made = [tag for tag in info.get("subtitles") or {} if tag != "live_chat"]
    heard = [
        tag
        for tag in info.get("automatic_captions") or {}
        if tag.endswith("-orig") or tag == info.get("language")
    ]
    return [re.escape(tag) for tag in dict.fromkeys([*made, *heard])]
