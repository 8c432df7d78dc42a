"""How deep a JSON text is, and how many values that hold others it has, found before it is parsed.

It takes time in proportion to the text, whatever is in it.
"""

from __future__ import annotations

import re

from orchestrator.serving.http.api_errors import ApiError

# Each match ends, at the end of the text at the latest, so nothing is looked at twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_OTHER = bytes(set(range(256)) - set(b"[]{}"))
_MOST = 20_000
_MOST_VALUES = 4_000_000  # a quarter of a second, and some 100 MB


def check_depth(body: bytes, depth: int) -> None:
    """Refuse a body that is nested deeper than `depth`, or has too many of its parts.

    Raises:
        ApiError: It is.
    """
    if body.count(b",") > _MOST_VALUES:
        what = f"the body has over {_MOST_VALUES} values"
        raise ApiError(400, what, code="invalid_json")
    if body.count(b"[") + body.count(b"{") <= depth:
        return
    if body.count(b'"') - body.count(b'\\"') > 2 * _MOST:
        raise _too_many()
    marks = _STRING.sub(b"", body).translate(None, _OTHER)
    if len(marks) > 2 * _MOST:
        raise _too_many()
    level = 0
    for mark in marks:
        level += 1 if mark in b"[{" else -1
        if level > depth:
            raise ApiError(400, f"the body is nested over {depth} deep", code="invalid_json")


def _too_many() -> ApiError:
    what = f"the body has over {_MOST} arrays and objects, or strings"
    return ApiError(400, what, code="invalid_json")
