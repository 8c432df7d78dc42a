"""Errors of the HTTP interface, all in OpenAI's shape: what the `openai` clients know to read."""

from __future__ import annotations

from http import HTTPStatus

from orchestrator.serving.http.encoding import encode

_LONGEST = 600  # characters of what is said
CLIENT_LEFT = 499  # as nginx has it: nobody was there to be answered


class ApiError(Exception):
    """A request that is answered by an error.

    `retry_after` is how many seconds the client should wait before it asks again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(_short(message))
        self.status = status
        self.param = None if param is None else _short(param)
        self.code = code
        self.retry_after = retry_after
        self.allow = allow

    def body(self) -> dict[str, object]:
        """Return the error as JSON."""
        fields = {
            "message": str(self),
            "type": _kind(self.status),
            "param": self.param,
            "code": self.code,
        }
        return {"error": fields}

    def event(self) -> bytes:
        """Return the error as the last event of a stream."""
        return b"data: " + encode(self.body()) + b"\n\n"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return what the answer has beside its body."""
        headers = []
        if self.retry_after is not None:
            headers.append((b"retry-after", b"%d" % self.retry_after))
        if self.allow is not None:
            headers.append((b"allow", self.allow.encode()))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


class ClientLeft(Exception):  # noqa: N818 - nobody did anything wrong
    """The client closed its connection: nobody waits for an answer."""


def unknown_url(method: str, path: str) -> ApiError:
    """Return the error of a path that is not there."""
    return ApiError(404, f"{method} {path!r}: not found", code="unknown_url")


def wrong_method(method: str, path: str, allowed: str) -> ApiError:
    """Return the error of a path that is there for another method."""
    message = f"{method} {path!r}: method not allowed"
    return ApiError(405, message, code="method_not_allowed", allow=allowed)


def unknown_model(name: str, models: str) -> ApiError:
    """Return the error of a model that is not here; `models` says which are."""
    message = f"no model {name!r} here; there is {models}"
    return ApiError(404, message, param="model", code="model_not_found")


def _short(text: str) -> str:
    """Return a text without its middle, where it is long: a client may have written it."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def _kind(status: int) -> str:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return "server_error"
    limited = status == HTTPStatus.TOO_MANY_REQUESTS
    return "rate_limit_error" if limited else "invalid_request_error"
