"""Which faults come at which step: a function of faults, attempt, rank and seed alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.core.spec.emulation import Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRank:
    """The worker of an attempt that a schedule is for."""

    stage: str
    attempt: int
    rank: int


class FaultSchedule:
    """The faults of one worker. A job names its steps in order, maybe not every one."""

    def __init__(self, faults: Iterable[Fault], worker: AttemptRank) -> None:
        """Take those of `faults` that can hit `worker`."""
        self._worker = worker
        self._faults = [(n, f) for n, f in enumerate(faults) if _can_hit(f, worker)]
        self._last = -1

    def resume(self, step: int) -> None:
        """Note that the job goes on after `step`: what was due until then has been."""
        self._last = max(self._last, step)

    def due(self, step: int) -> list[Fault]:
        """Return the faults of all steps after the last that was named, up to `step`."""
        since, self._last = self._last, max(self._last, step)
        return [fault for number, fault in self._faults if self._comes(number, fault, since, step)]

    def _comes(self, number: int, fault: Fault, since: int, step: int) -> bool:
        if fault.at_step is not None:
            return since < fault.at_step <= step
        rate = fault.rate or 0.0
        return any(self._draw(number, fault.seed, n) < rate for n in _steps(since, step))

    def _draw(self, number: int, seed: int, step: int) -> float:
        """Return a number from 0 to 1 that depends on nothing but what it is drawn for."""
        worker = self._worker
        text = f"{seed}/{number}/{worker.stage}/{worker.attempt}/{worker.rank}/{step}"
        raw = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(raw) / 2**64


def _can_hit(fault: Fault, worker: AttemptRank) -> bool:
    rank = fault.rank is None or fault.rank == worker.rank
    attempt = fault.attempts is None or worker.attempt <= fault.attempts
    return rank and attempt and (not fault.stages or worker.stage in fault.stages)


def _steps(since: int, step: int) -> Iterator[int]:
    """Yield the steps after `since`; 0 is the time before the first one, and draws nothing."""
    yield from range(max(since, 0) + 1, step + 1)
