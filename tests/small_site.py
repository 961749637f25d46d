"""A web site on loopback with videos, pages, feeds and every kind of trouble, for the real yt-dlp.

`Site` serves what it is given: bytes, or a function that answers a request in its own way. It
remembers what it was asked for, so that a test can tell how many requests something took.
"""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from xml.sax.saxutils import escape

from tests import bad_media

VTT = "WEBVTT\n\n00:00.000 --> 00:01.500\n{}\n"
Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request, with what an answer needs."""

    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.close_connection = True
        self.site.asked.append(self.path)
        answer = self.site.pages.get(self.path)
        # A client may have read enough; over TLS that has a name of its own.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            if answer is None:
                self.send(b"nothing here", status=404)
            elif callable(answer):
                answer(self)
            else:
                kind, body = answer
                self.send(body, kind)

    def do_HEAD(self) -> None:
        self.do_GET()

    def head(self, status: int = 200, **headers: str) -> None:
        """The status and headers; underscores stand for hyphens."""
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, body: bytes, kind: str = "text/html", status: int = 200, **headers: str) -> None:
        """A whole answer."""
        self.head(status, Content_Type=kind, Content_Length=str(len(body)), **headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_range(self, body: bytes, tag: str, kind: str = "video/mp4") -> None:
        """A file, or the end of it that was asked for."""
        wanted = self.headers.get("Range", "")
        start = int(wanted.removeprefix("bytes=").partition("-")[0]) if wanted else 0
        if not start:
            self.send(body, kind, ETag=tag, Accept_Ranges="bytes")
            return
        whole = f"bytes {start}-{len(body) - 1}/{len(body)}"
        self.send(body[start:], kind, 206, ETag=tag, Content_Range=whole)

    def log_message(self, *_: object) -> None:
        pass


class Site:
    """What is served, and what was asked for.

    Attributes:
        address: `http://127.0.0.1:<port>`.
        pages: by path either (content type, body) or a function that answers.
        asked: the paths asked for so far.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.pages: dict[str, tuple[str, bytes] | Answer] = {}
        self.asked: list[str] = []

    def page(self, path: str, body: str, title: str = "A page") -> str:
        """Add an HTML page; returns its URL."""
        html = f"<html><head><title>{escape(title)}</title></head><body>{body}</body></html>"
        self.pages[path] = ("text/html", html.encode())
        return self.address + path

    def file(self, path: str, body: bytes, kind: str = "video/mp4") -> str:
        """Add a file; returns its URL."""
        self.pages[path] = (kind, body)
        return self.address + path

    def answer(self, path: str, answer: Answer) -> str:
        """Add a function that answers; returns its URL."""
        self.pages[path] = answer
        return self.address + path

    def talk(self, path: str, body: bytes, words: str, title: str) -> str:
        """Add a page with a video and English captions; returns its URL."""
        self.file(f"{path}.mp4", body)
        self.file(f"{path}.vtt", VTT.format(words).encode(), "text/vtt")
        track = f'<track src="{path}.vtt" srclang="en" kind="captions">'
        return self.page(path, f'<video src="{path}.mp4">{track}</video>', title)

    def rss(self, path: str, items: list[tuple[str, str, str]]) -> str:
        """Add an RSS feed of (title, RFC 2822 date, URL of the enclosure); returns its URL."""
        told = "".join(
            f"<item><title>{escape(title)}</title><pubDate>{date}</pubDate>"
            f'<enclosure url="{escape(url)}" type="video/mp4" length="1"/></item>'
            for title, date, url in items
        )
        channel = f"<channel><title>Feed</title>{told}</channel>"
        xml = f'<?xml version="1.0"?><rss version="2.0">{channel}</rss>'
        return self.file(path, xml.encode(), "application/rss+xml")


@contextmanager
def small_site(certificate: Path | None = None) -> Iterator[Site]:
    """A site that runs; over https with a file of a certificate and its key."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
    server.daemon_threads = True
    site = Site(f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}")
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.RequestHandlerClass = type("Here", (Request,), {"site": site})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def film(folder: Path, seconds: float = 1, name: str = "film.mp4") -> bytes:
    """A short film with sound, as bytes; films of different lengths differ."""
    path = bad_media.write(
        folder / name,
        bad_media.film(round(seconds * bad_media.FPS)),
        bad_media.sweep(seconds),
        options={"movflags": "faststart"},
    )
    return path.read_bytes()


def certificate(folder: Path) -> Path:
    """A file with a key and a certificate of its own for 127.0.0.1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "small site")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path
