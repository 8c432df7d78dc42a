"""An S3 API for the tests: moto's server as a process of its own, and a proxy that misbehaves."""

from __future__ import annotations

import http.client
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import fsspec
from s3fs import S3FileSystem

KEY, SECRET, REGION = "tests", "of-the-tests", "us-east-1"
_RUNNING = re.compile(r"Running on (http://[\d.]+:\d+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")
_OPEN = 10**9  # requests before the server looks at credentials


class S3Server:
    """A server that lives as long as its process."""

    def __init__(self, url: str) -> None:
        """Remember where it listens."""
        self.url = url

    def settings(self, key: str = KEY, url: str = "") -> dict[str, str]:
        """Return what fsspec needs to know, to ask it or a proxy at `url`."""
        return {"endpoint_url": url or self.url, "key": key, "secret": SECRET}

    def environment(self, url: str = "") -> dict[str, str]:
        """Return the same for a process of its own."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        }

    def files(self) -> Any:
        """Return a file system of its own, which looks into the buckets."""
        return S3FileSystem(**self.settings(), use_listings_cache=False)

    def bucket(self) -> str:
        """Make a bucket, and return its name."""
        name = f"b{uuid.uuid4().hex[:12]}"
        self.files().mkdir(name)
        return name

    @contextmanager
    def asking_who(self) -> Iterator[None]:
        """Have the server look at credentials: it knows none."""
        self._know(0)
        try:
            yield
        finally:
            self._know(_OPEN)

    def _know(self, requests: int) -> None:
        address = f"{self.url}/moto-api/reset-auth"
        body, kind = str(requests).encode(), {"Content-Type": "text/plain"}
        asked = urllib.request.Request(address, body, kind, method="POST")  # noqa: S310 - ours
        urllib.request.urlopen(asked).close()  # noqa: S310 - as above


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Have a server on loopback."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            lines = (line.decode() for line in process.stderr)
            url = next(match[1] for line in lines if (match := _RUNNING.search(line)))
            Thread(target=process.stderr.read, daemon=True).start()  # one line for each request
            yield S3Server(url)
        finally:
            process.kill()


def use(server: S3Server, key: str = KEY, url: str = "") -> None:
    """Have this process ask the server, or a proxy before it."""
    fsspec.config.conf["s3"] = server.settings(key, url)


class FaultyProxy:
    """Stands before a server; answers `refusal`, a status and a code of S3, while there is one.

    With `times` it refuses so many requests, then no more. `only` are methods that it refuses.
    """

    def __init__(self, server: S3Server) -> None:
        """Forward to `server`."""
        self.server = server
        self.refusal: tuple[int, str] | None = None
        self.times = _OPEN
        self.only: frozenset[str] = frozenset()
        self.seen: list[tuple[str, str]] = []
        self.ranges: list[tuple[int, int]] = []  # of bytes that were asked for
        self.delay = 0.0  # seconds before each answer
        self.url = ""

    def refuse(self, status: int, code: str, times: int = _OPEN, only: str = "") -> None:
        """Refuse from now on."""
        self.refusal, self.times, self.only = (status, code), times, frozenset(only.split())

    def answer(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body of what the client gets."""
        self.seen.append((method, path))
        if asked := _RANGE.fullmatch(headers.get("Range", headers.get("range", ""))):
            self.ranges.append((int(asked[1]), int(asked[2]) + 1))
        Event().wait(self.delay)
        if self.refusal and self.times > 0 and (not self.only or method in self.only):
            self.times -= 1
            status, code = self.refusal
            text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
            return status, [("Content-Type", "application/xml")], text.encode()
        link = http.client.HTTPConnection(self.server.url.removeprefix("http://"), timeout=30)
        try:
            link.request(method, path, body, dict(headers))
            reply = link.getresponse()
            return reply.status, reply.getheaders(), reply.read()
        finally:
            link.close()


@contextmanager
def faulty(server: S3Server, at: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[FaultyProxy]:
    """Have a proxy before `server`, which listens `at` an address and a port."""
    proxy = FaultyProxy(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, text = proxy.answer(
                self.command, self.path, dict(self.headers.items()), body
            )
            self.send_response_only(status)
            kept = [pair for pair in headers if pair[0].lower() in _KEPT]
            length = next((v for n, v in headers if n.lower() == "content-length"), len(text))
            for name, value in [*kept, ("Content-Length", str(length))]:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                with suppress(ConnectionError):  # of a client that was killed, or has enough
                    self.wfile.write(text)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _forward  # noqa: N815 - their names

        def log_message(self, *_words: object) -> None: ...

    with ThreadingHTTPServer(at, Handler) as listening:
        proxy.url = f"http://{at[0]}:{listening.server_address[1]}"
        thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield proxy
        finally:
            listening.shutdown()
            thread.join()


_KEPT = frozenset(
    {"content-type", "etag", "last-modified", "content-range", "accept-ranges"}
    | {"x-amz-checksum-crc32", "x-amz-version-id", "x-amz-bucket-region"}
)
