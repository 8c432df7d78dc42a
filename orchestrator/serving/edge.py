"""What stands before the gateway's own routes: readiness, HEAD, and browsers of other origins.

`/health` is liveness: the process answers. `/ready` is for load balancers: whether what the
gateway goes by is new enough to send it requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.middleware.cors import CORSMiddleware

from orchestrator.serving.asgi import Handler, Receive, Scope, Send, answer
from orchestrator.serving.encoding import encode
from orchestrator.serving.errors import ApiError, unknown_url, wrong_method
from orchestrator.serving.metrics import CONTENT_TYPE, Metrics
from orchestrator.serving.routes import Routes

if TYPE_CHECKING:
    pass

STALE_SECONDS = 10.0
EXPOSED = ("x-request-id", "x-revision", "x-model-version", "retry-after")


def for_browsers(app: Handler, origins: Sequence[str]) -> Handler:
    """Return `app`, answering the preflights of pages of `origins`; as it is without any."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST"),
        allow_headers=("*",),
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
    """An ASGI application around that of the gateway, which gets HEAD as GET."""

    def __init__(self, app: Handler, routes: Routes, stale_seconds: float = STALE_SECONDS) -> None:
        """Take what answers all other paths; a table older than `stale_seconds` is not ready."""
        self._app = app
        self._routes = routes
        self._stale_seconds = stale_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have it answered; the server leaves out the body of an answer to HEAD."""
        if scope["type"] == "http":
            if scope["method"] == "HEAD":
                scope = {**scope, "method": "GET"}
            if scope["path"] == "/ready":
                await self._ready(scope["method"], send)
                return
        await self._app(scope, receive, send)

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
