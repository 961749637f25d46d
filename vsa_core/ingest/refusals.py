"""What yt-dlp's errors mean: a clear no, maybe later, or at once once more."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from vsa_core.config import Settings
from vsa_core.errors import StoreError, VsaError
from vsa_core.ingest.addresses import shown

if TYPE_CHECKING:
    from vsa_core.ingest.guard import Watch

T = TypeVar("T")


class Outcome(StrEnum):
    """What became of an address."""

    FETCHED = "fetched"
    REFUSED = "refused"  # a clear no, which seldom changes
    FAILED = "failed"  # it may be tried again in another run
    LATER = "later"  # a live or upcoming stream


class Refusal(Exception):  # noqa: N818 - what somebody else said, in our words
    """Why something at an address is not to be had.

    Args:
        outcome: what becomes of the address.
        kind: why, in a word.
        reason: why, in one line.
        again: whether trying again at once makes sense.
        wait_s: what the server asks to wait before, s; 0 when it says nothing.
    """

    def __init__(
        self, outcome: Outcome, kind: str, reason: str, *, again: bool = False, wait_s: float = 0
    ) -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.kind = kind
        self.reason = shown(" ".join(reason.split())[:500])
        self.again = again
        self.wait_s = wait_s


_R, _F, _L = Outcome.REFUSED, Outcome.FAILED, Outcome.LATER

# What sites and yt-dlp say, as far as it differs in what to do: pattern, outcome, kind, advice,
# whether to try again at once. The first that fits decides.
_SAID: tuple[tuple[str, Outcome, str, str, bool], ...] = (
    (r"not a bot|captcha|unusual traffic", _F, "bot_check",
     "set download.cookies_file, or fetch more slowly (download.sleep_s)", False),
    (r"temporar", _F, "server_error", "", True),
    (r"rate.?limit|too many requests|try again later", _F, "rate_limited",
     "fetch more slowly (download.sleep_s, download.sleep_requests_s)", True),
    (r"members.only|members? on level|join this channel|channel's members|subscribers? only"
     r"|only available (to|for) (paid|premium|subscribers)|requires payment|premium member|paywall",
     _R, "members_only", "", False),
    (r"age.restrict|confirm your age|inappropriate for some users|verify your age|age.gate",
     _R, "age_restricted", "", False),
    (r"not (made this video )?available (in|from) your (country|location|region)|geo.?restrict"
     r"|blocked it in your country|georestrict", _R, "geo_blocked", "", False),
    (r"\bprivate\b", _R, "private", "", False),
    (r"\bdrm\b", _R, "drm", "", False),
    (r"live event (will begin|has ended)|premieres? in|will begin in|upcoming|is offline"
     r"|not currently live|is being processed|has not started|starts in|scheduled",
     _L, "live", "", False),
    (r"removed|deleted|no longer (available|exists)|terminated|does not exist|doesn't exist"
     r"|video unavailable|not found|isn't available|is unavailable|not available",
     _R, "removed", "", False),
    (r"log ?in|sign in|requires? authentication|registered users|account", _F, "login_needed",
     "set download.cookies_file", False),
)  # fmt: skip
_NO_FORMAT = re.compile(r"requested format is not available|no video formats|only images", re.I)
_NO_RUNTIME = re.compile(r"javascript runtime|challenge solv|js challenge", re.I)
_NOISE = re.compile(
    r"\x1b\[[0-9;]*m|^ERROR: |^\r?\[download\] (Got error: )?|^\[[\w:+.-]+\] (?:\S{1,80}: )?"
    r"|;? please report this issue.*|\(caused by.*|(?:\. |; |, )?Use --\S.*|See  ?https?://\S+.*"
    r"|You might want to use a VPN.*|\. Giving up after.*",
    re.S,
)
JAVASCRIPT = (
    "YouTube gives its videos only to a JavaScript runtime: install deno (https://deno.com) and "
    "`pip install yt-dlp-ejs`"
)


def refusal(error: BaseException, warnings: Sequence[str] = ()) -> Refusal:
    """What an error of yt-dlp's, or of ours below it, means.

    Args:
        error: as it was raised.
        warnings: what yt-dlp said before.

    Raises:
        StoreError: our own disk is full.
    """
    from yt_dlp.networking.exceptions import CertificateVerifyError, HTTPError, TransportError
    from yt_dlp.utils import ContentTooShortError, GeoRestrictedError, UnsupportedError, UserNotLive

    from vsa_core.ingest.guard import Stopped

    chain = list(_chain(error))
    said = _said(error)
    for one in chain:
        if isinstance(one, Refusal):
            return one
        if isinstance(one, Stopped):
            outcome = _F if one.kind in ("time_limit", "changed", "encoding") else _R
            return Refusal(outcome, one.kind, one.reason, again=one.kind == "changed")
        if isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"the disk is full: {one.filename or 'a download'} did not fit")
        if isinstance(one, GeoRestrictedError):
            return Refusal(_R, "geo_blocked", said)
        if isinstance(one, UserNotLive):
            return Refusal(_L, "live", said)
        if isinstance(one, UnsupportedError):
            return Refusal(_R, "no_video", "the page holds no video that can be fetched")
    if "No space left on device" in str(error) or "Disk quota exceeded" in str(error):
        raise StoreError(f"the disk is full: {said}")
    if _NO_FORMAT.search(said):
        if any(_NO_RUNTIME.search(warning) for warning in warnings):
            return Refusal(_F, "js_runtime", JAVASCRIPT)
        return Refusal(_F, "no_format", f"{said} (one file of at most a given height is fetched)")
    http = next((one for one in chain if isinstance(one, HTTPError)), None)
    status = http.status if http else None
    if status is None and (match := re.search(r"HTTP Error (\d{3})", str(error))):
        status = int(match[1])
    if status is not None:
        return _of_status(status, said, http.response.get_header("Retry-After") if http else None)
    if any(isinstance(one, CertificateVerifyError) for one in chain):
        return Refusal(_F, "certificate", said)
    # Its downloaders say in words only that the connection broke.
    broke = re.search(r"Got error: |did not get any data|timed out", str(error), re.IGNORECASE)
    if broke or any(isinstance(one, TransportError | ContentTooShortError) for one in chain):
        return Refusal(_F, "network", said, again=True)
    for pattern, outcome, kind, advice, again in _SAID:
        if re.search(pattern, said, re.IGNORECASE):
            return Refusal(outcome, kind, f"{said}: {advice}" if advice else said, again=again)
    return Refusal(_F, "extractor", f"{said} (a newer yt-dlp may help)")


def _of_status(status: int, said: str, retry_after: str | None) -> Refusal:
    """What an HTTP status means."""
    wait_s = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
    if status == 404:  # what was published a minute ago is not on every server yet
        return Refusal(_F, "not_found", said)
    if status == 410:
        return Refusal(_R, "removed", said)
    if status == 451:
        return Refusal(_R, "geo_blocked", said)
    if status == 401:
        return Refusal(_F, "login_needed", f"{said}: set download.cookies_file")
    if status == 429:
        advice = "fetch more slowly (download.sleep_s)"
        return Refusal(_F, "rate_limited", f"{said}: {advice}", again=True, wait_s=wait_s)
    if status >= 500 or status in (408, 425):
        return Refusal(_F, "server_error", said, again=True, wait_s=wait_s)
    return Refusal(_F, "http_error", said)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from, in yt-dlp's several ways of saying so."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inside = getattr(one, "exc_info", None)
        waiting += [one.__cause__, getattr(one, "cause", None), inside[1] if inside else None]


def _said(error: BaseException) -> str:
    """yt-dlp's words without what is for its own users: colours, options, where to report bugs."""
    text = str(error) or type(error).__name__
    for _ in range(3):  # one prefix uncovers the next
        text = _NOISE.sub("", text.strip()).strip()
    return " ".join(text.split())[:300] or type(error).__name__


def retrying(
    work: Callable[[], T], settings: Settings, watch: Watch, warnings: list[str] | None = None
) -> T:
    """What some work gives, tried again on errors that may pass, with longer and longer waits.

    Args:
        work: does it; what it did before it failed may stand.
        settings: `download` says how often and how long.
        watch: its limits hold for the waits too.
        warnings: what yt-dlp said; emptied before each try.

    Raises:
        Refusal: it is not to be had, or not now.
        StoreError: our own disk is full.
    """
    from vsa_core.ingest.downloader import backoff_s
    from vsa_core.ingest.guard import Stopped

    polite = settings.download
    tries = 0
    while True:
        try:
            if warnings is not None:
                warnings.clear()
            return work()
        except VsaError:
            raise
        except Exception as error:
            found = refusal(error, warnings or ())
            tries += 1
            too_long = found.wait_s > polite.max_backoff_s
            if not found.again or too_long or tries > polite.retries:
                raise found from error
        try:
            watch.wait(max(found.wait_s, backoff_s(settings, tries)))
        except Stopped as stopped:
            raise refusal(stopped) from stopped
