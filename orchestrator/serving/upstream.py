"""Connections to replicas: HTTP/1.1, kept alive, one request at a time on each.

This is a client for one purpose, of the parser that the server uses too: a general one costs the
gateway more than all the rest of its work. What it reads is handed on as it comes.
"""

from __future__ import annotations

import asyncio
import ssl
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httptools

_KEPT = (b"content-type", b"retry-after")
_IDLE_SECONDS = 2.0  # servers close after five; a request must not meet that
_HIGH_WATER = 256 * 1024


class Unreachable(Exception):  # noqa: N818 - what the replica is
    """There is no connection: nothing was asked."""


class Broken(Exception):  # noqa: N818 - what the connection is
    """The connection ended before the answer did."""


class Address(NamedTuple):
    """A base URL in parts."""

    host: str
    port: int
    secure: bool
    base: str


@lru_cache(maxsize=1024)
def address_of(url: str) -> Address:
    """Return the parts of a base URL."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return Address(
        parts.hostname or "", parts.port or (443 if secure else 80), secure, parts.path.rstrip("/")
    )


class Connection(asyncio.Protocol):
    """A connection; `status` is 0 until the head of an answer is there."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.idle_since = 0.0
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._size = 0
        self._whole = self._stays = False
        self._lost: str = ""
        self._waiter: asyncio.Future[None] | None = None
        self._transport: Any = None

    # What the pool and the forwarder call.

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self._whole and self._stays and not self._lost

    @property
    def kept(self) -> bool:
        """Whether it has answered before."""
        return self.idle_since > 0

    @property
    def fresh(self) -> bool:
        """Whether the server will not have closed it meanwhile."""
        return not self._lost and self._loop.time() - self.idle_since < _IDLE_SECONDS

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self.status = 0
        self.headers = {}
        self._whole = False
        self._transport.write(request)

    async def head(self) -> int:
        """Return the status of the answer.

        Raises:
            Broken: The connection ended before.
        """
        while not self.status:
            await self._more()
        return self.status

    async def read(self) -> bytes:
        """Return what has come of the body since; nothing at its end.

        Raises:
            Broken: The connection ended before.
        """
        while not self._parts:
            if self._whole:
                return b""
            await self._more()
        parts = self._parts
        part = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        if self._size > _HIGH_WATER and not self._lost:
            self._transport.resume_reading()
        self._size = 0
        return part

    def close(self) -> None:
        """End it at once; a request in flight is given up."""
        self._lost = self._lost or "it was given up"
        self._transport.abort()

    async def _more(self) -> None:
        if self._lost:
            raise Broken(self._lost)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the event loop calls.

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvloop's are no asyncio.Transport
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on."""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._lost = f"it answers no HTTP: {error}"
            self._transport.abort()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        self._lost = self._lost or (f"{exc}" if exc else "it was closed")
        self._wake()

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep what is handed on."""
        name = name.lower()
        if name in _KEPT:
            self.headers[name] = value

    def on_headers_complete(self) -> None:
        """Take the status."""
        status = self._parser.get_status_code()
        if status >= 200:  # noqa: PLR2004 - 1xx announce another answer
            self.status = status

    def on_body(self, body: bytes) -> None:
        """Take a part, and no more than the client does."""
        self._parts.append(body)
        self._size += len(body)
        if self._size > _HIGH_WATER:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Know that the answer is whole."""
        self._whole = self.status > 0
        self._stays = bool(self._parser.should_keep_alive())  # the parser forgets it hereafter


class Pool:
    """Idle connections by address, the warmest first."""

    def __init__(self, connect_seconds: float) -> None:
        self._seconds = connect_seconds
        self._idle: dict[Address, list[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def take(self, url: str) -> Connection:
        """Return a connection to the base URL `url`.

        Raises:
            Unreachable: There is none to be had.
        """
        address = address_of(url)
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.fresh:
                return connection
            connection.close()
        return await self._connect(address)

    def give(self, connection: Connection) -> None:
        """Take a connection back; one whose answer isn't over is closed."""
        if not connection.reusable:
            connection.close()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.setdefault(connection.address, []).append(connection)

    def close(self) -> None:
        """Close all idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _connect(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        self._forget_stale()
        try:
            async with asyncio.timeout(self._seconds):
                _, connection = await loop.create_connection(
                    lambda: Connection(address),
                    address.host,
                    address.port,
                    ssl=self._context() if address.secure else None,
                )
        except (OSError, ssl.SSLError) as error:  # a timeout is an OSError too
            raise Unreachable(str(error) or "no connection in time") from error
        return connection

    def _forget_stale(self) -> None:
        for address, idle in list(self._idle.items()):
            for connection in idle:
                if not connection.fresh:
                    connection.close()
            kept = [connection for connection in idle if connection.fresh]
            self._idle[address] = kept
            if not kept:
                del self._idle[address]

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls
