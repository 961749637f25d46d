"""Which addresses may be reached, how long, and how much may be read.

A name is resolved once for each connection. What is not public is refused, and the connection
goes to the very address that was checked: a name that changes its mind in between gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from yt_dlp.networking.exceptions import RequestError

from vsa_core import progress

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Stopped(RequestError):  # noqa: N818 - it is us who end it
    """A request we ended ourselves; yt-dlp neither retries nor swallows it.

    Args:
        kind: why, in a word.
        reason: why, in one line.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class Watch:
    """The limits of one piece of work, and what was learned about the file it downloads.

    Args:
        seconds: how long the work may take, from now on.
        allow_private: whether addresses that are not public may be reached.
        proxied: whether a proxy of the user's connects for us; then names are resolved by it,
            and only addresses that stand in the URL itself can be refused.
        max_bytes: a file longer than this is refused; None for any.
    """

    def __init__(
        self, seconds: float, *, allow_private: bool, proxied: bool, max_bytes: int | None = None
    ) -> None:
        self.allow_private = allow_private
        self.proxied = proxied
        self.max_bytes = max_bytes
        self.whole_file = False  # set while a file is downloaded in one piece
        self.version: str | None = None  # which one it is: what of a part lies on the disk
        self._seconds = seconds
        self._ends_at = time.monotonic() + seconds

    def check(self) -> None:
        """Raise Stopped when time is up, Interrupted when the person wants to stop."""
        progress.advance("fetch", 0)
        if time.monotonic() >= self._ends_at:
            raise Stopped(
                "time_limit",
                f"took longer than {self._seconds:g} s and was cut off (download.time_limit_s)",
            )

    def wait(self, seconds: float) -> None:
        """Sleep, unless time is up or the person wants to stop."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.2))

    def measure(self, size: int | None) -> None:
        """Raise Stopped when a file of so many bytes is too large; None is not known."""
        if self.max_bytes is not None and size is not None and size > self.max_bytes:
            raise Stopped(
                "too_large",
                f"larger than {self.max_bytes / 1e6:g} MB (sources.max_download_mb)",
            )

    def connect(
        self, address: tuple[str, int], timeout: Any = None, source_address: Any = None
    ) -> socket.socket:
        """A connection to a host, at one of its addresses that may be reached.

        Raises:
            Stopped: it has none.
            OSError: none of them answers.
        """
        self.check()
        host, port = address
        found = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)
        allowed = [
            one for one in found if self.allow_private or self.proxied or public(str(one[4][0]))
        ]
        if not allowed:
            where = sorted({str(one[4][0]) for one in found})
            raise private_address(host, ", ".join(where))
        problem: OSError | None = None
        for family, kind, protocol, _, place in allowed:
            connection = watched_socket(self, family, kind, protocol)
            try:
                connection.settimeout(timeout if isinstance(timeout, int | float) else None)
                if source_address:
                    connection.bind(source_address)
                connection.connect(place)
            except OSError as error:
                connection.close()
                problem = error
                continue
            return connection
        raise problem or OSError(f"no address of {host!r} can be reached")

    def check_url(self, url: str) -> None:
        """Raise Stopped when a URL is not of the web, or names an address that is not public."""
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https", "data"):
            raise Stopped("not_web", f"leads to {url[:200]!r}, which is neither http nor https")
        host = (parts.hostname or "").rstrip(".")
        literal = _literal(host)
        local = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
        if self.allow_private or (literal is None and not local):
            return
        if local or not public(str(literal)):
            raise private_address(host, str(literal or host))


def private_address(host: str, where: str) -> Stopped:
    """What to say of a host that is not public."""
    return Stopped(
        "private_address",
        f"host {host!r} is at {where}, which is not public: set "
        "sources.allow_private_addresses to fetch it",
    )


def public(address: str) -> bool:
    """Whether an address is one of the public internet, also inside an IPv6 address."""
    found: Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        within = found.ipv4_mapped or found.sixtofour or (found.teredo or (None, None))[1]
        if found in _NAT64:
            within = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if within is not None:
            return public(str(within))
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _literal(host: str) -> Address | None:
    """The address a host is written as, in any form the system takes (2130706433, 0x7f.1)."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None


def watched_socket(watch: Watch, family: int, kind: int, protocol: int) -> socket.socket:
    """A socket that looks at the watch whenever it waits, so that no server holds us by sending a
    byte at a time."""

    class Watched(socket.socket):
        def recv_into(self, *args: Any, **kwargs: Any) -> int:
            watch.check()
            return super().recv_into(*args, **kwargs)

    return Watched(family, kind, protocol)
