"""What stands before the gateway's own routes: readiness, HEAD, and browsers of other origins.

`/health` is liveness: the process answers. `/ready` is for load balancers: whether what the
gateway goes by is new enough to send it requests.
"""

from __future__ import annotations

from http import HTTPStatus

from orchestrator.serving.asgi import Handler, Receive, Scope, Send, answer
from orchestrator.serving.encoding import encode
from orchestrator.serving.errors import ApiError, wrong_method
from orchestrator.serving.routes import Routes

STALE_SECONDS = 10.0


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
