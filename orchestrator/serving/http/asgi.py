"""What both applications have in common: ASGI without a framework, since each token passes here.

Every error has OpenAI's shape, a body is read up to a limit, and work ends when its client leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from orchestrator.serving.http.api_errors import ApiError, ClientLeft
from orchestrator.serving.http.encoding import encode

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Write: TypeAlias = Callable[[bytes], bool]  # whether the part was taken: else it is to be sent
Close: TypeAlias = Callable[[], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

ANSWER_SECONDS = "x-answer-seconds"  # that a replica of ours may take, as the gateway says
JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_WRITE = "orchestrator.write"  # an extension of our server


class Application:
    """An ASGI application around `handle`, which may raise `ApiError` until it answers.

    `close` is awaited when the server ends.
    """

    def __init__(self, handle: Handler, close: Close | None = None) -> None:
        self._handle = handle
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the server's life."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        try:
            await self._handle(scope, receive, send)
        except ApiError as error:
            await answer(send, error.status, encode(error.body()), error.headers())
        except ClientLeft:
            return
        except Exception as error:
            what = f"the server failed: {type(error).__name__}; its log says more"
            await answer(send, 500, encode(ApiError(500, what).body()))
            raise

    async def _live(self, receive: Receive, send: Send) -> None:
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": f"{event['type']}.complete"})
        if self._close is not None:
            await self._close()
        await send({"type": "lifespan.shutdown.complete"})


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header `name`, in small letters."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def path_of(scope: Scope) -> str:
    """Return the path below the application's own root."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def bearer(scope: Scope) -> str:
    """Return the token of the `Authorization` header; empty where there is none."""
    kind, _, token = (header(scope, b"authorization") or b"").partition(b" ")
    return token.strip().decode("latin-1") if kind.lower() == b"bearer" else ""


def offer_write(scope: Scope, write: Write) -> None:
    """Let an application write parts of a stream by a plain call."""
    scope["extensions"] = {_WRITE: write}


def write_of(scope: Scope) -> Write | None:
    """Return what writes parts of a stream by a plain call, where the server has it."""
    write: Write | None = scope.get("extensions", {}).get(_WRITE)
    return write


async def body_of(
    scope: Scope, receive: Receive, limit: int, hold: Callable[[int], None] | None = None
) -> bytes:
    """Return the body of the request; `hold` is told how many bytes each part of it has.

    Raises:
        ApiError: It has more than `limit` bytes.
        ClientLeft: It doesn't come to its end.
    """
    announced = header(scope, b"content-length")
    if announced is not None and int(announced) > limit:
        raise _too_long(limit)
    event = await receive()
    body: bytes = event.get("body", b"")
    if hold is not None:
        hold(len(body))
    if not event.get("more_body") and event["type"] == "http.request":
        _within(body, limit)
        return body
    parts = bytearray(body)
    while event["type"] == "http.request" and event.get("more_body"):
        _within(parts, limit)
        event = await receive()
        more = event.get("body", b"")
        if hold is not None:
            hold(len(more))
        parts += more
    if event["type"] == "http.disconnect":
        raise ClientLeft
    _within(parts, limit)
    return bytes(parts)


async def answer(send: Send, status: int, body: bytes, headers: Headers | None = None) -> None:
    """Send a whole answer of JSON, or of the type that `headers` begins with."""
    length = (b"content-length", b"%d" % len(body))
    more = headers or []
    typed = bool(more) and more[0][0] == b"content-type"
    head = [length, *more] if typed else [JSON, length, *more]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def begin(send: Send, status: int, headers: Headers) -> Awaitable[None]:
    """Send the head of an answer whose length is not known."""
    return send({"type": "http.response.start", "status": status, "headers": headers})


def add(send: Send, part: bytes) -> Awaitable[None]:
    """Send a part of an answer."""
    return send({"type": "http.response.body", "body": part, "more_body": True})


def end(send: Send, part: bytes = b"") -> Awaitable[None]:
    """Send the last part of an answer."""
    return send({"type": "http.response.body", "body": part})


def _within(body: bytes | bytearray, limit: int) -> None:
    if len(body) > limit:
        raise _too_long(limit)


def _too_long(limit: int) -> ApiError:
    return ApiError(413, f"the body is longer than {limit} bytes", code="body_too_large")
