"""Whether one chip lags behind the others, and whether all of them hold out for a while."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from jobs.qualification.bench import BOTH, FAILED, LIMITED, PASSED, SKIPPED, Bench
from jobs.qualification.layers import SteadyWork
from jobs.qualification.patterns import pattern

_SPREAD = 3.0
_OF_REAL = 1.2
_PUNCTUAL_SECONDS = 0.02  # below this no host is late: it is busy with others too
_SLOWER = 1.2  # a chip that grows so many times slower is throttled
_NEARLY_ALL = 0.9
_ROUND_SECONDS = 0.5
_SENT = 1 << 20  # numbers that are summed over the gang in each round


def check_pace(bench: Bench, works: Sequence[SteadyWork]) -> None:
    """Let each worker do the same work by itself; a step of the context is part of it."""
    taken = []
    bench.step()
    _do(works)
    for _ in range(4 if bench.quick else 12):
        began = time.perf_counter()
        _do(works)
        bench.finish()
        bench.step()
        taken.append(time.perf_counter() - began)
    bench.say(
        "pace",
        "a round of work",
        figure=median(taken) if bench.real else max(median(taken), _PUNCTUAL_SECONDS),
        unit="s",
        spread=_OF_REAL if bench.real else _SPREAD,
        roles=BOTH,
    )


def soak(bench: Bench, works: Sequence[SteadyWork], seconds: float) -> None:
    """Work for so long: every result is the first one again, bit by bit, and speed does not drop.

    The gang sums in between, where there are others. Without `seconds` it is said that none is
    tried.
    """
    if seconds <= 0:
        bench.say("soak", "none", SKIPPED, note="not tried at this depth (--soak SECONDS)")
        return
    pieces, rates, rounds, sums = [_SoakedWork(work) for work in works], [], 0, 0
    began = time.perf_counter()
    while bench.group.sum(_on(bench, time.perf_counter() - began < seconds)).item() > 0:
        count, since = 0, time.perf_counter()
        while time.perf_counter() - since < _ROUND_SECONDS:
            for piece in pieces:
                piece.repeat()
            count += 1
        rates.append(count / (time.perf_counter() - since))
        rounds += count
        sums += not _summed(bench)
        bench.step()
    some = max(len(rates) // 4, 1)
    drop = median(rates[:some]) / max(median(rates[-some:]), 1e-9) if rates else 1.0
    status, note = _judged(pieces, rounds, sums)
    if status == PASSED and bench.real and drop > _SLOWER:
        status, note = LIMITED, f"{drop:.2f} times slower in the end"
    bench.say("soak", f"{seconds:g} s", status, figure=drop, note=note)


class _SoakedWork:
    """A piece of work, and how often it gave something else than at first."""

    def __init__(self, work: SteadyWork) -> None:
        self._work = work
        self._first = work()
        self._last: list[Tensor] | None = None  # of those that differ from the first
        self.wrong, self.alike, self.inexact = 0, 0, int(self._is_inexact(self._first))
        self.strange = sum(not bool(result.isfinite().all()) for result in self._first)

    def repeat(self) -> None:
        """Do the work once more."""
        results = self._work()
        self.inexact += self._is_inexact(results)
        if not _differ(results, self._first):
            return
        self.wrong += 1
        self.alike += self._last is not None and not _differ(results, self._last)
        self._last = results

    def is_random(self, rounds: int) -> bool:
        """Whether results differ so often, and each from the last, that no bit tells a fault."""
        return self.wrong > _NEARLY_ALL * rounds and not self.alike

    def _is_inexact(self, results: Sequence[Tensor]) -> bool:
        return bool(self._work.exact) and _differ(results, self._work.exact)


def _judged(pieces: Sequence[_SoakedWork], rounds: int, sums: int) -> tuple[str, str]:
    """Return the status that follows, and what there is to know.

    A kernel that adds up in any order gives another result each time. A chip that is wrong for
    good gives the same wrong one again, and is wrong in products that are known.
    """
    strange = sum(piece.strange for piece in pieces)
    inexact = sum(piece.inexact for piece in pieces)
    wrong = [piece for piece in pieces if piece.wrong]
    if strange:
        return FAILED, f"{strange} results are no finite numbers"
    if inexact:
        return FAILED, f"{inexact} products of whole numbers are wrong, in {rounds} rounds"
    faults = [piece for piece in wrong if not piece.is_random(rounds)]
    most = max((piece.wrong for piece in faults or wrong), default=0)
    if faults or sums:
        differ = f"{most} of {rounds} results differ from the first"
        alike = max((piece.alike for piece in faults), default=0)
        again = f", {alike} of them as one before did" if alike else ""
        return FAILED, f"{differ}{again}, {sums} sums of the gang are wrong"
    if wrong:
        return LIMITED, f"{most} of {rounds} results are others: no bit tells a fault"
    return PASSED, ""


def _do(works: Sequence[SteadyWork]) -> None:
    for work in works:
        work()


def _differ(results: Sequence[Tensor], wanted: Sequence[Tensor]) -> bool:
    return not all(torch.equal(*pair) for pair in zip(results, wanted, strict=True))


def _summed(bench: Bench) -> bool:
    """Whether a sum over the gang is right."""
    if bench.group.size == 1:
        return True
    tables = pattern(bench.group.size, torch.float32, bench.device, bench.ctx.seed)
    count = _SENT if bench.real else _SENT >> 8
    total = bench.group.sum(tables.of(bench.ctx.rank, count))
    return torch.equal(total, tables.total(count))


def _on(bench: Bench, more: bool) -> torch.Tensor:  # noqa: FBT001 - one truth value
    """Return whether to go on, as rank 0 says; the others add nothing to its word.

    It is on the host: what is said so goes by gloo, whatever the chips' links do.
    """
    return torch.tensor([float(more and bench.ctx.rank == 0)])
