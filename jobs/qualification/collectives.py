"""What the chips do together: whether it is right, how fast it is, and who comes late.

Each collective runs many times at several sizes, on numbers that every worker can check. One that
is missing is said; one that breaks ends the attempt, since the others would wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
import torch.distributed as dist

from jobs.qualification.bench import FAILED, SKIPPED, TRAIN, Bench, one_line
from jobs.qualification.chips import bytes_of

Work: TypeAlias = Any  # `dist.Work`; torch leaves collectives untyped
_GB = 1e9
_ONLY = (TRAIN,)
# Below this nobody is late: a busy host lets a call wait as long.
_PUNCTUAL_SECONDS = 0.05
_LATE = 4.0
_PERIOD = 251  # small numbers, whose sums are exact in float32


@dataclass(frozen=True, slots=True)
class Ready:
    """A collective that is set up: how to begin it, whether its result is right, bytes moved."""

    begin: Callable[[], Work]
    right: Callable[[], bool]
    moved: float


def _of(rank: int, count: int, device: torch.device) -> torch.Tensor:
    """Return what worker `rank` puts in."""
    return (torch.arange(count, device=device, dtype=torch.float32) + rank) % _PERIOD


def _total(size: int, count: int, device: torch.device) -> torch.Tensor:
    return torch.stack([_of(rank, count, device) for rank in range(size)]).sum(0)


def _all_reduce(rank: int, size: int, count: int, device: torch.device) -> Ready:
    values, wanted = torch.empty(count, device=device), _total(size, count, device)

    def begin() -> Work:
        values.copy_(_of(rank, count, device))
        return dist.all_reduce(values, async_op=True)

    return Ready(begin, lambda: _same(values, wanted), 2 * (size - 1) / size * bytes_of(values))


def _all_gather(rank: int, size: int, count: int, device: torch.device) -> Ready:
    part = count // size
    mine, out = _of(rank, part, device), torch.empty(part * size, device=device)
    wanted = torch.cat([_of(other, part, device) for other in range(size)])

    def begin() -> Work:
        out.zero_()
        return dist.all_gather_into_tensor(out, mine, async_op=True)

    return Ready(begin, lambda: _same(out, wanted), (size - 1) / size * bytes_of(out))


def _reduce_scatter(rank: int, size: int, count: int, device: torch.device) -> Ready:
    part = count // size
    mine, out = _of(rank, part * size, device), torch.empty(part, device=device)
    wanted = _total(size, part * size, device)[rank * part : (rank + 1) * part]

    def begin() -> Work:
        out.zero_()
        return dist.reduce_scatter_tensor(out, mine, async_op=True)

    return Ready(begin, lambda: _same(out, wanted), (size - 1) / size * bytes_of(mine))


def _broadcast(rank: int, size: int, count: int, device: torch.device) -> Ready:
    root, values = size - 1, torch.empty(count, device=device)
    wanted = _of(root, count, device)

    def begin() -> Work:
        values.copy_(_of(rank, count, device))
        return dist.broadcast(values, src=root, async_op=True)

    return Ready(begin, lambda: _same(values, wanted), float(bytes_of(values)))


_COLLECTIVES: Mapping[str, Callable[[int, int, int, torch.device], Ready]] = MappingProxyType(
    {
        "all-reduce": _all_reduce,
        "all-gather": _all_gather,
        "reduce-scatter": _reduce_scatter,
        "broadcast": _broadcast,
    }
)


def _same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    return torch.equal(found.cpu(), wanted.cpu())


def check_collectives(bench: Bench) -> None:
    """Run every collective at several sizes, and look who keeps the others waiting."""
    size = bench.ctx.world_size
    if size == 1:
        note = "one worker has nobody to talk to"
        bench.say("collectives", "all", SKIPPED, note=note, roles=_ONLY)
        return
    late = 0.0
    for name, make in _COLLECTIVES.items():
        for count in _counts(bench):
            began = time.perf_counter()
            bench.step()
            pause = time.perf_counter() - began
            ready = make(bench.ctx.rank, size, count - count % size, bench.device)
            late = max(late, pause, _run(bench, f"{name} {_bytes(count * 4)}", ready))
    bench.say(
        "punctuality",
        "before collectives",
        figure=max(late, _PUNCTUAL_SECONDS),
        unit="s",
        spread=_LATE,
        roles=_ONLY,
    )


def _run(bench: Bench, subject: str, ready: Ready) -> float:
    """Repeat a collective; return the longest time that this worker took to begin one."""
    begins, whole, wrong = [], [], 0
    repeats = (5 if bench.quick else 50) if bench.real else (3 if bench.quick else 10)
    for _ in range(repeats):
        bench.finish()
        began = time.perf_counter()
        try:
            work = ready.begin()
        except NotImplementedError as error:
            bench.say("collectives", subject, FAILED, note=one_line(error), roles=_ONLY)
            return 0.0
        begun = time.perf_counter()
        if work is not None:
            work.wait()
        bench.finish()
        whole.append(time.perf_counter() - began)
        begins.append(begun - began)
        wrong += not ready.right()
    note = f"wrong in {wrong} of {repeats} repeats" if wrong else ""
    bench.say(
        "collectives",
        subject,
        FAILED if wrong else "passed",
        figure=ready.moved / max(median(whole), 1e-9) / _GB,
        unit="GB/s",
        note=note,
        roles=_ONLY,
    )
    return max(begins)


def _counts(bench: Bench) -> tuple[int, ...]:
    """Return how many numbers to send: little ones for a host in a chip's place."""
    if bench.real:
        return (1 << 12, 1 << 20, 1 << 26)
    return (1 << 12, 1 << 18)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"
