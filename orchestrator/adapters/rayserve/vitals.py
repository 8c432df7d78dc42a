"""Whether an engine server is well, by what is seen of it: its process alone does not tell.

A core that died may leave a server that answers; one that hangs says that it is well. So three
things count: the process, what it says of its health, and whether it makes tokens: where it has
made none for a while it is asked for one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from orchestrator.core.engines import EngineSpec

UNWELL = 3  # looks in a row at which it says so, or nothing
BAD_PROBES = 2  # in a row
_BROKEN = frozenset({"abort", "error"})


class Vitals:
    """The health of one engine, from looks and probes, each at a moment in seconds."""

    def __init__(self, spec: EngineSpec, now: float) -> None:
        self._spec = spec
        self._unwell = 0
        self._bad = 0
        self._tokens: float | None = None
        self._moved = now
        self.fault = ""

    def ended(self, how: str) -> None:
        """Its process is gone."""
        self._break(f"it ended {how}")

    def looked(self, now: float, unwell: str, tokens: float | None) -> None:
        """It said that it is `unwell` (empty: well), and has worked on so many tokens."""
        self._unwell = self._unwell + 1 if unwell else 0
        if self._unwell >= UNWELL:
            self._break(f"{unwell}, {self._unwell} times in a row")
        if tokens is not None and tokens != self._tokens:
            self._tokens, self._moved = tokens, now

    def is_silent(self, now: float) -> bool:
        """Whether it has made no token for so long that it is to be asked for one."""
        return bool(self._spec.probe) and now - self._moved >= self._spec.probe_seconds

    def probed(self, began: float, now: float, wrong: str) -> None:
        """A token was asked for at `began`; `wrong` is why there was none (empty: there was).

        While others got tokens it stood in a queue, and says nothing.
        """
        if not wrong:
            self._bad, self._moved = 0, max(self._moved, now)
            return
        if self._moved > began:
            return
        self._bad += 1
        if self._bad >= BAD_PROBES or now - began >= self._spec.deadline:
            self._break(f"asked for one token: {wrong}")

    def _break(self, why: str) -> None:
        self.fault = self.fault or f"engine {self._spec.name!r} is broken: {why}"


def wrong_in(answer: Mapping[str, Any]) -> str:
    """Return what is wrong with an answer of one token; empty where nothing is."""
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        return "the answer has no choices"
    finish = choice.get("finish_reason")
    if finish in _BROKEN:
        return f"it finished by {finish!r}"
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
    for value in values if isinstance(values, list) else ():
        if not isinstance(value, int | float) or not math.isfinite(value):
            return f"a log-probability is {value!r}"
    return ""
