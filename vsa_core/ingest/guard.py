"""Which addresses may be reached, and how much may be read: yt-dlp's requests, held to limits

Every request yt-dlp makes (pages, redirects, manifests, segments, captions, media) goes through one
handler of ours. It resolves a name once, refuses what is not public, and connects to the very
address it checked, so that a name which changes its mind between the two gains nothing.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import time
import zlib
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit
from urllib.request import (
    DataHandler,
    HTTPCookieProcessor,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    OpenerDirector,
    UnknownHandler,
)

from yt_dlp.networking import _urllib as urllib_rh
from yt_dlp.networking.exceptions import HTTPError, RequestError

from vsa_core import progress

_PAGE_MAX_BYTES = 64_000_000  # a page, manifest or answer of an API: those of big sites have 3 MB
_CHUNK = 65_536
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
            connection = _socket(self, family, kind, protocol)
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


# --- yt-dlp's side --------------------------------------------------------------------------


def _socket(watch: Watch, family: int, kind: int, protocol: int) -> socket.socket:
    """A socket that looks at the watch whenever it waits, so that no server holds us by sending a
    byte at a time."""

    class Watched(socket.socket):
        def recv_into(self, *args: Any, **kwargs: Any) -> int:
            watch.check()
            return super().recv_into(*args, **kwargs)

    return Watched(family, kind, protocol)


def _watched_tls(watch: Watch, context: ssl.SSLContext) -> ssl.SSLContext:
    class Watched(ssl.SSLSocket):
        def recv_into(self, *args: Any, **kwargs: Any) -> int:
            watch.check()
            return super().recv_into(*args, **kwargs)

    context.sslsocket_class = Watched
    return context


class _Redirects(urllib_rh.RedirectHandler):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        self._watch.check_url(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Http(urllib_rh.HTTPHandler):
    """yt-dlp's http and https, connecting as the watch does and unpacking what it reads in bits."""

    def __init__(self, watch: Watch, context: Any) -> None:
        super().__init__(context=context)
        self._watch = watch

    def http_open(self, req: Any) -> Any:
        return self.do_open(
            partial(self._connection, self._make_conn_class(HTTPConnection, req)), req
        )

    def https_open(self, req: Any) -> Any:
        return self.do_open(
            partial(self._connection, self._make_conn_class(HTTPSConnection, req)),
            req,
            context=self._context,
        )

    def _connection(self, kind: Any, *args: Any, **kwargs: Any) -> Any:
        connection = kind(*args, **kwargs)
        connection._create_connection = self._watch.connect
        return connection

    def http_response(self, _: Any, resp: Any) -> Any:
        coding = resp.headers.get("Content-Encoding", "").strip().lower()
        if coding not in ("gzip", "deflate"):
            return resp
        unpacked = io.BufferedReader(_Unpacked(resp, coding))
        answer = urllib_rh.urllib.response.addinfourl(unpacked, resp.headers, resp.url, resp.code)
        answer.msg = resp.msg
        return answer

    https_response = http_response


class _Unpacked(io.RawIOBase):
    """The bytes of a compressed answer, unpacked as they are asked for and no sooner."""

    def __init__(self, answer: Any, coding: str) -> None:
        self._answer = answer
        self._packed = b""
        self._inflate: Any = zlib.decompressobj(zlib.MAX_WBITS | 16) if coding == "gzip" else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if not self._packed:
                self._packed = self._answer.read1(_CHUNK)
                if not self._packed:
                    return 0
            if self._inflate is None:  # deflate comes with and without a header
                header = self._packed[0] & 0x0F == 8
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS if header else -zlib.MAX_WBITS)
            if self._inflate.eof:
                return 0
            data = self._inflate.decompress(self._packed, len(buffer))
            self._packed = self._inflate.unconsumed_tail
            if data:
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        self._answer.close()
        super().close()


class _Answer(urllib_rh.UrllibResponseAdapter):
    """An answer that is read as it comes in, and only so far as a page may go."""

    def __init__(self, answer: Any, watch: Watch) -> None:
        super().__init__(answer.fp)
        self._answer = answer  # which closes the connection once nobody holds it
        self._watch = watch

    def read(self, amt: int | None = None) -> bytes:
        if amt is not None:
            return self._some(amt)
        parts: list[bytes] = []
        size = 0
        while part := self._some(_CHUNK):
            size += len(part)
            if size > _PAGE_MAX_BYTES:
                raise Stopped("too_large", f"a page is larger than {_PAGE_MAX_BYTES / 1e6:g} MB")
            parts.append(part)
        return b"".join(parts)

    def _some(self, amt: int) -> bytes:
        self._watch.check()
        if self.closed:
            return b""
        try:
            data: bytes = self.fp.read1(amt)
        except Exception as error:
            urllib_rh.handle_response_read_exceptions(error)
            raise
        if not data and amt:
            self.close()
        return data


class GuardedRH(urllib_rh.UrllibRH):
    """yt-dlp's handler for http and https without ftp and files, held to a watch."""

    _SUPPORTED_URL_SCHEMES = ("http", "https", "data")

    def __init__(self, *, watch: Watch, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "enable_file_urls": False})
        self._watch = watch

    def _create_instance(
        self, proxies: Any, cookiejar: Any, legacy_ssl_support: Any = None
    ) -> OpenerDirector:
        opener = OpenerDirector()
        context = _watched_tls(self._watch, self._make_sslcontext(legacy_ssl_support))
        for handler in (
            urllib_rh.ProxyHandler(proxies),
            _Http(self._watch, context),
            HTTPCookieProcessor(cookiejar),
            DataHandler(),
            UnknownHandler(),
            HTTPDefaultErrorHandler(),
            HTTPErrorProcessor(),
            _Redirects(self._watch),
        ):
            opener.add_handler(handler)
        opener.addheaders = []
        return opener

    def _prepare_headers(self, _: Any, headers: Any) -> None:
        headers.setdefault("Accept-Encoding", "gzip, deflate")

    def _send(self, request: Any) -> Any:
        self._watch.check()
        self._watch.check_url(request.url)
        try:
            answer = _Answer(super()._send(request), self._watch)
        except HTTPError as error:
            answer = _Answer(error.response, self._watch)
            raise HTTPError(answer, redirect_loop=error.redirect_loop) from error
        if self._watch.whole_file and answer.status in (200, 206):
            self._measure(request, answer)
        return answer

    def _measure(self, request: Any, answer: _Answer) -> None:
        """Refuse a file that is too large, or another one than the part of it that lies here."""
        whole = answer.get_header("Content-Length", "")
        if answer.status == 206:
            whole = answer.get_header("Content-Range", "").rpartition("/")[2]
        size = int(whole) if whole.isdecimal() else None
        self._watch.measure(size)
        tag = answer.get_header("ETag") or answer.get_header("Last-Modified") or ""
        version = f"{tag}|{size}"
        resumed = answer.status == 206 and not request.headers.get("Range", "").startswith(
            "bytes=0-"
        )
        if resumed and self._watch.version not in (None, version):
            answer.close()
            raise Stopped("changed", "changed while it was being downloaded")
        self._watch.version = version
