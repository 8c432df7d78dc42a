"""Requests to replicas and to servers outside: aiohttp's client, as the gateway needs it.

An exchange is one request and its answer. Its connection serves another request only when the
answer was read to its end; whatever else ends the block closes it. So no byte of an answer can
reach another client. Bodies come as they are sent: nothing is unpacked, followed or remembered.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import lru_cache, partial
from io import BytesIO
from socket import EAI_SYSTEM
from types import TracebackType
from typing import Any, Self, TypeAlias
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from multidict import CIMultiDictProxy
from yarl import URL

from orchestrator.serving.limits import Limits
from orchestrator.serving.outside import Authorities, proxy_of, with_query
from orchestrator.serving.routes import Far

Sent: TypeAlias = list[tuple[str, str]]

_IDLE_SECONDS = 2.0  # servers close after five; a request must not meet that
_BUFFER = 128 * 1024  # bytes of an answer that wait for their client, times two
_LONG = 1 << 20
_AUTOMATIC = ("accept", "accept-encoding", "user-agent")  # what a client did not say is not said
_OWN_TROUBLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, EAI_SYSTEM})
_NOTHING_ASKED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.ServerFingerprintMismatch,
    aiohttp.ClientHttpProxyError,
    aiohttp.InvalidURL,
)

# Of the request that this task sends: whether its connection has served one before, and whether
# it must not have.
_reused: ContextVar[bool] = ContextVar("reused", default=False)
_anew: ContextVar[bool] = ContextVar("anew", default=False)


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
        self, session: aiohttp.ClientSession, method: str, url: URL, headers: Sent, body: bytes
    ) -> None:
        self._session = session
        self._method, self._url = method, url
        self._headers, self._body = headers, body
        self.proxy: str | None = None
        self.tls: ssl.SSLContext | bool = True
        self._loop = asyncio.get_running_loop()
        self._heard = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._answer: aiohttp.ClientResponse | None = None
        self._finished = False

    async def __aenter__(self) -> Self:
        """Send the request, and wait for the head of the answer.

        A connection kept from before may have been closed by the server at this moment: then the
        request is sent once more, on a new one. Where there is none, the server died of it.
        """
        try:
            self._answer = await self._ask()
        except _Stale as stale:
            reset = _anew.set(True)
            try:
                self._answer = await self._ask()
            except Unreachable as gone:
                raise Broken(f"{stale}, and now: {gone}") from gone
            finally:
                _anew.reset(reset)
        self.status, self.headers = self._answer.status, self._answer.headers
        return self

    async def _ask(self) -> aiohttp.ClientResponse:
        _reused.set(False)
        try:
            return await self._session.request(
                self._method,
                self._url,
                headers=self._headers,
                data=self._data(),
                allow_redirects=False,
                proxy=self.proxy,
                ssl=self.tls,
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _translated(error) from error

    def _data(self) -> bytes | BytesIO | None:
        """Return the body; a long one in a form that is sent part by part."""
        return BytesIO(self._body) if len(self._body) > _LONG else self._body or None

    async def read(self) -> bytes:
        """Return what has come of the body since; nothing at its end.

        Raises:
            Broken: The connection ended before.
        """
        assert self._answer is not None, "read within the block"  # noqa: S101
        try:
            part = await self._answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(_told(error)) from error
        self._finished = not part
        return part

    async def each(self, take: Callable[[bytes], Awaitable[None] | None]) -> None:
        """Give each part of the body to `take`, once what that returned for the last is done.

        Each token passes here. A task of its own has fewer frames to enter and leave for each
        than that of the request.

        Raises:
            Broken: The connection ended before.
        """
        work = self._loop.create_task(self._each(take))
        try:
            await work
        finally:
            if work.done() and not work.cancelled():
                work.exception()  # it is known, also where this was cancelled at the same moment

    async def _each(self, take: Callable[[bytes], Awaitable[None] | None]) -> None:
        assert self._answer is not None, "read within the block"  # noqa: S101
        read, now = self._answer.content.readany, self._loop.time
        while True:
            try:
                part = await read()
            except (aiohttp.ClientError, OSError) as error:
                raise Broken(_told(error)) from error
            self._heard = now()
            if not part:
                self._finished = True
                return
            sent = take(part)
            if sent is not None:
                await sent

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
        connection = None if self._answer is None else self._answer.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the connection up, unless all of the answer was read."""
        if self._watch is not None:
            self._watch.cancel()
        if self._answer is not None and not self._finished:
            self._abort()
            self._answer.close()


class Upstream:
    """Connections to all replicas and servers, kept for a moment for the next request."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None
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
        if self._session is None:  # made within the loop that it works in
            self._session = self._open()
        exchange = Exchange(self._session, method, url, headers, body)
        if far is not None:
            exchange.proxy = proxy_of(url.scheme, url.host or "") if far.proxy else None
            exchange.tls = self._checked_by(far.ca_file) if far.ca_file else True
        return exchange

    def _checked_by(self, file: str) -> ssl.SSLContext:
        try:
            return self._authorities.context(file)
        except OSError as error:  # ssl.SSLError is one
            raise Unreachable(f"the CA file {file!r} can't be read: {_told(error)}") from error

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Return a session that adds nothing of its own.

        It trusts the certificates that OpenSSL does: `SSL_CERT_FILE` names others.
        """
        connector = _Connector(limit=0, limit_per_host=0, keepalive_timeout=_IDLE_SECONDS)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=_AUTOMATIC,
            read_bufsize=_BUFFER,
            max_line_size=self._limits.header_bytes,
            max_field_size=self._limits.header_bytes,
            timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_seconds),
        )


class _Protocol(ResponseHandler):
    """aiohttp's, which resumes only what is paused: else it parses nothing, for each token."""

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - its base's
        if self._reading_paused:
            super().resume_reading(resume_parser)


class _Connector(aiohttp.TCPConnector):
    """aiohttp's pool, which tells whether a connection has served before.

    One on which something came that nobody had asked for serves no more: it would be taken for
    the answer to the next request.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of its base
        super().__init__(**options)
        self._factory = partial(_Protocol, loop=self._loop)  # type: ignore[assignment]  # a subclass
        self._served: WeakSet[Any] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - as its base has it
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            reused = protocol in self._served
            if protocol is None or not (reused and (_anew.get() or protocol.should_close)):
                break
            connection.close()
        _reused.set(reused)
        self._served.add(protocol)
        return connection


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


def _translated(error: Exception) -> Exception:
    """Return what an error before the head of an answer means here."""
    if _is_own(error):
        return Exhausted(_told(error))
    if isinstance(error, _NOTHING_ASKED) or not isinstance(error, aiohttp.ClientError | OSError):
        return Unreachable(_told(error))
    answered = isinstance(error, aiohttp.ClientResponseError)  # by something, if no answer
    return (_Stale if _reused.get() and not answered else Broken)(_told(error))


def _is_own(error: BaseException | None) -> bool:
    """Whether this process has run out of what a connection needs."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _OWN_TROUBLE:
            return True
        error = error.__cause__
    return False


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
