"""An S3 endpoint on loopback (moto's server), and a proxy before it in which things go wrong."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.fs as fs
import pytest
from werkzeug.serving import WSGIRequestHandler

# pyarrow's S3 takes its credentials from here, as a user's would.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "made",
    "AWS_SECRET_ACCESS_KEY": "made",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@dataclass
class SmallS3:
    """A bucket.

    Attributes:
        endpoint: `host:port`.
        bucket: its name.
    """

    endpoint: str
    bucket: str

    def url(self, folder: str, **options: str) -> str:
        """The URL of a store in the bucket; options as pyarrow's S3FileSystem names them."""
        given = {"scheme": "http", "endpoint_override": self.endpoint, **options}
        return f"s3://{self.bucket}/{folder}?" + "&".join(f"{k}={v}" for k, v in given.items())

    @property
    def filesystem(self) -> fs.S3FileSystem:
        """The bucket, past everything of ours."""
        return fs.S3FileSystem(
            endpoint_override=self.endpoint,
            scheme="http",
            region="us-east-1",
            allow_bucket_creation=True,
        )

    def objects(self, folder: str) -> list[str]:
        """Names of all objects below a folder."""
        selector = fs.FileSelector(f"{self.bucket}/{folder}", allow_not_found=True, recursive=True)
        infos = self.filesystem.get_file_info(selector)
        start = len(f"{self.bucket}/{folder}/")
        return sorted(i.path[start:] for i in infos if i.type == fs.FileType.File)


@contextmanager
def small_s3() -> Iterator[SmallS3]:
    """An endpoint with a bucket of its own, as long as the block lasts."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(WSGIRequestHandler, "log_request", lambda *_: None)
        for name, value in CREDENTIALS.items():
            patched.setitem(os.environ, name, value)
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        try:
            host, port = server.get_host_and_port()
            made = SmallS3(f"{host}:{port}", f"b{uuid.uuid4().hex[:8]}")
            made.filesystem.create_dir(made.bucket)
            yield made
        finally:
            server.stop()


# What a fault does with a request: the answer's status to send, or "cut" or "hang"; None lets it
# pass. It is asked (method, path with query, how many requests came before).
Fault = Callable[[str, str, int], int | str | None]


@dataclass
class FaultyS3:
    """The same bucket behind a proxy.

    Attributes:
        s3: the bucket as the proxy shows it.
        fault: what happens to a request.
        seen: method and path of every request.
    """

    s3: SmallS3
    fault: Fault = lambda *_: None
    seen: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def faulty_s3(behind: SmallS3) -> Iterator[FaultyS3]:
    """A proxy before an endpoint, as long as the block lasts."""
    faulty = FaultyS3(behind)

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def _pass(self) -> None:
            count = len(faulty.seen)
            faulty.seen.append((self.command, self.path))
            fault = faulty.fault(self.command, self.path, count)
            if fault == "cut" and self.command == "PUT":
                self.rfile.read(40)
                self._cut()
                return
            body = self._body()
            if fault == "hang":
                time.sleep(3)
                self._cut()
                return
            if isinstance(fault, int):
                name = {503: "SlowDown", 500: "InternalError", 403: "AccessDenied"}[fault]
                said = f"<Error><Code>{name}</Code><Message>made</Message></Error>".encode()
                self._answer(fault, {"Content-Type": "application/xml"}, said)
                return
            if fault == "slow":
                time.sleep(0.3)
            target = http.client.HTTPConnection(behind.endpoint, timeout=30)
            hops = ("expect", "transfer-encoding", "content-length")
            headers = {k: v for k, v in self.headers.items() if k.lower() not in hops}
            target.request(self.command, self.path, body, headers)
            answer = target.getresponse()
            contents = answer.read()
            if fault == "lost":  # it was done, and nobody hears of it
                self._cut()
                return
            self._answer(answer.status, dict(answer.getheaders()), contents, fault == "cut")
            target.close()

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def _answer(
            self, status: int, headers: dict[str, str], body: bytes, cut: bool = False
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", headers.get("content-length", str(len(body))))
            self.send_header("Content-Length", length if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self._cut()

        def _cut(self) -> None:
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        faulty.s3 = SmallS3(f"127.0.0.1:{server.server_port}", behind.bucket)
        yield faulty
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
