"""Errors of the HTTP interface, all in OpenAI's shape: what the `openai` clients know to read."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

_CLIENT_CLOSED_REQUEST = 499


class ApiError(Exception):
    """A request that is answered by an error."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code

    def body(self) -> dict[str, object]:
        """Return the error as JSON."""
        ours = self.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        kind = "server_error" if ours else "invalid_request_error"
        fields = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": fields}


def answer_errors(app: FastAPI) -> None:
    """Give every error of `app` OpenAI's shape: ours, unknown paths and methods, and defects."""
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _nobody_listens)
    app.add_exception_handler(Exception, _defect)


async def _api_error(_: Request, error: Exception) -> Response:
    known = error if isinstance(error, ApiError) else ApiError(500, str(error))
    return JSONResponse(known.body(), known.status)


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    what = HTTPStatus(status).phrase.lower()
    said = ApiError(status, f"{request.method} {request.url.path!r}: {what}", code=_code(status))
    headers = error.headers if isinstance(error, HTTPException) else None
    return JSONResponse(said.body(), status, headers=headers)


async def _nobody_listens(_: Request, error: Exception) -> Response:
    del error
    return Response(status_code=_CLIENT_CLOSED_REQUEST)


async def _defect(_: Request, error: Exception) -> Response:
    said = ApiError(500, f"the server failed: {type(error).__name__}; its log says more")
    return JSONResponse(said.body(), said.status)


def _code(status: int) -> str | None:
    return {404: "unknown_url", 405: "method_not_allowed"}.get(status)
