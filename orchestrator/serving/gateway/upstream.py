"""Requests to replicas and to servers outside, by aiohttp's connections and parser.

An exchange is one request and its answer. Its connection serves another request only when the
answer was read to its end; whatever else ends the block closes it. So no byte of an answer can
reach another client. Bodies come as they are sent: nothing is unpacked, followed or remembered.
aiohttp's session would do that, and costs more than all else that is done for a request.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from socket import EAI_SYSTEM
from types import TracebackType
from typing import Self, TypeAlias

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDictProxy
from yarl import URL

from orchestrator.serving.gateway.outside_connections import Authorities, proxy_of, with_query
from orchestrator.serving.gateway.routes import Far
from orchestrator.serving.http.request_limits import GatewayLimits

Sent: TypeAlias = list[tuple[str, str]]
Later: TypeAlias = Callable[[], Awaitable[None]]  # what is still to be done, and waited for
Take: TypeAlias = Callable[[bytes], Later | None]

_IDLE_SECONDS = 2.0  # servers close after five; a request must not meet that
_BUFFER = 128 * 1024  # bytes of an answer that wait for their client, times two
_AUTOMATIC = ("accept", "accept-encoding", "user-agent")  # what a client did not say is not said
_OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, EAI_SYSTEM})
_FINAL = 200  # the first status that ends an exchange; those below come before another one


class Unreachable(Exception):  # noqa: N818 - what the replica is
    """There is no connection: nothing was asked."""


class Exhausted(Exception):  # noqa: N818 - what this process is
    """This process can open no connection: no replica is to blame."""


class Broken(Exception):  # noqa: N818 - what the connection is
    """The connection ended before the answer did."""


class _Stale(Broken):
    """The connection had been kept from an earlier request, and nothing came."""


class Exchange:
    """One request and its answer: a block that has `status` and `headers`, and reads the body.

    Raises:
        Unreachable: There is no connection to be had.
        Exhausted: This process has no more of them.
        Broken: The connection ended before the answer's head.
    """

    status: int
    headers: CIMultiDictProxy[str]

    def __init__(
        self, connector: _Connector, request: aiohttp.ClientRequest, headers: Sent, body: bytes
    ) -> None:
        self._connector = connector
        self._request, self._headers, self._body = request, headers, body
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._finished = False
        self._reading = False
        self._connection: Connection
        self._content: aiohttp.StreamReader

    async def __aenter__(self) -> Self:
        """Send the request, and wait for the head of the answer.

        A connection kept from before may have been closed by the server at this moment: then the
        request is sent once more, on a new one. Where there is none, the server died of it.
        """
        try:
            await self._ask()
        except _Stale as stale:
            try:
                await self._ask(anew=True)
            except Unreachable as gone:
                raise Broken(f"{stale}, and now: {gone}") from gone
        return self

    async def _ask(self, *, anew: bool = False) -> None:
        try:
            protocol, reused = await self._connect(anew=anew)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise (Exhausted if _is_own(error) else Unreachable)(_line_of(error)) from error
        answered = False
        try:
            protocol.write([_head(self._request, self._headers, self._body), self._body])
            status = 0
            while status < _FINAL:
                message, self._content = await protocol.read()
                status = message.code
            answered = True
        except (aiohttp.ClientError, OSError) as error:
            raise (_Stale if reused else Broken)(_line_of(error)) from error
        except HttpProcessingError as error:
            raise Broken(_line_of(error)) from error
        finally:
            if not answered:
                self._connection.close()
        self.status, self.headers = status, message.headers

    async def _connect(self, *, anew: bool) -> tuple[_Protocol, bool]:
        """Return a connection, and whether it has served before; it must not where `anew`.

        One on which something came that nobody had asked for serves no more: it would be taken
        for the answer to the next request.
        """
        while True:
            connection = await self._connector.connect(self._request, [], self._connector.timeout)
            protocol = connection.protocol
            assert isinstance(protocol, _Protocol), "the connector makes no others"  # noqa: S101
            reused, protocol.served = protocol.served, True
            if not (reused and (anew or protocol.should_close)):
                self._connection = connection
                return protocol, reused
            connection.close()

    async def read(self) -> bytes:
        """Return what has come of the body since; nothing at its end.

        Raises:
            Broken: The connection ended before.
        """
        try:
            part = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(_line_of(error)) from error
        self._finished = not part
        return part

    async def each(self, take: Take) -> None:
        """Give each part of the body to `take`, once what that has left of the last is done.

        Each token passes here, so `take` is called by what receives it, and this sleeps as long
        as nothing is to be waited for.

        Raises:
            Broken: The connection ended before.
        """
        protocol = self._connection.protocol
        assert isinstance(protocol, _Protocol), "read within the block"  # noqa: S101
        while not self._finished:
            sent: asyncio.Future[Later | None] = self._loop.create_future()
            protocol.hear = partial(self._hear, take, sent)
            try:
                protocol.hear()
                waits = await sent
            except (aiohttp.ClientError, OSError) as error:
                raise Broken(_line_of(error)) from error
            finally:
                protocol.hear = None
                if sent.done() and not sent.cancelled():
                    sent.exception()  # known, also where this was cancelled at the same moment
            self._finished = waits is None
            if waits is not None:
                await waits()

    def _hear(self, take: Take, sent: asyncio.Future[Later | None]) -> None:
        """Give what has come to `take`, until that has to be waited for, or all has come.

        Reading may resume a connection that was held back, which hears of more amid the reading:
        that comes next, and its end too.
        """
        if sent.done() or self._reading:
            return
        self._heard, self._reading = self._loop.time(), True
        try:
            while part := self._content.read_nowait():
                waits = take(part)
                if waits is not None:
                    sent.set_result(waits)
                    return
        except (aiohttp.ClientError, OSError) as error:
            sent.set_exception(error)
        except Exception as error:
            sent.set_exception(error)  # a mistake of ours is the request's too, which waits
            raise
        else:
            if self._content.is_eof():
                sent.set_result(None)
        finally:
            self._reading = False

    def watch(self, seconds: float) -> None:
        """Have reading raise `Broken` where nothing comes for `seconds`."""
        self._heard = self._loop.time()
        self._watch = self._loop.call_later(seconds, self._check, seconds)

    def _check(self, seconds: float) -> None:
        left = self._heard + seconds - self._loop.time()
        if left > 0:
            self._watch = self._loop.call_later(left, self._check, seconds)
        else:
            self._abort()

    def _abort(self) -> None:
        if self._connection.transport is not None:
            self._connection.transport.abort()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the connection up, unless all of the answer was read, and the request written."""
        if self._watch is not None:
            self._watch.cancel()
        transport = self._connection.transport
        if self._finished and transport is not None and not transport.get_write_buffer_size():
            self._connection.release()
        else:
            self._abort()
            self._connection.close()


class Upstream:
    """Connections to all replicas and servers, kept for a moment for the next request."""

    def __init__(self, limits: GatewayLimits) -> None:
        self._limits = limits
        self._connector: _Connector | None = None
        self._request = lru_cache(maxsize=4096)(_request)
        self._authorities = Authorities()

    def exchange(
        self, url: URL, headers: Sent, body: bytes, *, method: str = "POST", far: Far | None = None
    ) -> Exchange:
        """Return a block that asks `url`.

        Args:
            url: The whole address.
            headers: Sent as they are, and with them the host and the length.
            body: All of it; nothing where there is none.
            method: Of HTTP.
            far: How a server outside is asked: through the proxy of the environment
                (`HTTPS_PROXY`, `NO_PROXY`), with a certificate of its own authority.

        Raises:
            Unreachable: The authority's certificates can't be read.
        """
        if self._connector is None:  # made within the loop that it works in
            self._connector = _Connector(self._limits)
        proxy, tls = "", None
        if far is not None:
            proxy = proxy_of(url.scheme, url.host or "") or "" if far.proxy else ""
            tls = self._checked_by(far.ca_file) if far.ca_file else None
        request = self._request(method, url, proxy, tls)
        return Exchange(self._connector, request, headers, body)

    def _checked_by(self, file: str) -> ssl.SSLContext:
        try:
            return self._authorities.context(file)
        except OSError as error:  # ssl.SSLError is one
            raise Unreachable(f"the CA file {file!r} can't be read: {_line_of(error)}") from error

    async def close(self) -> None:
        """Close all connections."""
        connector, self._connector = self._connector, None
        self._request.cache_clear()
        if connector is not None:
            await connector.close()


class _Protocol(ResponseHandler):
    """aiohttp's, with something that hears at once of what has come, or that nothing will.

    It resumes only what is paused: else it parses nothing, for each token.
    """

    hear: Callable[[], None] | None = None
    served = False  # whether a request was sent before
    limits: GatewayLimits

    def write(self, parts: list[bytes]) -> None:
        """Send a request, and be ready for its answer."""
        self.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_BUFFER,
            max_line_size=self.limits.header_bytes,
            max_field_size=self.limits.header_bytes,
        )
        if self.transport is not None:  # else reading says why
            self.transport.writelines(parts)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.hear is not None:
            self.hear()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.hear is not None:
            self.hear()

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - its base's
        if self._reading_paused:
            super().resume_reading(resume_parser)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, with protocols of our own.

    It trusts the certificates that OpenSSL does: `SSL_CERT_FILE` names others.
    """

    def __init__(self, limits: GatewayLimits) -> None:
        super().__init__(limit=0, limit_per_host=0, keepalive_timeout=_IDLE_SECONDS)
        self.timeout = aiohttp.ClientTimeout(total=None, connect=limits.connect_seconds)
        kind = type("Protocol", (_Protocol,), {"limits": limits})
        self._factory = partial(kind, loop=self._loop)


@lru_cache(maxsize=4096)
def address_of(base: str, path: str, far: Far | None = None) -> URL:
    """Return the address of `path` below the base URL `base`, with the query of a server outside.

    Raises:
        Unreachable: `base` is no address.
    """
    if far is not None and far.query:
        path = with_query(path, far.query)
    try:
        url = URL(f"{base.rstrip('/')}{path}", encoded=True)
        if url.host and url.port and url.scheme in {"http", "https"}:
            return url
    except ValueError as error:
        raise Unreachable(f"{base!r} is no address: {error}") from error
    raise Unreachable(f"{base!r} is no address: give 'http://HOST:PORT' or 'https://HOST'")


def _request(
    method: str, url: URL, proxy: str, tls: ssl.SSLContext | None
) -> aiohttp.ClientRequest:
    """Return what aiohttp finds a connection by: it has the headers that the way there needs."""
    request = aiohttp.ClientRequest(
        "GET",  # without a length
        url,
        skip_auto_headers=_AUTOMATIC,
        proxy=URL(proxy) if proxy else None,
        ssl=True if tls is None else tls,
        loop=asyncio.get_running_loop(),
    )
    request.method = method
    return request


def _head(request: aiohttp.ClientRequest, headers: Sent, body: bytes) -> bytes:
    """Return the head of a request.

    Raises:
        Broken: A header has more than one line.
    """
    absolute = request.proxy is not None and not request.is_ssl()
    target = str(request.url) if absolute else request.url.raw_path_qs
    lines = [f"{request.method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    lines += [f"{name}: {value}" for name, value in headers if name not in request.headers]
    if body or request.method != "GET":
        lines.append(f"content-length: {len(body)}")
    text = "\r\n".join([*lines, "", ""])
    if text.count("\n") + text.count("\r") != 2 * len(lines) + 2:
        raise Broken("a header has more than one line")
    return text.encode("latin-1")


def _is_own(error: BaseException | None) -> bool:
    """Whether this process has run out of what a connection needs."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OWN_TROUBLE:
            return True
        error = error.__cause__
    return False


def _line_of(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no connection in time"
    return " ".join(str(error).split()) or type(error).__name__
