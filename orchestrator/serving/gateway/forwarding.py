"""A request on its way: to a replica, back to the client, and elsewhere when that fails.

As long as the client has got nothing of an answer, a replica that fails is replaced: once where it
may have begun to work, and for a few seconds where it could not even be reached. After that a
failure is told in the stream. Bytes of a stream are handed on as they come, in whole events.
"""

from __future__ import annotations

import asyncio
import re
from functools import partial
from time import perf_counter

from orchestrator.serving.gateway.breaker import Breaker
from orchestrator.serving.gateway.budget import Budget
from orchestrator.serving.gateway.event_stream import EventStream, is_aborted, reasons_in
from orchestrator.serving.gateway.gateway_metrics import Metrics, Tally
from orchestrator.serving.gateway.inbound import InboundRequest
from orchestrator.serving.gateway.response import DiscardedResponse, Response
from orchestrator.serving.gateway.routes import RevisionRoute
from orchestrator.serving.gateway.slots import Slot, Slots
from orchestrator.serving.gateway.upstream import (
    Broken,
    Exchange,
    Exhausted,
    Later,
    Unreachable,
    Upstream,
    address_of,
)
from orchestrator.serving.http.api_errors import CLIENT_LEFT, ApiError
from orchestrator.serving.http.asgi import Headers
from orchestrator.serving.http.request_limits import GatewayLimits

_USED = re.compile(rb'"(prompt|input|completion|output)_tokens"\s*:\s*(\d+)')
_TOTAL = re.compile(rb'"total_tokens"\s*:\s*(\d+)')  # all that some rerankers tell
_TAIL = 1024  # bytes that hold the usage of an answer, in those of ours
_STREAM = "text/event-stream"
_KEPT = frozenset({"content-type", "content-encoding", "retry-after"})
# What a replica never answers to the gateway's own request: it is another one, or going.
_ASTRAY = frozenset({401, 403, 404, 405, 408})
_UNKNOWN_ROUTE = frozenset({404, 405})  # but for a path that this gateway does not know either
_FAILED = 500
_ASKED_WRONGLY = frozenset({501, 505})  # of those from 500 on: what was asked is not there
OWN_PATHS = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/predict"})


class _FailedTry(Exception):  # noqa: N818 - a value that travels up
    """A replica gave no answer.

    `answer` is the error that it did give, if any, and `event` that of a stream.
    """

    def __init__(
        self,
        why: str,
        kind: str,
        answer: tuple[int, Headers, bytes] | None = None,
        event: bytes = b"",
    ) -> None:
        super().__init__(why)
        self.kind = kind
        self.answer = answer
        self.event = event


class Forwarder:
    """Sends requests on, and their answers back."""

    def __init__(
        self,
        slots: Slots,
        upstream: Upstream,
        metrics: Metrics,
        limits: GatewayLimits,
        budget: Budget,
    ) -> None:
        self._slots = slots
        self._upstream = upstream
        self._metrics = metrics
        self._limits = limits
        self._budget = budget
        self._breaker = Breaker(limits.failures)
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
        failed: list[str] = []
        last: _FailedTry | None = None
        while True:
            slot = await self._take(request, avoid, last, tally)
            try:
                await self._attempt(request, slot, response, tally)
            except _FailedTry as failure:
                reached += failure.kind != "unreachable"
                late = not reached and loop.time() > until
                if failure.kind == "failed":
                    failed.append(slot.url)
                    if len(set(failed)) > 1:
                        self._breaker.forgive(failed)
                if response.answered or reached > 1 or late:
                    await self._give_up(failure, response, tally)
                    return
                avoid, last = slot.url, failure
                self._metrics.retried(request.endpoint)
            else:
                return

    async def _take(
        self, request: InboundRequest, avoid: str, last: _FailedTry | None, tally: Tally
    ) -> Slot:
        """Return a slot; where none comes since the replicas failed, the refusal says how."""
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            return await self._slots.take(request.endpoint, request.client, avoid, request.share)
        except ApiError as error:
            if last is None or error.code != "no_replica":
                raise
            raise ApiError(
                error.status, f"{error}: {last}", code=error.code, retry_after=error.retry_after
            ) from None
        finally:
            tally.queued += loop.time() - since

    def late(self, tally: Tally) -> None:
        """Count an answer that took too long as a failure of the replica that was asked."""
        if tally.revision is not None and tally.url:
            self._metrics.failed(tally.endpoint, tally.revision, "timeout")
            if self._breaker.failed(tally.url) and len(tally.revision.urls) > 1:
                self._slots.eject(tally.url)

    async def close(self) -> None:
        """Stop the copies and close all connections."""
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, return_exceptions=True)
        await self._upstream.close()

    async def _give_up(self, failure: _FailedTry, response: Response, tally: Tally) -> None:
        if failure.answer is not None and not response.answered:
            status, headers, body = failure.answer
            tally.status = status
            await response.whole(status, headers, body)
            return
        reached = failure.kind != "unreachable"
        error = ApiError(
            502 if reached else 503,
            f"the model's replica failed: {failure}",
            code="replica_failed" if reached else "no_replica",
            retry_after=1,
        )
        if failure.event and response.answered:
            await response.fail(error, failure.event)
        raise error

    async def _attempt(
        self, request: InboundRequest, slot: Slot, response: Response, tally: Tally
    ) -> None:
        """Ask the replica of `slot` once, and count what comes of it."""
        tally.revision, tally.size, tally.sent = slot.revision, slot.size, perf_counter()
        tally.prompt_tokens = tally.completion_tokens = 0
        tally.url = slot.url
        tally.first, tally.reasons = 0.0, ()
        try:
            await self._exchange(request, slot, response, tally)
        except Exhausted as error:
            what = f"the gateway can open no more connections: {error}"
            raise ApiError(503, what, code="busy", retry_after=1) from error
        except (Unreachable, Broken, _FailedTry) as error:
            failure = error if isinstance(error, _FailedTry) else _failure(error, response)
            tally.status, tally.url = 0, ""
            self._metrics.failed(request.endpoint, slot.revision, failure.kind)
            self._blame(slot, failure.kind)
            raise failure from error
        except asyncio.CancelledError:
            tally.status = tally.status or CLIENT_LEFT
            raise
        finally:
            self._slots.release(slot)
            tally.last = perf_counter()
            if tally.status or tally.first:
                self._metrics.answered(request.endpoint, slot.revision, tally)
        self._slots.readmit(slot)
        self._breaker.answered(slot.url)

    def _blame(self, slot: Slot, kind: str) -> None:
        """Leave a replica alone for a while; one whose engine fails, only where others are."""
        if kind != "failed" or (self._breaker.failed(slot.url) and len(slot.revision.urls) > 1):
            self._slots.eject(slot.url)

    async def _exchange(
        self, request: InboundRequest, slot: Slot, response: Response, tally: Tally
    ) -> None:
        headers, body = request.outbound(slot.revision)
        async with self._upstream.exchange(
            address_of(slot.url, request.path, slot.revision.far),
            headers,
            body,
            method=request.method,
            far=slot.revision.far,
        ) as exchange:
            status = exchange.status
            if exchange.headers.get("content-type", "").startswith(_STREAM):
                tally.status = status
                tally.prompt_tokens = _prompt_tokens(exchange)
                await self._stream(exchange, request, slot, response, tally)
                return
            await self._whole(exchange, request, slot.revision, response, tally)

    async def _whole(
        self,
        exchange: Exchange,
        request: InboundRequest,
        revision: RevisionRoute,
        response: Response,
        tally: Tally,
    ) -> None:
        """Hand a whole answer on; its parts are joined once, however many they are."""
        parts, status, size = [], exchange.status, 0
        with self._budget.holding() as held:
            while part := await exchange.read():
                parts.append(part)
                size += len(part)
                if size > self._limits.answer_bytes:
                    tally.status = CLIENT_LEFT  # it was made, and nobody gets it
                    raise ApiError(502, "the model's answer is too long", code="answer_too_long")
                held.add(len(part))
            answer, headers = b"".join(parts), _headers(exchange, revision)
            fails = status >= _FAILED and status not in _ASKED_WRONGLY
            if fails or _is_astray(status, request, revision, answer):
                raise _refusal(status, headers, answer)
            if is_aborted(answer):
                raise _FailedTry("its engine gave the answer up", "failed")
            tally.status, tally.reasons = status, reasons_in(answer)
            _read_usage(answer, tally)
            await response.whole(status, headers, answer)

    async def _stream(
        self,
        exchange: Exchange,
        request: InboundRequest,
        slot: Slot,
        response: Response,
        tally: Tally,
    ) -> None:
        """Hand a stream on; what is at its end goes with the end of the answer."""
        headers = _headers(exchange, slot.revision)
        stream = EventStream(
            hides_usage=request.hides_usage, choices=request.choices, interval=request.interval
        )
        exchange.watch(self._limits.silent_seconds)

        def hand_on(part: bytes) -> Later | None:
            events = stream.feed(part)
            if not tally.first and stream.begun:
                tally.first = perf_counter()
                self._slots.begun(slot)
            sent = response.add(headers, events) if events and tally.first else None
            return partial(_failed, stream, sent) if stream.failure else sent

        try:
            await exchange.each(hand_on)
        except Broken:
            if not stream.over:
                raise
        finally:  # a client that leaves is charged what the stream has told too
            rest = stream.end()
            tally.completion_tokens = stream.completion_tokens
            tally.prompt_tokens = stream.prompt_tokens or tally.prompt_tokens
            tally.reasons = stream.reasons
        if stream.failure:
            await _failed(stream, None)
        if not stream.finished and (not slot.revision.outside or not stream.completion_tokens):
            raise Broken("its stream ended early")
        sent = response.add(headers, rest) if rest else None
        if sent is not None:
            await sent()

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
        except (_FailedTry, ApiError, TimeoutError):
            return  # counted already; a copy is not asked again


async def _failed(stream: EventStream, sent: Later | None) -> None:
    """Fail, once what came before is sent."""
    if sent is not None:
        await sent()
    raise _FailedTry(stream.failure, "failed", event=stream.last)


def _failure(error: Unreachable | Broken, response: Response) -> _FailedTry:
    if isinstance(error, Unreachable):
        return _FailedTry(str(error), "unreachable")
    return _FailedTry(str(error), "broken" if response.answered else "lost")


def _is_astray(
    status: int, request: InboundRequest, revision: RevisionRoute, answer: bytes
) -> bool:
    """Whether a status tells that this is no replica of the revision, or no more."""
    if status not in _ASTRAY or revision.outside:
        return False
    own = answer.startswith((b'{"error"', b'{"object":"error"', b'{"detail"'))
    # An engine server of another revision would not know the key; one may lack these paths.
    unknown = revision.server or request.path.partition("?")[0] not in OWN_PATHS
    return not (own and unknown and status in _UNKNOWN_ROUTE)


def _refusal(status: int, headers: Headers, body: bytes) -> _FailedTry:
    if status in _ASTRAY:
        return _FailedTry(f"it answers {status}", "astray")
    own = (status, headers, body) if body.startswith(b'{"error"') else None
    kind = "failed" if own and status == _FAILED else "going"
    return _FailedTry(f"it answers {status}", kind, own)


def _headers(exchange: Exchange, revision: RevisionRoute) -> Headers:
    headers = [(b"content-type", b"application/json"), (b"x-revision", revision.name.encode())]
    if revision.version:
        headers.append((b"x-model-version", revision.version.encode()))
    for name, value in exchange.headers.items():
        small = name.lower()
        if small == "content-type":
            headers[0] = (b"content-type", value.encode())
        elif small in _KEPT or small.startswith("openai-"):
            headers.append((small.encode(), value.encode()))
    return headers


def _prompt_tokens(exchange: Exchange) -> int:
    """Return how many tokens a prompt has, where the replica tells at once."""
    counted = exchange.headers.get("x-prompt-tokens", "")
    return int(counted) if counted.isdecimal() else 0


def _read_usage(text: bytes, tally: Tally) -> None:
    counts = (_USED.findall(text[-_TAIL:]) or _USED.findall(text))[-2:]
    if not counts and (total := _TOTAL.findall(text)):
        tally.prompt_tokens = int(total[-1])
    for kind, count in counts:
        if kind in {b"prompt", b"input"}:
            tally.prompt_tokens = int(count)
        else:
            tally.completion_tokens = int(count)
