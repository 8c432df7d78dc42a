"""An excerpt of a worker's log, as a person has it: the lines, and the exception at its end.

A traceback that ends the excerpt is read as the exception that ended the worker, with those that
caused it; so is a last `Type: message` without one. All else was printed by a worker that then
died without a word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.failures.exceptions import Raised
from orchestrator.core.failures.python_errors import bases

TRACEBACK = "Traceback (most recent call last):"
_CAUSED = "The above exception was the direct cause of the following exception:"
_HANDLED = "During handling of the above exception, another exception occurred:"
_FRAME = re.compile(r'  File "([^"]*)", line \d+')
_SAID = re.compile(
    r"((?:[A-Za-z_]\w*\.)*(?=[A-Z])\w*(?:Error|Exception|Exit|Interrupt|Timeout|Died|Warning|Failure"
    r"|Iteration|Fault)|(?:[a-z_]\w*\.)+[A-Z]\w*)(?:: ?(.*))?$"
)
# What follows the frames of a traceback, whatever the type is called.
_LAST = re.compile(r"([A-Za-z_][\w.]*)(?::(?: (.*))?)?$")
_LIBRARY = re.compile(r"/(?:site|dist)-packages/|/lib/python|^<frozen ")
_RECORD = re.compile(
    r"\[?\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|[IWEF]\d{4} |(?:INFO|WARNING|ERROR|DEBUG)\b"
)
LINES_AFTER = 5
# More than any worker's last words: of a longer log the rest is not looked at.
LAST_LINES = 5_000


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What a worker printed, and how it ended: `raised` is empty where it died without a word."""

    lines: tuple[str, ...]
    raised: tuple[Raised, ...] = ()


def parse(text: str) -> Excerpt:
    """Return what `text` holds."""
    lines = text.splitlines()[-LAST_LINES:]
    begins = [at for at, line in enumerate(lines) if line.rstrip().endswith(TRACEBACK)]
    if begins:
        return _with_traceback(lines, begins)
    last = next((at for at in range(len(lines) - 1, -1, -1) if lines[at].strip()), None)
    match = None if last is None else _SAID.match(lines[last].strip())
    if match is None:
        return Excerpt(tuple(lines))
    return Excerpt(tuple(lines[:last]), (_raised(match, (), library=False),))


def _with_traceback(lines: Sequence[str], begins: Sequence[int]) -> Excerpt:
    """Read the last traceback, and those before it that it names as its causes."""
    chain: list[Raised] = []
    after: tuple[str, ...] = ()
    first, explicit = len(lines), True
    for begin, end in zip(reversed(begins), reversed([*begins[1:], len(lines)]), strict=True):
        block = _block(lines, begin, end)
        link = next((line for line in block if line in {_CAUSED, _HANDLED}), None)
        if chain and link is None:
            break
        explicit = explicit and link != _HANDLED if chain else True
        raised, rest = _exception(block[: block.index(link)] if link else block, explicit=explicit)
        if raised is None or (not chain and _goes_on(rest)):
            break
        after = after if chain else tuple(rest)
        chain.append(raised)
        first = begin
    return Excerpt((*lines[:first], *after), tuple(chain))


def _block(lines: Sequence[str], begin: int, end: int) -> list[str]:
    """Return the lines of a traceback without what its first line has before it."""
    prefix = lines[begin][: lines[begin].index(TRACEBACK)]
    bare = prefix.rstrip()
    return [
        line.removeprefix(prefix) if line.startswith(prefix) else line.removeprefix(bare)
        for line in lines[begin + 1 : end]
    ]


def _exception(block: Sequence[str], *, explicit: bool) -> tuple[Raised | None, Sequence[str]]:
    """Return the exception that a traceback ends with, and the lines that follow it."""
    frames = [frame[1] for line in block if (frame := _FRAME.match(line))]
    for at, line in enumerate(block):
        match = None if line.startswith(" ") else _LAST.match(line)
        if match is not None:
            rest = list(block[at + 1 :])
            more = next(
                (n for n, following in enumerate(rest) if _RECORD.match(following)), len(rest)
            )
            library = bool(frames) and bool(_LIBRARY.search(frames[-1]))
            below = [following.rstrip() for following in rest[:more]]
            raised = _raised(match, below, library=library, explicit=explicit)
            return raised, rest[more:]
    return None, block


def _raised(
    match: re.Match[str], below: Sequence[str], *, library: bool, explicit: bool = True
) -> Raised:
    message = "\n".join([match[2] or "", *below]).strip()
    return Raised(bases(match[1]), message, library=library, explicit=explicit)


def _goes_on(after: Sequence[str]) -> bool:
    """Whether so much follows a traceback that it was not the end."""
    return sum(bool(line.strip()) for line in after) > LINES_AFTER
