"""What follows a commit: done at once, and again for a while where a pool or a store raises.

An attempt whose end is committed must not go on because one call failed; an attempt that is
committed as started is asked for until that goes through.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.settings import PATIENT
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.ports import Clock

SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
UNTOLD = "calls of pools and stores were not answered at first"

GiveUp: TypeAlias = Callable[[Exception], None]


@dataclass(slots=True)
class _Act:
    call: Callable[[], object]
    give_up: GiveUp | None
    until: float
    due: float = 0.0
    pause: float = SHORTEST_PAUSE


class Effects:
    """Effects by name; one that is done anew under its name takes the place of the former."""

    def __init__(
        self, clock: Clock, best_effort: BestEffort, patience: float = PATIENT.retry
    ) -> None:
        """Owe nothing; each is tried for `patience` seconds."""
        self._clock, self._best_effort, self._patience = clock, best_effort, patience
        self._owed: dict[str, _Act] = {}

    def do(
        self,
        name: str,
        call: Callable[[], object],
        give_up: GiveUp | None = None,
        *,
        patience: float | None = None,
    ) -> None:
        """Act now, and later again where that fails; `give_up` takes the last error.

        What needs no pool has a `patience` of its own.
        """
        seconds = self._patience if patience is None else patience
        until = self._clock.monotonic() + seconds
        self._owed[name] = _Act(call, give_up, until)
        self._try(name)

    def drop(self, name: str) -> None:
        """Do it no more."""
        self._owed.pop(name, None)

    def again(self) -> None:
        """Act again where it is time for that."""
        for name in list(self._owed):
            act = self._owed.get(name)
            if act is not None and self._clock.monotonic() >= act.due:
                self._try(name)

    def settle(self) -> None:
        """Act until nothing is owed any more, no longer than a pool is asked in vain."""
        until = self._clock.monotonic() + self._patience
        for act in self._owed.values():
            act.until = min(act.until, until)
        while self._owed:
            self._clock.sleep(SHORTEST_PAUSE)
            self.again()

    def _try(self, name: str) -> None:
        act = self._owed[name]
        error = outcome(act.call).error
        if error is None:
            self._owed.pop(name, None)
            return
        self._best_effort.failed(UNTOLD, error)
        now = self._clock.monotonic()
        act.due, act.pause = now + act.pause, min(2 * act.pause, LONGEST_PAUSE)
        if now >= act.until:
            self._owed.pop(name, None)
            if act.give_up is not None:
                act.give_up(error)
