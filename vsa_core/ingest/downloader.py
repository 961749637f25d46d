"""yt-dlp as it is let run here: no plugins, programs, configuration or network of its own."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vsa_core.config import Settings
from vsa_core.errors import ConfigError
from vsa_core.folders import cache_dir
from vsa_core.ingest import limits
from vsa_core.ingest.guard import Watch
from vsa_core.ingest.network import GuardedRH

_MEGABYTE = 1_000_000
_HEARD_MAX = 100
_COOKIES = re.compile(r"#( Netscape)? HTTP Cookie File")
# What our own handler reads. Everything else would start a program or open a connection of its
# own, or, as Flash's f4m, says in few bytes that it has thousands of millions of pieces.
_PROTOCOLS = "[protocol~='^(https?|m3u8(_native)?|http_dash_segments|ism)$']"


class Heard:
    """Takes what yt-dlp says on its way, and keeps its warnings: they explain later errors."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def debug(self, message: str) -> None:
        """Nothing anybody needs."""

    info = debug
    error = debug  # raised too

    def warning(self, message: str) -> None:
        """Keep it."""
        if len(self.warnings) < _HEARD_MAX:
            self.warnings.append(message[:2000])


def watch_for(settings: Settings) -> Watch:
    """The limits of one listing or download, which starts now."""
    return Watch(
        settings.download.time_limit_s,
        allow_private=settings.sources.allow_private_addresses,
        proxied=bool(settings.download.proxy),
        max_bytes=settings.sources.max_download_mb * _MEGABYTE,
    )


@contextmanager
def downloader(settings: Settings, watch: Watch, **options: Any) -> Iterator[tuple[Any, Heard]]:
    """A YoutubeDL whose every request goes through the watch, and what it says.

    Args:
        settings: `download` and `sources` count.
        watch: its limits.
        options: yt-dlp's, over those that are always the same.

    Raises:
        ConfigError: the cookies file cannot be read.
    """
    import yt_dlp
    import yt_dlp.globals

    # Plugins are code in folders of the user's that nobody chose to run here.
    yt_dlp.globals.plugin_dirs.value = []

    from yt_dlp.utils import parse_duration

    from vsa_core.ingest.feeds import FeedsIE

    class Guarded(yt_dlp.YoutubeDL):
        def add_info_extractor(self, ie: Any) -> None:
            if not isinstance(ie, type):
                _bounded(ie, parse_duration)
            super().add_info_extractor(ie)

        def build_request_director(self, *_: Any) -> Any:
            return super().build_request_director([partial(GuardedRH, watch=watch)])

    heard = Heard()
    polite = settings.download
    values = {
        "format": format_choice(settings),
        "restrictfilenames": True,
        "noplaylist": True,  # a video's own address means it, and not the list it was seen in
        "retries": 0,  # of a whole download; `retrying` goes on where it stopped
        "fragment_retries": polite.retries,
        "extractor_retries": polite.retries,
        "retry_sleep_functions": {
            name: partial(_wait_in_turn, settings, watch) for name in ("fragment", "extractor")
        },
        "skip_unavailable_fragments": False,
        "concurrent_fragment_downloads": 1,
        "socket_timeout": polite.timeout_s,
        "sleep_interval_requests": polite.sleep_requests_s,
        "ratelimit": polite.rate_limit_kb_s and polite.rate_limit_kb_s * 1000,
        "cookiefile": _cookies(settings),
        # Empty is none: the environment's proxies are not read.
        "proxy": polite.proxy or "",
        "cachedir": str(cache_dir() / "yt-dlp"),
        "ffmpeg_location": str(cache_dir() / "no-such-program"),
        "external_downloader": {"default": "native"},
        "hls_prefer_native": True,
        "fixup": "never",
        "updatetime": False,
        "allow_playlist_files": False,
        "enable_file_urls": False,
        "remote_components": (),
        "extractor_args": {"youtubetab": {"approximate_date": [""]}},
        "quiet": True,
        "noprogress": True,
        "color": "never",
        "logger": heard,
        **options,
    }
    with Guarded(values) as running:
        running.add_info_extractor(FeedsIE(settings))
        yield running, heard


def _bounded(extractor: Any, seconds_of: Any) -> None:
    """Let an extractor see no page and no manifest that becomes too large once taken apart."""
    read, dash = extractor._webpage_read_content, extractor._parse_mpd_periods
    smooth = extractor._parse_ism_formats_and_subtitles

    def page(*args: Any, **kwargs: Any) -> Any:
        text = read(*args, **kwargs)
        if isinstance(text, str):
            limits.check_page(text)
        return text

    def periods(manifest: Any, *args: Any, **kwargs: Any) -> Any:
        limits.check_dash(manifest, seconds_of)
        return dash(manifest, *args, **kwargs)

    def fragments(manifest: Any, *args: Any, **kwargs: Any) -> Any:
        limits.check_smooth(manifest)
        return smooth(manifest, *args, **kwargs)

    extractor._webpage_read_content = page
    extractor._parse_mpd_periods = periods
    extractor._parse_ism_formats_and_subtitles = fragments


def format_choice(settings: Settings) -> str:
    """yt-dlp's format selection: one file, no larger than the models need.

    Picture and sound in one file, because joining two needs the ffmpeg program, which a plain
    install does not have. Where all are larger the smallest is taken, and where picture and sound
    come only apart, the sound: what is said can be recognised from it.
    """
    height = f"[height<=?{settings.sources.max_height_px}]"
    sound = f"[abr<=?{settings.download.max_audio_kbps}]"
    wanted = (
        f"b{height}{sound}", f"b{height}", "w", f"ba{sound}", "wa", f"bv*{height}", "wv*"
    )  # fmt: skip
    return "/".join(choice + _PROTOCOLS for choice in wanted)


def backoff_s(settings: Settings, tries: int) -> float:
    """How long to wait after so many failed tries (from 1): doubled each time, with jitter."""
    polite = settings.download
    longest = min(polite.backoff_s * 2.0 ** min(tries - 1, 60), polite.max_backoff_s)
    return longest * random.uniform(0.5, 1.0)


def _wait_in_turn(settings: Settings, watch: Watch, n: int) -> float:
    """yt-dlp asks how long to sleep after try n (from 0); we sleep here, where Ctrl-C is heard."""
    watch.wait(backoff_s(settings, n + 1))
    return 0.0


def _cookies(settings: Settings) -> io.StringIO | None:
    """The user's cookies, read into memory: yt-dlp would write its own back into the file."""
    path = settings.download.cookies_file
    if path is None:
        return None
    try:
        text = path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(
            f"download.cookies_file {str(path)!r} cannot be read: {reason}"
        ) from error
    if not _COOKIES.match(text):
        raise ConfigError(
            f"download.cookies_file {str(path)!r} holds no cookies in the Netscape format: export "
            "them again"
        )
    return io.StringIO(text)
