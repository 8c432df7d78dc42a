"""A request on its way: to a replica, back to the client, and elsewhere when that fails.

As long as the client has got nothing, a replica that fails is replaced: once where it may have
begun to work, and for a few seconds where it could not even be reached. After that a failure is
told in the stream. Bytes of a stream are handed on as they come, in whole events, unread.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from time import perf_counter

from pydantic_core import from_json
from yarl import URL

from orchestrator.serving.asgi import Headers
from orchestrator.serving.encoding import encode
from orchestrator.serving.errors import ApiError
from orchestrator.serving.fair_queue import Share
from orchestrator.serving.limits import Limits
from orchestrator.serving.metrics import Metrics, Tally
from orchestrator.serving.response import DiscardedResponse, Response
from orchestrator.serving.routes import RevisionRoute
from orchestrator.serving.slots import Slot, Slots
from orchestrator.serving.upstream import (
    Broken,
    Exchange,
    Exhausted,
    Sent,
    Unreachable,
    Upstream,
    address_of,
)

_USED = re.compile(rb'"(prompt|completion)_tokens"\s*:\s*(\d+)')
_TAIL = 1024  # bytes that hold the usage of an answer, in those of ours
_DONE = b"data: [DONE]\n\n"
_STREAM = "text/event-stream"
# What a replica never answers to the gateway's own request: it is another one, or going.
_ASTRAY = frozenset({401, 403, 404, 405, 408})
_FAILED = 500


_ANYBODY = Share()


@dataclass(frozen=True, slots=True)
class InboundRequest:
    """A checked request. `client` keeps it on a revision and replica; `share` decides its turn."""

    endpoint: str
    path: str
    body: bytes
    client: str = ""
    share: Share = _ANYBODY


class _Failure(Exception):  # noqa: N818 - a value that travels up
    """A replica gave no answer. `answer` is the error that it did give, if any."""

    def __init__(self, why: str, kind: str, answer: tuple[int, Headers, bytes] | None) -> None:
        super().__init__(why)
        self.kind = kind
        self.answer = answer


class Forwarder:
    """Sends requests on, and their answers back."""

    def __init__(self, slots: Slots, upstream: Upstream, metrics: Metrics, limits: Limits) -> None:
        self._slots = slots
        self._upstream = upstream
        self._metrics = metrics
        self._limits = limits
        self._copies: set[asyncio.Task[None]] = set()

    async def forward(self, request: InboundRequest, response: Response, tally: Tally) -> None:
        """Answer `request`; a stream is left to be ended.

        Raises:
            ApiError: There is no room, or no replica that answers.
        """
        self._mirror(request)
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.gone_seconds
        avoid, reached = "", 0
        while True:
            slot = await self._slots.take(request.endpoint, request.client, avoid, request.share)
            try:
                await self._attempt(request, slot, response, tally)
            except _Failure as failure:
                reached += failure.kind != "unreachable"
                late = not reached and loop.time() > until
                if response.begun or reached > 1 or late:
                    await self._give_up(failure, response, tally)
                    return
                avoid = slot.url
                self._metrics.retried(request.endpoint)
            else:
                return

    async def close(self) -> None:
        """Stop the copies and close all connections."""
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)
        await self._upstream.close()

    async def _give_up(self, failure: _Failure, response: Response, tally: Tally) -> None:
        if failure.answer is not None and not response.begun:
            status, headers, body = failure.answer
            tally.status = status
            await response.whole(status, headers, body)
            return
        there = failure.kind != "unreachable"
        raise ApiError(
            502 if there else 503,
            f"the model's replica failed: {failure}",
            code="replica_failed" if there else "no_replica",
            retry_after=1,
        )

    async def _attempt(
        self, request: InboundRequest, slot: Slot, response: Response, tally: Tally
    ) -> None:
        """Ask the replica of `slot` once, and count what comes of it."""
        tally.revision = slot.revision
        try:
            await self._exchange(request, slot, response, tally)
        except Exhausted as error:
            what = f"the gateway can open no more connections: {error}"
            raise ApiError(503, what, code="busy", retry_after=1) from error
        except (Unreachable, Broken, _Failure) as error:
            failure = error if isinstance(error, _Failure) else _failure(error, response)
            tally.status = 0
            self._metrics.failed(request.endpoint, slot.revision, failure.kind)
            if failure.kind != "failed":
                self._slots.eject(slot.url)
            raise failure from error
        except asyncio.CancelledError:
            tally.status = tally.status or 499
            raise
        finally:
            self._slots.release(slot)
            tally.last = perf_counter()
            if tally.status or tally.first:
                self._metrics.answered(request.endpoint, slot.revision, tally)
        self._slots.readmit(slot.url)

    async def _exchange(
        self, request: InboundRequest, slot: Slot, response: Response, tally: Tally
    ) -> None:
        url, headers, body = _outbound(request, slot)
        async with self._upstream.exchange(
            url, headers, body, outside=slot.revision.outside
        ) as exchange:
            status = exchange.status
            if exchange.headers.get("content-type", "").startswith(_STREAM):
                tally.status = status
                await self._stream(exchange, slot.revision, response, tally)
                return
            answer = await self._whole(exchange)
        headed = _headers(exchange, slot.revision)
        if status >= _FAILED or status in _ASTRAY:
            raise _refusal(status, headed, answer)
        tally.status = status
        _read_usage(answer, tally)
        await response.whole(status, headed, answer)

    async def _whole(self, exchange: Exchange) -> bytes:
        """Return all of an answer; its parts are joined once, however many they are."""
        parts, size = [], 0
        while part := await exchange.read():
            parts.append(part)
            size += len(part)
            if size > self._limits.answer_bytes:
                raise ApiError(502, "the model's answer is too long", code="answer_too_long")
        return b"".join(parts)

    async def _stream(
        self, exchange: Exchange, revision: RevisionRoute, response: Response, tally: Tally
    ) -> None:
        headers = [*_headers(exchange, revision), (b"cache-control", b"no-store")]
        rest = events = b""
        while part := await exchange.read():
            events, rest = _split(rest + part if rest else part)
            if not events:
                continue
            if not tally.first:
                tally.first = perf_counter()
            tally.completion_tokens += events.count(b"\n\n")
            if response.begun and events.endswith(_DONE):
                response.hold(events)
            else:
                await response.add(headers, events)
        if not events.rstrip().endswith(_DONE.rstrip()):
            raise Broken("its stream ended early")
        tally.completion_tokens -= 1
        _read_usage(events, tally)

    def _mirror(self, request: InboundRequest) -> None:
        shadow = self._slots.route(request.endpoint).shadow
        if not shadow:
            return
        slot = self._slots.take_at(request.endpoint, shadow)
        if slot is None:
            self._metrics.unmirrored(request.endpoint)
            return
        task = asyncio.get_running_loop().create_task(self._copy(request, slot))
        self._copies.add(task)
        task.add_done_callback(self._copies.discard)

    async def _copy(self, request: InboundRequest, slot: Slot) -> None:
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                await self._attempt(request, slot, DiscardedResponse(), Tally(perf_counter()))
        except (_Failure, ApiError, TimeoutError):
            return  # counted already; a copy is not asked again


def _failure(error: Unreachable | Broken, response: Response) -> _Failure:
    if isinstance(error, Unreachable):
        return _Failure(str(error), "unreachable", None)
    return _Failure(str(error), "broken" if response.begun else "lost", None)


def _refusal(status: int, headers: Headers, body: bytes) -> _Failure:
    if status in _ASTRAY:
        return _Failure(f"it answers {status}", "astray", None)
    own = (status, headers, body) if body.startswith(b'{"error"') else None
    kind = "failed" if own and status == _FAILED else "going"
    return _Failure(f"it answers {status}", kind, own)


def _outbound(request: InboundRequest, slot: Slot) -> tuple[URL, Sent, bytes]:
    """Return where to send a request, with which headers, and its body."""
    revision, body = slot.revision, request.body
    if revision.model and revision.model != request.endpoint:
        body = _renamed(body, revision.model)
    headers = [("content-type", "application/json")]
    if revision.token:
        headers.append(("authorization", f"Bearer {revision.token}"))
    return address_of(slot.url, request.path), headers, body


def _renamed(body: bytes, model: str) -> bytes:
    """Return `body` with another model in it, where it has one."""
    request = from_json(body)
    named = isinstance(request, dict) and "model" in request
    return encode({**request, "model": model}) if named else body


def _headers(exchange: Exchange, revision: RevisionRoute) -> Headers:
    kind = exchange.headers.get("content-type", "application/json").encode()
    headers = [(b"content-type", kind), (b"x-revision", revision.name.encode())]
    wait = exchange.headers.get("retry-after")
    return headers if wait is None else [*headers, (b"retry-after", wait.encode())]


def _split(part: bytes) -> tuple[bytes, bytes]:
    """Return the whole events of `part`, and the beginning of one that isn't."""
    if part.endswith((b"\n\n", b"\r\n\r\n")):
        return part, b""
    ends = [(part.rfind(mark), len(mark)) for mark in (b"\n\n", b"\r\n\r\n")]
    at = max((start + size for start, size in ends if start >= 0), default=0)
    return part[:at], part[at:]


def _read_usage(text: bytes, tally: Tally) -> None:
    found = _USED.findall(text[-_TAIL:]) or _USED.findall(text)
    for kind, count in found[-2:]:
        if kind == b"prompt":
            tally.prompt_tokens = int(count)
        else:
            tally.completion_tokens = int(count)
