"""yt-dlp's requests over http and https, held to a watch: the one way it has to the network.

Pages, redirects, manifests, segments, captions and media all come through here.
"""

from __future__ import annotations

import io
import ssl
import zlib
from functools import partial
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.request import (
    DataHandler,
    HTTPCookieProcessor,
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    OpenerDirector,
    UnknownHandler,
)
from urllib.response import addinfourl

from yt_dlp.networking import _urllib as urllib_rh
from yt_dlp.networking.exceptions import HTTPError

from vsa_core.ingest.guard import Stopped, Watch
from vsa_core.ingest.limits import check_bytes

_PAGE_MAX_BYTES = 32_000_000  # a page, manifest or answer of an API: those of big sites have 3 MB
_CHUNK = 65_536


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
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if (new.type, new.host) != (req.type, req.host):
            new.headers.pop("Authorization", None)  # a password is for whom it was given
        return new


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
        if coding in ("br", "zstd", "compress"):
            raise Stopped("encoding", f"was sent compressed as {coding!r}, which is not read")
        if coding not in ("gzip", "x-gzip", "deflate"):
            return resp
        unpacked = io.BufferedReader(_Unpacked(resp, coding))
        answer: Any = addinfourl(unpacked, resp.headers, resp.url, resp.code)
        answer.msg = resp.msg
        return answer

    https_response = http_response


class _Unpacked(io.RawIOBase):
    """The bytes of a compressed answer, unpacked as they are asked for and no sooner."""

    def __init__(self, answer: Any, coding: str) -> None:
        self._answer = answer
        self._packed = b""
        self._inflate: Any = zlib.decompressobj(zlib.MAX_WBITS | 16) if "gzip" in coding else None

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
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        """How the answer begins; it is read again."""
        while len(self._ahead) < size and (part := self._received(size)):
            self._ahead += part
        return self._ahead[:size]

    def read(self, amt: int | None = None) -> bytes:
        if amt is not None:
            return self._some(amt)
        page = self.whole()
        check_bytes(page)
        return page

    def whole(self) -> bytes:
        """All of it, as far as a page may go."""
        parts: list[bytes] = []
        size = 0
        while part := self._some(_CHUNK):
            size += len(part)
            if size > _PAGE_MAX_BYTES:
                raise Stopped("too_large", f"a page is larger than {_PAGE_MAX_BYTES / 1e6:g} MB")
            parts.append(part)
        return b"".join(parts)

    def _some(self, amt: int) -> bytes:
        if self._ahead:
            part, self._ahead = self._ahead[:amt], self._ahead[amt:]
            return part
        return self._received(amt)

    def _received(self, amt: int) -> bytes:
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
