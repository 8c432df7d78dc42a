"""The answer to one client: begun or not decides how an error can still be told."""

from __future__ import annotations

from orchestrator.serving.asgi import Headers, Send, add, answer, begin, end
from orchestrator.serving.encoding import encode
from orchestrator.serving.errors import ApiError


class Response:
    """Answers once: whole, or as a stream of events."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self._open = False
        self._last = b""

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send all of it."""
        self.begun = True
        await answer(self._send, status, body, headers)

    async def add(self, headers: Headers, events: bytes) -> None:
        """Send whole events of a stream."""
        if not self.begun:
            self.begun = self._open = True
            await begin(self._send, 200, headers)
        await add(self._send, events)

    def hold(self, events: bytes) -> None:
        """Keep the last events of a stream, to go with its end."""
        self._last = events

    async def end(self) -> None:
        """End a stream, if there is one."""
        if self._open:
            self._open = False
            await end(self._send, self._last)

    async def fail(self, error: ApiError) -> None:
        """Send an error: as the answer, or as the last event of a stream."""
        if self._open:
            self._open = False
            await end(self._send, error.event())
        elif not self.begun:
            await self.whole(error.status, error.headers(), encode(error.body()))


class DiscardedResponse(Response):
    """The response to a copy of a request: nobody hears it."""

    def __init__(self) -> None:
        super().__init__(_drop)


async def _drop(_: object) -> None:
    """Send nothing."""
