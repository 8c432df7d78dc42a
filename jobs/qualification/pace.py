"""Whether one chip lags behind the others, and whether all of them hold out for a while."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import torch
from torch import Tensor

from jobs.qualification.bench import BOTH, FAILED, LIMITED, PASSED, Bench
from jobs.qualification.layers import Work
from jobs.qualification.patterns import pattern

_SPREAD = 3.0
_OF_REAL = 1.2
_PUNCTUAL_SECONDS = 0.02  # below this no host is late: it is busy with others too
_SLOWER = 1.2  # a chip that grows so many times slower is throttled
_NEARLY_ALL = 0.9
_ROUND_SECONDS = 0.5
_SENT = 1 << 20  # numbers that are summed over the gang in each round


def check_pace(bench: Bench, works: Sequence[Work]) -> None:
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


def soak(bench: Bench, works: Sequence[Work], seconds: float) -> None:
    """Work for so long: every result is the first one again, bit by bit, and speed does not drop.

    The gang sums in between, where there are others.
    """
    if seconds <= 0:
        return
    wanted, rates, rounds, wrong, sums = _do(works), [], 0, 0, 0
    began = time.perf_counter()
    while bench.group.sum(_on(bench, time.perf_counter() - began < seconds)).item() > 0:
        count, since = 0, time.perf_counter()
        while time.perf_counter() - since < _ROUND_SECONDS:
            wrong += _differ(_do(works), wanted)
            count += 1
        rates.append(count / (time.perf_counter() - since))
        rounds += count
        sums += not _summed(bench)
        bench.step()
    strange = sum(not bool(result.isfinite().all()) for result in wanted)
    some = max(len(rates) // 4, 1)
    drop = median(rates[:some]) / max(median(rates[-some:]), 1e-9) if rates else 1.0
    status, note = PASSED, ""
    if strange:
        status, note = (
            FAILED,
            f"{strange} of {len(wanted)} results are no finite numbers",
        )
    elif (
        wrong > _NEARLY_ALL * rounds and not sums
    ):  # a fault comes now and then: this is how it adds up
        status, note = LIMITED, f"{wrong} of {rounds} results are others: no bit tells a fault"
    elif wrong or sums:
        status = FAILED
        note = (
            f"{wrong} of {rounds} results differ from the first, {sums} sums of the gang are wrong"
        )
    elif bench.real and drop > _SLOWER:
        status, note = LIMITED, f"{drop:.2f} times slower in the end"
    bench.say("soak", f"{seconds:g} s", status, figure=drop, note=note)


def _do(works: Sequence[Work]) -> list[Tensor]:
    return [result for work in works for result in work()]


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
    """Return whether to go on, as rank 0 says; the others add nothing to its word."""
    return torch.tensor([float(more and bench.ctx.rank == 0)], device=bench.device)
