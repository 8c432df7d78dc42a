"""Whether one chip lags behind the others, and whether all of them hold out for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from jobs.qualification.bench import BOTH, FAILED, LIMITED, Bench

_SPREAD = 3.0
_OF_REAL = 1.2
_SLOWER = 1.2  # a chip that grows so many times slower is throttled
_ROUND_SECONDS = 0.5


def check_pace(bench: Bench) -> None:
    """Let each worker do the same work by itself; a step of the context is part of it."""
    work = _work(bench)
    taken = []
    bench.step()
    for _ in range(4 if bench.quick else 12):
        began = time.perf_counter()
        work()
        bench.step()
        taken.append(time.perf_counter() - began)
    bench.say(
        "pace",
        "a round of work",
        figure=median(taken),
        unit="s",
        spread=_OF_REAL if bench.real else _SPREAD,
        roles=BOTH,
    )


def soak(bench: Bench, seconds: float) -> None:
    """Work for so long: every result is the first one again, and speed does not drop."""
    if seconds <= 0:
        return
    work = _work(bench)
    wanted, rates, wrong = work(), [], 0
    began = time.perf_counter()
    while bench.gang.sum(_on(bench, time.perf_counter() - began < seconds)).item() > 0:
        count, since = 0, time.perf_counter()
        while time.perf_counter() - since < _ROUND_SECONDS:
            wrong += not torch.equal(work(), wanted)
            count += 1
        rates.append(count / (time.perf_counter() - since))
        bench.step()
    some = max(len(rates) // 4, 1)
    drop = median(rates[:some]) / max(median(rates[-some:]), 1e-9) if rates else 1.0
    note = f"{wrong} results differ from the first" if wrong else ""
    status = FAILED if wrong else "passed"
    if bench.real and drop > _SLOWER and not wrong:
        status, note = LIMITED, f"{drop:.2f} times slower in the end"
    bench.say("soak", f"{seconds:g} s", status, figure=drop, note=note)


def _on(bench: Bench, more: bool) -> torch.Tensor:  # noqa: FBT001 - one truth value
    """Return whether to go on, as rank 0 says; the others add nothing to its word."""
    return torch.tensor([float(more and bench.ctx.rank == 0)], device=bench.device)


def _work(bench: Bench) -> Callable[[], torch.Tensor]:
    """Return a piece of work, which gives the same result each time."""
    size, times = (4096, 8) if bench.real else (128, 64)
    generator = torch.Generator().manual_seed(2)
    left = torch.randn(size, size, generator=generator).to(bench.device)
    left = left / size**0.5

    def work() -> torch.Tensor:
        out: torch.Tensor = left
        for _ in range(times):
            out = left @ out
        return out.cpu()

    return work
