"""What `keys add` and `keys set` say of a key: `requests=60 budget=20 expires=none`."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.cli import arguments
from orchestrator.core.errors import ConfigError, Problem

NONE, ALL = "none", "all"
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0
RANKS = 1000
MOST_DOLLARS = 1e9
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parsed(words: Iterable[str]) -> dict[str, Any]:
    """Return the fields of a key that `words` tell; `expires` in seconds from now.

    Raises:
        ConfigError: Some are no limits; all of them are named.
    """
    problems: list[Problem] = []
    changes: dict[str, Any] = {}
    for word in words:
        name, mark, text = word.partition("=")
        if not mark or name not in FIELDS:
            what = f"{arguments.shown(word)} is no limit of a key"
            problems.append(Problem("keys", what, f"write one of {', '.join(FIELDS)} and =VALUE"))
            continue
        try:
            changes[name] = FIELDS[name](text)
        except argparse.ArgumentTypeError as error:
            problems.append(Problem(name, str(error), _hint(name)))
    if problems:
        raise ConfigError(problems)
    return changes


def seconds(text: str) -> float:
    """Return how long `90`, `30m`, `12h` or `7d` is, in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    length = float(match[1]) * UNITS[match[2]] if match else math.nan
    if not 0 < length <= arguments.DAYS * UNITS["d"]:
        message = f"{arguments.shown(text)} is no length of time; write 90s, 30m, 12h or 7d"
        raise argparse.ArgumentTypeError(message)
    return length


def _or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text.lower() == NONE else parse(text)


def _models(text: str) -> tuple[str, ...]:
    """Return the names in `chat,code` or `[chat,code]`; an empty list would open all of them."""
    if text == ALL:
        return ()
    listed = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    names = tuple(name.strip() for name in listed.split(","))
    if ALL in names or not all(map(arguments.ENDPOINT.fullmatch, names)):
        message = f"{arguments.shown(text)} names no endpoints; write chat,code, or {ALL}"
        raise argparse.ArgumentTypeError(message)
    return names


def _weight(text: str) -> float:
    value = arguments.number("parts", MOST_WEIGHT, zero=False)(text)
    return max(LEAST_WEIGHT, value)


def _hint(name: str) -> str:
    return f"{name}=none is no limit" if name in LIMITS else f"write {name}=VALUE"


FIELDS: Mapping[str, Callable[[str], Any]] = {
    "requests": _or_none(arguments.whole("requests", arguments.MINUTES_WORTH)),
    "tokens": _or_none(arguments.whole("tokens", arguments.MINUTES_WORTH)),
    "parallel": _or_none(arguments.whole("requests", arguments.MINUTES_WORTH)),
    "budget": _or_none(arguments.number("US dollars", MOST_DOLLARS, zero=False)),
    "expires": _or_none(seconds),
    "models": _models,
    "weight": _weight,
    "priority": arguments.whole("priority", RANKS, -RANKS),
    "owner": arguments.word,
}
LIMITS = ("requests", "tokens", "parallel", "budget", "expires")
