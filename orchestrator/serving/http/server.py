"""The server under the gateway: uvicorn, with an end to its patience.

uvicorn waits for headers and bodies without limit. Here each connection has a time by which its
client must have done its part, and what is late, too long or malformed HTTP is answered in
OpenAI's shape and closed. On SIGTERM no new connection is taken, and answers in progress go on for
a while.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.asgi import Handler, Scope, offer_write
from orchestrator.serving.http.encoding import encode
from orchestrator.serving.http.request_limits import GatewayLimits

_TICKS = 5  # of a tenth of a second, between two looks at the connections
_TICKS_OF_FILES = 50  # between two looks at the certificate
_SPARE_FILES = 256  # for the log, the database and all else that is no client
_FILES_A_CONNECTION = 2  # the client's, and that to a replica

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where and how a server listens; `certificate` and `key` are files in PEM.

    `metrics` is what Prometheus asks at `metrics_at`, a host and port of its own. Where the port
    is `shared`, other processes of the same user listen there too, and the system deals
    connections out.
    """

    host: str
    port: int
    certificate: str = ""
    key: str = ""
    metrics: Handler | None = None
    metrics_at: tuple[str, int] | None = None
    shared: bool = False


def serve(app: Handler, listening: Listening, limits: GatewayLimits | None = None) -> None:
    """Serve `app` until a signal ends the process.

    Raises:
        OSError: An address can't be had, or a file of the certificate not be read.
    """
    limits = within_files(limits or GatewayLimits(), raise_files())
    server = Server(app, limits, listening)
    listener = socket.create_server(
        (listening.host, listening.port),
        family=_family(listening.host),
        backlog=2048,
        reuse_port=listening.shared,
    )
    gc.collect()
    gc.freeze()  # what is there by now stays: the collector needn't look at it again
    server.run([listener])


def raise_files() -> int:
    """Raise the limit of open files as far as the system lets this process; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            logger.warning("the limit of open files stays %s: %s", soft, error)
        else:
            return hard
    return soft


def within_files(limits: GatewayLimits, files: int) -> GatewayLimits:
    """Return the limits with no more connections than `files` open files are enough for."""
    if files == resource.RLIM_INFINITY:
        return limits
    most = max((files - _SPARE_FILES) // _FILES_A_CONNECTION, 1)
    if most >= limits.connections:
        return limits
    logger.warning(
        "%s connections at once, not %s: a process may open %s files here; raise `ulimit -Hn`",
        most,
        limits.connections,
        files,
    )
    return replace(limits, connections=most)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class Server(uvicorn.Server):
    """uvicorn, looking after its connections and its certificate."""

    def __init__(
        self, app: Handler, limits: GatewayLimits, listening: Listening | None = None
    ) -> None:
        kind = type("Patience", (_Patience,), {"limits": limits})
        self._listening = listening or Listening(host="", port=0)
        self._kind = kind
        self._files: tuple[float, ...] = self._changed()
        super().__init__(
            uvicorn.Config(
                app,
                http=kind,
                loop="uvloop",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=limits.idle_seconds,  # type: ignore[arg-type]
                timeout_graceful_shutdown=limits.drain_seconds,  # type: ignore[arg-type]
                ssl_certfile=self._listening.certificate or None,
                ssl_keyfile=self._listening.key or None,
            )
        )
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # no line for each bad request

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, for Prometheus too."""
        await super().startup(sockets)
        if (
            self._listening.metrics is None
            or self._listening.metrics_at is None
            or self.should_exit
        ):
            return
        host, port = self._listening.metrics_at
        config = uvicorn.Config(
            self._listening.metrics, http=self._kind, ws="none", log_config=None
        )
        config.load()
        protocol = partial(self._kind, config=config, server_state=self.server_state, app_state={})
        loop = asyncio.get_running_loop()
        self.servers.append(await loop.create_server(protocol, host, port))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End by a signal as by a wish: it isn't raised again once all is done."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()

    async def on_tick(self, counter: int) -> bool:
        """Close what is late, and read a renewed certificate."""
        if counter % _TICKS_OF_FILES == 0:
            self._renew()
        if counter % _TICKS == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, _Patience):
                    connection.close_if_late(now)
        return await super().on_tick(counter)

    def _renew(self) -> None:
        """Take a certificate that was renewed, for connections from now on."""
        changed = self._changed()
        if changed == self._files or self.config.ssl is None:
            return
        try:
            self.config.ssl.load_cert_chain(self._listening.certificate, self._listening.key)
        except OSError as error:  # ssl.SSLError is one; the files may be half written
            logger.warning("the certificate before stays: %s", error)
        else:
            self._files = changed

    def _changed(self) -> tuple[float, ...]:
        """Return when the files of the certificate were written."""
        paths = [Path(name) for name in (self._listening.certificate, self._listening.key) if name]
        return tuple(path.stat().st_mtime for path in paths if path.exists())


class _Patience(HttpToolsProtocol):
    """A connection whose client must do its part in time."""

    limits: ClassVar[GatewayLimits]
    _due: float | None = None  # when the client must have sent the headers, or the body
    _stuck: float | None = None  # since when the client has not read what it asked for
    _in_head = True
    _received = 0  # bytes of a head that isn't whole
    _completed = False  # whether what has come just now ended a request

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - as its base has it
        super().connection_made(_Joining(transport))  # type: ignore[arg-type]
        self._due = self.loop.time() + self.limits.header_seconds
        if len(self.connections) > self.limits.connections:
            self._refuse(ApiError(503, "too many connections", code="busy", retry_after=1))

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._due is None and (self.cycle is None or self.cycle.response_complete):
            self._due = self.loop.time() + self.limits.header_seconds
        self._completed = False
        if self._due is not None and not self._in_head:
            self._progress(len(data))
        super().data_received(data)
        if self._in_head and not self._completed and not self.transport.is_closing():
            self._received += len(data)
            if self._received > self.limits.header_bytes:
                what = f"the headers are longer than {self.limits.header_bytes} bytes"
                self._refuse(ApiError(431, what, code="headers_too_large"))

    def _progress(self, size: int) -> None:
        """Have patience for as long as `size` bytes of a body may take, and no stock of it."""
        now = self.loop.time()
        earned = max(self._due or now, now) + size / self.limits.body_rate
        self._due = min(earned, now + self.limits.body_seconds)

    def eof_received(self) -> None:
        if self._due is not None and self._received and not self._answering:
            what = "the connection was half-closed before the request was whole"
            self._refuse(ApiError(400, what, code="request_incomplete"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._received = True, 1
        self._due = self.loop.time() + self.limits.header_seconds

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        self._due = self.loop.time() + self.limits.body_seconds
        if self.cycle is not None and self.scope["http_version"] == "1.0":  # it knows no chunks
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UntilClosed()
        elif self.scope["method"] == "POST":
            offer_write(cast("Scope", self.scope), partial(_write, self.flow, self.transport))

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._due = None
        self._in_head = self._completed = True
        self._received = 0

    def on_response_complete(self) -> None:
        self.transport.flush()  # type: ignore[attr-defined]  # the answer to HEAD has no body
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stuck = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stuck = None

    def send_400_response(self, msg: str) -> None:
        self._refuse(ApiError(400, msg.rstrip("."), code="invalid_http"))

    def close_if_late(self, now: float) -> None:
        """Close the connection if its client is late."""
        if self._stuck is not None and now - self._stuck > self.limits.stuck_seconds:
            self.transport.abort()
        elif self._due is not None and now >= self._due and not self.flow.read_paused:
            part = "headers" if self._in_head else "body"
            what = f"the {part} of the request did not arrive in time"
            self._refuse(ApiError(408, what, code="request_timeout"))

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and self.cycle.response_started

    def _refuse(self, error: ApiError) -> None:
        """Answer by `error`, unless an answer has begun, and close."""
        self._due = None
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_raw(error))
        self.transport.close()


def _write(flow: FlowControl, transport: asyncio.Transport, part: bytes) -> bool:
    """Write a part of a begun answer without a length, unless its client has to be waited for."""
    if flow.write_paused or transport.is_closing():
        return False
    transport.write(b"%x\r\n%b\r\n" % (len(part), part))
    return True


class _UntilClosed(int):
    """The length of a body that ends with its connection: uvicorn finds it right at all times."""

    def __lt__(self, _: object) -> bool:
        return False

    def __ne__(self, _: object) -> bool:
        return False

    def __eq__(self, _: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0

    def __sub__(self, _: object) -> _UntilClosed:
        return self


class _Joining:
    """A transport that sends the head of an answer with what follows: one system call less.

    The applications here never begin an answer without its first bytes; what has none is flushed.
    """

    def __init__(self, transport: Any) -> None:  # noqa: ANN401 - of any loop
        self._transport = transport
        self._head = b""
        self.write = self._join  # what follows a head goes to the transport at once
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading
        self.abort = transport.abort

    def _join(self, data: bytes) -> None:
        """Send `data`, unless it is the head of a final answer."""
        if self._head:
            data, self._head = self._head + data, b""
            self.write = self._transport.write
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that nothing follows; the next answer begins with its own."""
        if self._head:
            self.write(b"")
        self.write = self._join

    def close(self) -> None:
        """Send what is left, and close."""
        self.flush()
        self._transport.close()


def _raw(error: ApiError) -> bytes:
    body = encode(error.body())
    named = [(b"content-type", b"application/json"), (b"connection", b"close"), *error.headers()]
    head = b"".join(name + b": " + value + b"\r\n" for name, value in named)
    return STATUS_LINE[error.status] + head + b"content-length: %d\r\n\r\n" % len(body) + body
