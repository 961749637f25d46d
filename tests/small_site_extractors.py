"""Extractors of a small video platform, so that yt-dlp meets on loopback what a big one serves

A channel `/@name` with tabs of several pages, and videos `/watch/<id>` whose facts are JSON: also
private, live and captioned ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yt_dlp.globals
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.utils import ExtractorError


class SmallVideoIE(InfoExtractor):
    _VALID_URL = r"(?P<site>http://127\.0\.0\.1:\d+)/(?:watch|short)/(?P<id>\w+)"
    _RETURN_TYPE = "video"

    def _real_extract(self, url: str) -> dict[str, Any]:
        site, video_id = self._match_valid_url(url).group("site", "id")
        told = self._download_json(f"{site}/api/{video_id}", video_id)
        if "error" in told:
            raise ExtractorError(told["error"], expected=True)
        if "warning" in told:
            self.report_warning(told["warning"])
        return {"id": video_id, "title": video_id, **told}


class SmallChannelTabIE(InfoExtractor):
    _VALID_URL = r"(?P<site>http://127\.0\.0\.1:\d+)/@(?P<id>\w+)"
    _RETURN_TYPE = "playlist"

    def _real_extract(self, url: str) -> dict[str, Any]:
        site, name = self._match_valid_url(url).group("site", "id")
        tabs = self._download_json(f"{site}/api/tabs/{name}", name)

        def entries(tab: str) -> Iterator[dict[str, Any]]:
            for number in range(tabs[tab]):
                for video in self._download_json(f"{site}/api/{name}/{tab}/{number}", name):
                    yield self.url_result(
                        f"{site}/watch/{video['id']}",
                        SmallVideoIE,
                        video["id"],
                        video.get("title"),
                        **{k: v for k, v in video.items() if k not in ("id", "title")},
                    )

        return self.playlist_result(
            [self.playlist_result(entries(tab), f"{name}-{tab}") for tab in tabs], name
        )


@contextmanager
def small_extractors() -> Iterator[None]:
    """yt-dlp with the extractors above."""
    from yt_dlp.extractor import gen_extractor_classes

    gen_extractor_classes()  # loads its own
    before = yt_dlp.globals.extractors.value
    added = {one.__name__: one for one in (SmallVideoIE, SmallChannelTabIE)}
    yt_dlp.globals.extractors.value = {**added, **before}
    try:
        yield
    finally:
        yt_dlp.globals.extractors.value = before
