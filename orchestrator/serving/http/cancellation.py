"""Work that ends early: because its client leaves, or because it takes too long.

Most answers take milliseconds, so looking out for the client begins a moment later: a short
answer does not pay for it.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from orchestrator.serving.http.api_errors import ApiError, ClientLeft
from orchestrator.serving.http.asgi import Receive

_MOMENT = 0.02


class CancelScope:
    """A block that is cancelled when the client leaves, or after `seconds`.

    Raises:
        ClientLeft: The client left.
        ApiError: The time is over.
    """

    def __init__(self, receive: Receive, seconds: float) -> None:
        self._receive = receive
        self._seconds = seconds
        self._why: Exception | None = None
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._timer = loop.call_later(min(_MOMENT, self._seconds), self._watch, loop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        """Stop looking; say why the block was cancelled, if it was by this."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
        why, self._why = self._why, None
        if why is None or self._task is None:
            return
        self._task.uncancel()
        if kind is asyncio.CancelledError:
            raise why from error

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watching = loop.create_task(self._leaving())
        late = ApiError(504, f"the answer took over {self._seconds:g} seconds", code="timeout")
        self._timer = loop.call_later(self._seconds - _MOMENT, self._stop, late)

    async def _leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._stop(ClientLeft())

    def _stop(self, why: Exception) -> None:
        if self._task is not None and self._why is None:
            self._why = why
            self._task.cancel()
