"""Server-sent events on their way: passed on as they are, in whole events, mostly unread.

Where each event says that its choice isn't at its end, all are tokens: two counts tell. Of others,
only those are parsed that have a word for what was used, that the engine gave up, or that it
failed. Servers differ in how they write: ends of lines, spaces after `data:`, comments, `[DONE]`
or none, the last blank line or none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

_ENDS = (b"\n\n", b"\n\r\n", b"\r\r")
_EVENT = re.compile(rb"(?:[^\r\n]++|(?>\r\n|\r|\n)(?![\r\n]))*+(?:(?>\r\n|\r|\n){2}|\Z)")
_DATA = re.compile(rb"^data: ?(.*?)\r?$", re.MULTILINE)
_LONGEST = 256 * 1024  # bytes of an event that is still held back for its end
_FINISHED = re.compile(
    rb'"(?:finish|stop)_reason"\s*:\s*"|"message_stop"|"response\.(?:completed|incomplete)"'
)
_OVER = re.compile(
    rb'^data: ?(?:\[DONE\]|\{.*"(?:message_stop|response\.(?:completed|incomplete))")',
    re.MULTILINE,
)
_REASON = re.compile(rb'_reason"\s*:\s*"([^"]{1,32})"')
_HINTS = (
    b'_reason":"',
    b'_reason": "',
    b"message_stop",
    b"response.completed",
    b"response.incomplete",
)
_FAILED = 500
_GOES_ON = b'"finish_reason":null'


class EventStream:
    """What has come of one stream.

    Attributes:
        prompt_tokens: Of the prompt, once the stream has told.
        begun: Whether an event with data has come.
        finished: Whether it has said that it is at its end.
        reasons: Why its choices ended, as far as it has said so.
        failure: Why the answer is none; empty where it is one.
        last: The event that told so, where it is the server's own.
    """

    def __init__(self, *, hides_usage: bool = False, choices: int = 1, interval: int = 1) -> None:
        """Begin; `hides_usage` takes the event out that only the gateway has asked for.

        An event may be of several of the `choices` that a request wants, and is of `interval`
        tokens.
        """
        self.prompt_tokens = 0
        self.begun = False
        self.finished = False
        self.reasons: list[str] = []
        self.failure = ""
        self.last = b""
        self._hides_usage = hides_usage
        self._interval = interval
        self._events = 0
        self._reported: int | None = None
        self._single = choices == 1
        self._rest: list[bytes] = []
        self._size = 0
        self._latest = b""

    @property
    def over(self) -> bool:
        """Whether it has said that nothing more comes; how its connection ends matters no more."""
        return _OVER.search(self._latest + b"".join(self._rest)) is not None

    @property
    def completion_tokens(self) -> int:
        """Tokens of the answer so far.

        What the stream tells before its end may be of its beginning: events count until then.
        """
        if self.finished and self._reported is not None:
            return self._reported
        return max(self._events * self._interval, self._reported or 0)

    def feed(self, part: bytes) -> bytes:
        """Return what may be passed on by now: whole events, or a part of a very long one."""
        if self._rest or not part.endswith(b"\n\n"):
            part = self._whole(part)
        return self._seen(part) if part else b""

    def _whole(self, part: bytes) -> bytes:
        """Return the events that are whole by now; hold the rest back."""
        if self._rest:
            joint = b"".join(self._rest[-2:])[-3:]  # the end of an event may come in two parts
            if self._size + len(part) < _LONGEST and _end(joint + part) == 0:
                self._hold(part)
                return b""
            part = b"".join([*self._rest, part])
            self._rest, self._size = [], 0
        end = _end(part)
        if end == 0 and len(part) >= _LONGEST:
            return part
        if end < len(part):
            self._hold(part[end:])
            part = part[:end]
        return part

    def end(self) -> bytes:
        """Return what is left: an event without its last blank line."""
        rest = b"".join(self._rest)
        self._rest, self._size = [], 0
        return self._seen(rest) if rest else b""

    def _hold(self, part: bytes) -> None:
        self._rest.append(part)
        self._size += len(part)

    def _seen(self, events: bytes) -> bytes:
        """Count `events`, and read what tells something; return what is passed on."""
        data = events.count(b"\ndata:") + events.startswith(b"data:")
        if data:
            self.begun = True
            self._events += data
        if self._single and data == events.count(_GOES_ON) and data and b"\r" not in events:
            return events
        self._latest = events
        if not self.finished:
            self.finished = _finishes(events)
        if self.finished and b'_reason"' in events:
            self.reasons += reasons_in(events)
        if b'_tokens"' in events or b'"error"' in events or b'"abort"' in events:
            return self._read(events)
        return events

    def _read(self, events: bytes) -> bytes:
        """Read the events that tell something; the others stay as they are."""
        passed = []
        for event in _split(events):
            tells = b'_tokens"' in event or b'"error"' in event or b'"abort"' in event
            if not (tells and self._takes_out(event)):
                passed.append(event)
            if self.failure:
                break
        return b"".join(passed)

    def _takes_out(self, event: bytes) -> bool:
        """Read one event; return whether it is kept from the client."""
        fields = _json_of(event)
        choices = fields.get("choices")
        if isinstance(choices, list) and any(map(_is_abort, choices)):
            self.failure = "its engine gave the answer up (finish_reason 'abort')"
            return True
        if fields.get("error") and not choices:
            return self._fail(event, fields["error"])
        used = usage_of(fields)
        if used is None:
            return False
        self.prompt_tokens = used[0] or self.prompt_tokens
        self._reported = used[1]
        return self._hides_usage and choices == [] and event.lstrip().startswith(b"data")

    def _fail(self, event: bytes, error: object) -> bool:
        """Note an error; that of a request is its answer, and no failure of the server."""
        fields = error if isinstance(error, Mapping) else {"message": error}
        code = fields.get("code")
        if isinstance(code, int) and code < _FAILED:
            self.finished = True
            return False
        self.failure = str(fields.get("message") or "its engine failed")
        self.last = event
        return True


def usage_of(fields: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the tokens of prompt and answer that an answer or an event names, if it does.

    Known are OpenAI's completions and responses, and Anthropic's messages.
    """
    inner = fields.get("response") or fields.get("message")
    usage = fields.get("usage") or (inner.get("usage") if isinstance(inner, dict) else None)
    if not isinstance(usage, dict):
        return None
    prompt, completion = (
        next((usage[n] for n in names if isinstance(usage.get(n), int)), 0)
        for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    )
    return prompt, completion


def is_aborted(body: bytes) -> bool:
    """Whether a whole answer is one that the engine gave up."""
    if b'"abort"' not in body:
        return False
    fields = _parsed(body)
    choices = fields.get("choices")
    return isinstance(choices, list) and any(map(_is_abort, choices))


def reasons_in(text: bytes) -> list[str]:
    """Return why the choices of an answer, or of a part of a stream, ended.

    Anthropic says `stop_reason`; where there is a `finish_reason`, that is something else.
    """
    finished, stopped = [], []
    at = text.find(b'_reason"')
    while at >= 0:
        match = _REASON.match(text, at)
        if match is not None and text.endswith(b'"finish', 0, at):
            finished.append(match[1].decode("utf-8", "replace"))
        elif match is not None and text.endswith(b'"stop', 0, at):
            stopped.append(match[1].decode("utf-8", "replace"))
        at = text.find(b'_reason"', at + 1)
    return finished or stopped


def _is_abort(choice: object) -> bool:
    return isinstance(choice, dict) and choice.get("finish_reason") == "abort"


def _finishes(events: bytes) -> bool:
    """Whether one of `events` tells that it is the last, or the last of a choice.

    Plain words are looked for first: an expression costs more than all else here.
    """
    if b"[DONE]" in events:
        return True
    return any(hint in events for hint in _HINTS) and _FINISHED.search(events) is not None


def _split(events: bytes) -> list[bytes]:
    """Return each of `events`, with its end."""
    if b"\r" in events:
        return _EVENT.findall(events)
    *whole, rest = events.split(b"\n\n")
    return [*(event + b"\n\n" for event in whole), rest]


def _end(part: bytes) -> int:
    """Return where the last whole event of `part` ends."""
    if part.endswith(b"\n\n"):
        return len(part)
    ends = ((part.rfind(mark), len(mark)) for mark in _ENDS)
    return max((start + size for start, size in ends if start >= 0), default=0)


def _json_of(event: bytes) -> dict[str, Any]:
    """Return the object that is an event's data, or a comment's text, as our replicas have it."""
    text = event.strip()
    if text.startswith(b": {"):
        return _parsed(text[2:])
    return _parsed(b"\n".join(_lines(event)))


def _lines(event: bytes) -> Iterator[bytes]:
    return (match.group(1) for match in _DATA.finditer(event.replace(b"\r", b"\n")))


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        fields = from_json(text)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
