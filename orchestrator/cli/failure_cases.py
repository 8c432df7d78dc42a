"""Failures as a file has them: an excerpt of a worker's log, or cases as JSON.

A case is `{"as": "line" | "exception", "type": ..., "message": ..., "lines": [...]}`, and with
`expected` what is right; a file has one, or a list of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.failures.exceptions import Raised
from orchestrator.core.failures.log_excerpt import Excerpt, parse
from orchestrator.core.failures.python_errors import bases
from orchestrator.service.explaining import Case

Json = Any  # what a file holds, before it is checked


def cases(text: str, name: str) -> tuple[list[Case], bool]:
    """Return the cases of the text of a file, and whether it holds a list of them.

    Raises:
        ConfigError: It holds none, or one that is none.
    """
    if not text.strip():
        hint = "give some lines of a worker's log, or a case as JSON"
        raise _refused(f"{name!r} is empty", hint)
    try:
        parsed: Json = json.loads(text)
    except ValueError as error:
        if text.lstrip().startswith("{") or name.endswith(".json"):
            raise _refused(f"{name!r} is no JSON: {error}", "mend it, or give a log") from error
        return [Case(parse(text))], False
    except RecursionError:
        raise _refused(f"{name!r} nests too deep", "give a case or a list of them") from None
    if isinstance(parsed, dict):
        return [_case(parsed, "the case")], False
    if isinstance(parsed, list) and parsed and all(isinstance(case, dict) for case in parsed):
        return [_case(case, f"case {at}") for at, case in enumerate(parsed)], True
    if isinstance(parsed, list):
        raise _refused(f"{name!r} is a list without cases", 'give {"as": ..., "lines": [...]}')
    return [Case(parse(text))], False


def _case(fields: Mapping[str, Json], where: str) -> Case:
    how, lines = fields.get("as"), fields.get("lines", [])
    if how not in {"line", "exception"}:
        raise _refused(f"{where}: 'as' is {how!r}", "it is 'line' or 'exception'")
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise _refused(f"{where}: 'lines' is {lines!r}", "it is a list of texts")
    expected = _expected(fields.get("expected"), where)
    split = tuple(part for line in lines for part in line.splitlines() or [""])
    if how == "line":
        return Case(Excerpt(split), expected)
    kind, message = fields.get("type"), fields.get("message", "")
    if not isinstance(kind, str) or not kind:
        raise _refused(f"{where}: 'type' is {kind!r}", "it names the type of the exception")
    if not isinstance(message, str):
        raise _refused(f"{where}: 'message' is {message!r}", "it is a text")
    return Case(Excerpt(split, (Raised(bases(kind), message),)), expected)


def _expected(kinds: Json, where: str) -> tuple[str, ...] | None:
    names = [kinds] if isinstance(kinds, str) else kinds
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _refused(f"{where}: 'expected' is {kinds!r}", "it is a list of kinds")
    return tuple(names)


def _refused(what: str, hint: str) -> ConfigError:
    return ConfigError([Problem("", what, hint)])
