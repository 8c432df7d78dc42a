"""The answer to one client: begun or not decides how an error can still be told.

A client that waits for a stream gets blank lines now and then until the stream begins, so that
nobody on the way takes the connection for dead. With the first ones the status is sent: an error
that follows is an event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.asgi import EVENTS, Headers, Send, Write, add, answer, begin, end
from orchestrator.serving.http.encoding import encode

_UNCACHED = (b"cache-control", b"no-store")
_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
# No comment: clients that trim what they receive would join it to the event that follows.
_WAITING = b"\n\n"
ANTHROPIC = "/v1/messages"


class Response:
    """Answers once: whole, or as a stream of events.

    Attributes:
        answered: Whether the client has got something of a replica's answer.
        headers: Sent with every answer.
        path: What was asked: Anthropic's clients read errors of another shape.
    """

    def __init__(self, send: Send, write: Write | None = None) -> None:
        self._send = send
        self._write = write
        self.answered = False
        self.headers: Headers = []
        self.path = ""
        self._begun = self._open = False
        self._sent = _ENDS[0]  # last, of a stream
        self._last = b""
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    def keep_alive(self, seconds: float) -> None:
        """Send blank lines every `seconds`, until there is something to send."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self._beats, seconds)

    def silence(self) -> None:
        """Begin no more of them."""
        if self._timer is not None:
            self._timer.cancel()

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send all of it; as an event where a stream has begun."""
        await self._silence()
        self.answered = True
        if self._open:
            self._open = False
            await end(self._send, b"data: " + b" ".join(body.splitlines()) + b"\n\n")
        elif not self._begun:
            self._begun = True
            await answer(self._send, status, body, [*headers, *self.headers])

    def add(self, headers: Headers, events: bytes) -> Callable[[], Awaitable[None]] | None:
        """Send events of a stream; return what sends them, where that may have to wait."""
        self._sent = events
        if self.answered and self._timer is None:
            written = self._write is not None and self._write(events)
            return None if written else partial(add, self._send, events)
        return partial(self._first, headers, events)

    async def _first(self, headers: Headers, events: bytes) -> None:
        await self._silence()
        self.answered = True
        if not self._begun:
            self._begun = self._open = True
            await begin(self._send, 200, [*headers, _UNCACHED, *self.headers])
        await add(self._send, events)

    def hold(self, events: bytes) -> None:
        """Keep the last events of a stream, to go with its end."""
        self._last = events

    async def end(self) -> None:
        """End a stream, if there is one."""
        await self._silence()
        if self._open:
            self._open = False
            await end(self._send, self._last)

    async def fail(self, error: ApiError, event: bytes = b"") -> None:
        """Send an error: as the answer, or as the last event of a stream, which `event` may be."""
        await self._silence()
        if self._open:
            self._open = False
            torn = b"" if self._sent.endswith(_ENDS) else b"\n\n"
            await end(self._send, torn + (event or b"data: " + self._body(error) + b"\n\n"))
        elif not self._begun:
            await self.whole(error.status, error.headers(), self._body(error))

    def _body(self, error: ApiError) -> bytes:
        body = error.body()
        return encode({"type": "error", **body} if self.path.startswith(ANTHROPIC) else body)

    def _beats(self, seconds: float) -> None:
        self.keep_alive(seconds)
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        if not self._begun:
            self._begun = self._open = True
            await begin(self._send, 200, [EVENTS, _UNCACHED, *self.headers])
        await add(self._send, _WAITING)

    async def _silence(self) -> None:
        """Send no more blank lines; those that are being sent are sent first."""
        if self._timer is None:
            return
        self._timer.cancel()
        self._timer = None
        if self._beat is not None and not self._beat.done():
            await asyncio.wait([self._beat])


class DiscardedResponse(Response):
    """The answer to a copy of a request: nobody hears it."""

    def __init__(self) -> None:
        super().__init__(_drop)


async def _drop(_: object) -> None:
    """Send nothing."""
