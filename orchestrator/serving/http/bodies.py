"""Bodies of requests, before anything is known of them but that they are JSON."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from orchestrator.serving.http.api_errors import ApiError


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in `body`.

    Raises:
        ApiError: It is none.
    """
    try:
        value = from_json(body)
    except ValueError as error:
        raise ApiError(400, f"the body is not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(value, dict):
        raise ApiError(400, f"the body should be a JSON object, not {shown(value)}")
    return value


def whole(value: object) -> object:
    """Return 5 for 5.0: JSON knows one kind of number."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def is_token(value: object) -> bool:
    """Return whether a value can be the id of a token."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def shown(value: object) -> str:
    """Return a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - one line in a terminal
