"""What the flags of all verbs take: numbers within bounds, and words that can be stored and shown.

What is out of bounds is refused with one line, and exit code 2, before anything is looked at.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable

DAYS = 36_525.0  # a hundred years
SECONDS = 30 * 86_400.0
RECORDED = 600.0  # seconds: py-spy holds what it has seen until the end
MINUTES_WORTH = 10**12
TOKENS = 1 << 20
HOTTEST = 100.0
ROWS = 10**6
WORD = 250
SHOWN = 60
_PART, _UNITS = (
    re.compile(r"(\d{1,9})([smhd]?)"),
    {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0},
)
ENDPOINT = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")


def whole(what: str, most: int, least: int = 1) -> Callable[[str], int]:
    """Return the type of an argument that is a whole number of `what`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = _exactly(text, least - 1)
        if not least <= value <= most:
            raise _refusal(text, f"number of {what}; write {least} to {most}")
        return value

    return parse


def _exactly(text: str, otherwise: int) -> int:
    """Return a whole number that is written as `1e3`, or else `otherwise`."""
    try:
        value = float(text)
    except ValueError:
        return otherwise
    return int(value) if value.is_integer() else otherwise


def number(what: str, most: float, *, zero: bool = True) -> Callable[[str], float]:
    """Return the type of an argument that is a number of `what`, 0 or, without `zero`, above."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not 0 <= value <= most or (value == 0 and not zero):
            least = "0" if zero else "above 0"
            raise _refusal(text, f"number of {what}; write {least} to {most:g}")
        return value

    return parse


def duration(text: str) -> float:
    """Return the seconds of a duration such as `90s`, `10m`, `1h30m` or `2d`."""
    parts = _PART.findall(text)
    seconds = sum(int(amount) * _UNITS[unit or "s"] for amount, unit in parts)
    if "".join(amount + unit for amount, unit in parts) != text or not 0 < seconds <= SECONDS:
        raise _refusal(text, "duration; write 90s, 10m, 1h30m or 2d")
    return seconds


def word(text: str) -> str:
    """Return a word, or a few, that can be stored and shown in a line; nothing stays nothing."""
    if (text and not text.strip()) or len(text) > WORD or not text.isprintable():
        raise _refusal(text, f"name or reason; write 1 to {WORD} letters on one line")
    return text


def _refusal(text: str, what: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{shown(text)} is no {what}")


def shown(text: str) -> str:
    """Return what somebody typed as a part of a line."""
    quoted = repr(text) if text.isprintable() else ascii(text)
    return quoted if len(quoted) <= SHOWN else f"{quoted[: SHOWN - 3]}..."
