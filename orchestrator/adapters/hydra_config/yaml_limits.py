"""What is wrong with a YAML text that reads well: before anything is made of it.

Aliases can make a few lines stand for more than any machine holds, or go in a circle; lists can be
nested deeper than anybody can walk; and YAML 1.1 reads `1:30` as 90 and `010` as 8. The text is
looked through as a stream of events, in which an alias costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    ScalarEvent,
)

DEEPEST = 50
# What aliases (or ${...}) may add: so many values in any case, else so many times what is written.
ADDED, TIMES = 20_000, 10
CHARACTERS = 64  # of a text that weigh as much as a value

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BASE_8 = re.compile(r"[-+]?0[0-7_]+")
_BASE_60 = re.compile(r"[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


@dataclass(frozen=True, slots=True)
class YamlFault:
    """What is wrong, on which line and column, counted from 1, and the way out."""

    line: int
    column: int
    what: str
    hint: str


def faults(text: str) -> Iterator[YamlFault]:
    """Yield what is wrong with `text`. Raises `yaml.YAMLError` where it can't be read."""
    state = _OpenCollections()
    for event in yaml.parse(text, Loader=_LOADER):
        fault = state.take(event)
        mark = event.start_mark
        if fault and mark:
            yield YamlFault(mark.line + 1, mark.column + 1, *fault)
        if state.hopeless:
            return


@dataclass(slots=True)
class _OpenCollections:
    """The collections that are open, innermost last, and how much each anchor stands for."""

    open: list[tuple[str | None, int]] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)
    written: int = 0
    total: int = 0
    added: int = 0
    hopeless: bool = False

    def take(self, event: Event) -> tuple[str, str] | None:
        """Go on to `event`, and return what is wrong with it."""
        if isinstance(event, AliasEvent):
            return self._alias(event.anchor or "")
        if isinstance(event, CollectionEndEvent):
            anchor, before = self.open.pop()
            if anchor:
                self.weights[anchor] = self.total - before
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        return self._start(event) if isinstance(event, CollectionStartEvent) else None

    def _start(self, event: CollectionStartEvent) -> tuple[str, str] | None:
        self.open.append((event.anchor, self.total))
        self.written += 1
        self.total += 1
        if len(self.open) <= DEEPEST:
            return None
        self.hopeless = True
        return f"it is nested more than {DEEPEST} deep", "write it flatter"

    def _scalar(self, event: ScalarEvent) -> tuple[str, str] | None:
        self.written += 1
        weight = 1 + len(event.value) // CHARACTERS
        self.total += weight
        if event.anchor:
            self.weights[event.anchor] = weight
        return _ambiguous(event.value) if event.implicit[0] else None

    def _alias(self, anchor: str) -> tuple[str, str] | None:
        if any(anchor == other for other, _ in self.open):
            self.hopeless = True
            return f"*{anchor} stands in what it stands for", "write out what is meant"
        weight = self.weights.get(anchor, 1)
        self.total, self.added = self.total + weight, self.added + weight
        most = allowed(self.written)
        if self.added <= most:
            return None
        self.hopeless = True
        return f"its aliases stand for more than {most:,} values", "write out what is needed"


def allowed(written: int) -> int:
    """Return how many values may be added to so many that are written."""
    return max(ADDED, TIMES * written)


def _ambiguous(value: str) -> tuple[str, str] | None:
    """Return what is wrong with a plain scalar that YAML 1.1 takes for another number."""
    if _BASE_8.fullmatch(value):
        return f"{value!r} would be read to base 8", "write it without the 0, or quote it"
    if _BASE_60.fullmatch(value):
        return f"{value!r} would be read to base 60", "write seconds, or quote it"
    return None
