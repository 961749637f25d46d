"""Which videos of a list are wanted: what the listing can tell, and what only the page can."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vsa_core.config import Filters
from vsa_core.language import near, tag_of

# A date such as "3 months ago" is off by up to one of its unit: age in days → unit in days.
_UNITS_DAYS = ((1, 1), (7, 2), (31, 8), (366, 32))
_YEAR_DAYS = 367


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a video before it is fetched; None is not known.

    Attributes:
        title: as the site has it.
        earliest, latest: when it was published, between these.
        duration_s: s.
        language: BCP 47 tag.
        live_status: yt-dlp's: is_live, is_upcoming, post_live, was_live, not_live.
    """

    title: str | None = None
    earliest: datetime | None = None
    latest: datetime | None = None
    duration_s: float | None = None
    language: str | None = None
    live_status: str | None = None

    @property
    def published_at(self) -> datetime | None:
        """When it was published, where that is known exactly."""
        return self.latest if self.earliest == self.latest else None


def facts_of(info: Mapping[str, Any], *, approximate: bool = False) -> Facts:
    """The facts of an entry of a listing, or of a page (untrusted).

    Args:
        info: yt-dlp's.
        approximate: its time was computed from words like "3 months ago".
    """
    latest = _time(info)
    earliest = latest
    if latest is not None and approximate:
        age = (datetime.now(UTC) - latest).days
        slack = next((unit for days, unit in _UNITS_DAYS if age < days), _YEAR_DAYS)
        earliest, latest = latest - timedelta(days=slack), latest + timedelta(days=1)
    title, duration = info.get("title"), info.get("duration")
    status = info.get("live_status")
    if status is None and info.get("is_live"):
        status = "is_live"
    return Facts(
        title=title[:2000] if isinstance(title, str) else None,
        earliest=earliest,
        latest=latest,
        duration_s=float(duration) if isinstance(duration, int | float) else None,
        language=tag_of(info.get("language") if isinstance(info.get("language"), str) else None),
        live_status=status if isinstance(status, str) else None,
    )


def _time(info: Mapping[str, Any]) -> datetime | None:
    for key in ("timestamp", "release_timestamp"):
        if isinstance(info.get(key), int | float):
            try:
                return datetime.fromtimestamp(info[key], UTC)
            except (ValueError, OverflowError, OSError):
                continue
    try:
        return datetime.strptime(str(info.get("upload_date")), "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def passed_over(filters: Filters, facts: Facts) -> str | None:
    """Why a video is not wanted, in one line; None when nothing that is known speaks against it."""
    after, before = filters.published_after, filters.published_before
    if after and facts.latest and facts.latest.date() < after:
        return f"was published before {after} (filters.published_after)"
    if before and facts.earliest and facts.earliest.date() >= before:
        return f"was published on {before} or later (filters.published_before)"
    if facts.duration_s is not None and facts.live_status not in ("is_live", "is_upcoming"):
        shown = f"lasts {facts.duration_s:.0f} s"
        if facts.duration_s < filters.min_duration_s:
            return f"{shown}, less than {filters.min_duration_s:g} s (filters.min_duration_s)"
        if filters.max_duration_s is not None and facts.duration_s > filters.max_duration_s:
            return f"{shown}, more than {filters.max_duration_s:g} s (filters.max_duration_s)"
    title = filters.title
    if title and facts.title is not None and not re.search(title, facts.title, re.IGNORECASE):
        return f"its title does not have {title!r} in it (filters.title)"
    wanted = [tag_of(tag) for tag in filters.languages]
    if wanted and facts.language and not any(near(facts.language, tag) for tag in wanted):
        return f"is in {facts.language!r} (filters.languages)"
    return None


def undecided(filters: Filters, facts: Facts) -> bool:
    """Whether a filter asks for something that is not known yet."""
    after, before = filters.published_after, filters.published_before
    return bool(
        (after and (facts.earliest is None or facts.earliest.date() < after))
        or (before and (facts.latest is None or facts.latest.date() >= before))
        or ((filters.min_duration_s or filters.max_duration_s) and facts.duration_s is None)
        or (filters.title and facts.title is None)
        or (filters.languages and facts.language is None)
    )
