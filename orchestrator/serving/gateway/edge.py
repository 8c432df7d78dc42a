"""What stands before the gateway's own routes: request ids, readiness, HEAD, browsers, records.

`/health` is liveness: the process answers. `/ready` is for load balancers: whether what the
gateway goes by is new enough to send it requests.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from time import perf_counter
from typing import Any
from uuid import uuid4

from starlette.middleware.cors import CORSMiddleware

from orchestrator.ports import Clock
from orchestrator.serving.gateway.access_log import RequestRecord
from orchestrator.serving.gateway.gateway_metrics import CONTENT_TYPE, Metrics, Tally
from orchestrator.serving.gateway.routes import Routes
from orchestrator.serving.http.api_errors import CLIENT_LEFT, ApiError, unknown_url, wrong_method
from orchestrator.serving.http.asgi import Handler, Receive, Scope, Send, answer, header
from orchestrator.serving.http.encoding import encode

STALE_SECONDS = 10.0
REQUEST_ID = b"x-request-id"
_IDS = re.compile(rb"[\x21-\x7e]{1,128}")
_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
EXPOSED = ("x-request-id", "x-revision", "x-model-version", "retry-after")


def for_browsers(app: Handler, origins: Sequence[str]) -> Handler:
    """Return `app`, answering the preflights of pages of `origins`; as it is without any."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        allow_private_network=True,  # a page of the internet may be named for a gateway within
        expose_headers=EXPOSED,
    )


def metrics_alone(metrics: Metrics) -> Handler:
    """Return what Prometheus asks at a listener of its own."""

    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/metrics":
            await answer(send, HTTPStatus.OK, metrics.text(), [CONTENT_TYPE])
        else:
            error = unknown_url(scope["method"], scope["path"])
            await answer(send, error.status, encode(error.body()))

    return handle


class Edge:
    """An ASGI application around that of the gateway, which gets HEAD as GET.

    Every request has an id: the client's `x-request-id`, or one that is made here. It is in the
    answer, and in the headers that the gateway gets.
    """

    def __init__(
        self,
        app: Handler,
        routes: Routes,
        clock: Clock,
        record: Callable[[RequestRecord], None] | None = None,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        """Take what answers all other paths.

        `record` gets what is remembered of each request; a table older than `stale_seconds` is
        not ready.
        """
        self._app = app
        self._routes = routes
        self._clock = clock
        self._record = record
        self._stale_seconds = stale_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have it answered; the server leaves out the body of an answer to HEAD."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        method, request_id = scope["method"], _request_id(scope)
        scope = {**scope, "method": "GET" if method == "HEAD" else method}
        answered = _IdentifiedSend(send, request_id)
        try:
            if scope["path"] == "/ready":
                await self._ready(scope["method"], answered)
            else:
                await self._app(scope, receive, answered)
        finally:
            if self._record is not None:
                spent = perf_counter() - began
                self._record(_recorded(scope, method, answered, self._clock.now(), spent))

    async def _ready(self, method: str, send: Send) -> None:
        error = self._trouble(method)
        if error is None:
            await answer(send, HTTPStatus.OK, b'{"status":"ok"}')
        else:
            await answer(send, error.status, encode(error.body()), error.headers())

    def _trouble(self, method: str) -> ApiError | None:
        if method != "GET":
            return wrong_method(method, "/ready", "GET")
        age = self._routes.age()
        if age <= self._stale_seconds:
            return None
        message = f"the routes are {age:.0f} s old: the database can't be read; see the log"
        return ApiError(503, message, code="not_ready", retry_after=1)


class _IdentifiedSend:
    """What sends an answer, with the id of its request; `status` is 0 until it has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    def __call__(self, message: MutableMapping[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"]
            if not any(name == REQUEST_ID for name, _ in headers):
                headers = [*headers, (REQUEST_ID, self.request_id.encode("latin-1"))]
                message = {**message, "headers": headers}
        return self._send(message)


def _request_id(scope: Scope) -> str:
    """Return the client's id of a request, or give it one, which the gateway then reads."""
    given = header(scope, REQUEST_ID)
    if given is not None and _IDS.fullmatch(given):
        return given.decode("latin-1")
    request_id = uuid4().hex
    others = [pair for pair in scope["headers"] if pair[0] != REQUEST_ID]
    scope["headers"] = [*others, (REQUEST_ID, request_id.encode())]
    return request_id


def _recorded(
    scope: Scope, method: str, answered: _IdentifiedSend, now: float, spent: float
) -> RequestRecord:
    tally: Tally | None = scope.get("tally")
    client = scope.get("client")
    parts = _TRACE.fullmatch(header(scope, b"traceparent") or b"")
    record = RequestRecord(
        at=now - spent,
        request_id=answered.request_id,
        client=client[0] if client else "",
        method=method,
        path=scope["path"],
        status=answered.status or CLIENT_LEFT,
        duration_s=spent,
        trace_id=parts[1].decode() if parts else "",
    )
    if tally is None:
        return record
    return replace(
        record,
        key=tally.key,
        endpoint=tally.endpoint,
        revision=tally.revision.name if tally.revision else "",
        queued_s=tally.queued,
        first_token_s=tally.first - tally.began if tally.first else None,
        prompt_tokens=tally.prompt_tokens,
        completion_tokens=tally.completion_tokens,
    )
