"""Tool calls in the text of an answer: found as the text comes, told in OpenAI's shape.

`auto` reads the format of Hermes, which Qwen and many others write: JSON of a name and arguments
between `<tool_call>` and `</tool_call>`. What is no call is text, as it came.
"""

from __future__ import annotations

import json
import uuid
from typing import Any, Protocol

Json = dict[str, Any]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"


class Reader(Protocol):
    """Parts an answer into text and calls."""

    @property
    def finish(self) -> str:
        """Why the answer ended, when its text has ended."""
        ...

    def add(self, text: str, *, last: bool) -> tuple[str, list[Json]]:
        """Return what `text` adds to the content, and to the calls, as deltas of a stream."""
        ...


def reader(chosen: str) -> Reader:
    """Return what reads an answer to a request whose `tool_choice` is `chosen`."""
    if chosen == "none":
        return Plain()
    if chosen == "auto":
        return Hermes()
    return Required() if chosen == "required" else Named(chosen)


class Plain:
    """An answer without tools."""

    finish = "stop"

    def add(self, text: str, *, last: bool) -> tuple[str, list[Json]]:
        """Return the text."""
        del last
        return text, []


class Hermes:
    """An answer that may have calls in it."""

    def __init__(self) -> None:
        self._unread = ""
        self._inside = False
        self._calls = 0

    @property
    def finish(self) -> str:
        """Why the answer ended, when its text has ended."""
        return "tool_calls" if self._calls else "stop"

    def add(self, text: str, *, last: bool) -> tuple[str, list[Json]]:
        """Return text outside of calls, and each call when it is whole."""
        self._unread += text
        content, calls = "", []
        while (at := self._unread.find(_CLOSE if self._inside else _OPEN)) >= 0:
            before = self._unread[:at]
            self._unread = self._unread[at + len(_CLOSE if self._inside else _OPEN) :]
            call = _call(before) if self._inside else None
            if call is not None:
                calls.append(_delta(self._calls, *call))
                self._calls += 1
            else:
                content += f"{_OPEN}{before}{_CLOSE}" if self._inside else before
            self._inside = not self._inside
        return self._kept(content + self._rest(last=last)), calls

    def _rest(self, *, last: bool) -> str:
        """Return what is no part of a call for sure."""
        if self._inside:
            return f"{_OPEN}{self._unread}" if last else ""
        keep = 0 if last else _overlap(self._unread, _OPEN)
        ready = self._unread[: len(self._unread) - keep]
        self._unread = self._unread[len(ready) :]
        return ready

    def _kept(self, content: str) -> str:
        """Leave the blanks out that stand between calls."""
        return content if content.strip() or not self._calls else ""


class Required:
    """An answer that is a list of calls."""

    def __init__(self) -> None:
        self._unread = ""
        self.finish = "stop"

    def add(self, text: str, *, last: bool) -> tuple[str, list[Json]]:
        """Return all calls at the end; the text itself where it is no such list, being cut."""
        self._unread += text
        if not last:
            return "", []
        try:
            calls = [_parted(item) for item in json.loads(self._unread)]
        except (ValueError, KeyError, TypeError):
            return self._unread, []
        self.finish = "tool_calls"
        return "", [_delta(place, *call) for place, call in enumerate(calls)]


class Named:
    """An answer that is the arguments of one function."""

    finish = "stop"

    def __init__(self, name: str) -> None:
        self._name = name
        self._begun = False

    def add(self, text: str, *, last: bool) -> tuple[str, list[Json]]:
        """Return the arguments as they come."""
        if not self._begun and (text or last):
            self._begun = True
            return "", [_delta(0, self._name, text)]
        return "", [{"index": 0, "function": {"arguments": text}}] if text else []


def joined(deltas: list[Json]) -> list[Json]:
    """Return the calls of a whole answer."""
    calls: dict[int, Json] = {}
    for delta in deltas:
        call = calls.setdefault(delta["index"], {**delta, "function": {**delta["function"]}})
        if call is not delta and "id" not in delta:
            call["function"]["arguments"] += delta["function"]["arguments"]
    return [{name: call[name] for name in ("id", "type", "function")} for call in calls.values()]


def _delta(place: int, name: str, arguments: str) -> Json:
    function = {"name": name, "arguments": arguments}
    call = f"call_{uuid.uuid4().hex[:24]}"
    return {"index": place, "id": call, "type": "function", "function": function}


def _call(text: str) -> tuple[str, str] | None:
    try:
        return _parted(json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _parted(call: Any) -> tuple[str, str]:  # noqa: ANN401 - whatever a model wrote
    name, arguments = call["name"], call.get("arguments", {})
    if not isinstance(name, str):
        raise TypeError(name)
    whole = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return name, whole


def _overlap(text: str, mark: str) -> int:
    longest = min(len(mark) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)
