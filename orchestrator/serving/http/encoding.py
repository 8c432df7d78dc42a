"""JSON, as bytes."""

from __future__ import annotations

from pydantic_core import to_json


def encode(value: object) -> bytes:
    """Return `value` as JSON without spaces, in UTF-8."""
    return to_json(value, inf_nan_mode="null")
