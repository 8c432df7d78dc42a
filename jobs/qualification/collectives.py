"""What the chips do together: whether it is right, how fast it is, and who comes late.

Each collective that training uses runs many times at several sizes, in the number types that it is
used with: sums on whole numbers whose sum every worker knows, all else on random bits. One that is
missing is said; one that breaks ends the attempt, since the others would wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from jobs.qualification.bench import FAILED, PASSED, SKIPPED, TRAIN, Bench, one_line
from jobs.qualification.coverage import missing
from jobs.qualification.links import check_links
from jobs.qualification.patterns import Pattern, pattern, same_bits

Work: TypeAlias = Any  # `dist.Work`; torch leaves collectives untyped
_GB = 1e9
_ONLY = (TRAIN,)
# Below this nobody is late: a busy host lets a call wait as long.
_PUNCTUAL_SECONDS = 0.05
_LATE = 4.0
# Makers' releases of torch may be older than those names.
_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@dataclass(frozen=True, slots=True)
class CollectiveCase:
    """A worker among `size`, what all of them put in, and `count` numbers to be sent."""

    rank: int
    size: int
    pattern: Pattern
    count: int

    @property
    def mine(self) -> Tensor:
        """What this worker puts in where that is summed, [count]."""
        return self.pattern.of(self.rank, self.count)

    @property
    def moved(self) -> Tensor:
        """What this worker puts in where that is only moved, [count]."""
        return self.pattern.bits(self.rank, self.count)

    @property
    def part(self) -> int:
        """The numbers that each worker gets where they are dealt out."""
        return self.count // self.size

    def dealt(self, start: int = 0) -> Tensor:
        """Return a part of each worker's numbers from place `start` on, one after the other."""
        values = self.pattern.values
        dealt = torch.empty(self.size, self.part, dtype=values.dtype, device=values.device)
        for rank in range(self.size):
            dealt[rank] = self.pattern.bits(rank, self.part, start)
        return dealt.flatten()


@dataclass(frozen=True, slots=True)
class Ready:
    """A collective that is set up.

    Attributes:
        begin: Begins it: `payload` into `out`.
        payload: What this worker puts in.
        out: What comes out; where it is as long as `payload`, it begins as a copy of that.
        wanted: What must come out.
        moved: Bytes that a worker sends, as share of those of the larger one.
    """

    begin: Callable[[Tensor, Tensor], Work | list[Work]]
    payload: Tensor
    out: Tensor
    wanted: Tensor
    moved: float


def _all_reduce(at: CollectiveCase) -> Ready:
    payload = at.mine
    return Ready(
        lambda _, out: dist.all_reduce(out, async_op=True),
        *(payload, torch.empty_like(payload), at.pattern.total(at.count)),
        2 * (at.size - 1) / at.size,
    )


def _largest(at: CollectiveCase) -> Ready:
    payload = at.mine
    return Ready(
        lambda _, out: dist.all_reduce(out, op=dist.ReduceOp.MAX, async_op=True),
        *(payload, torch.empty_like(payload), at.pattern.most(at.count)),
        2 * (at.size - 1) / at.size,
    )


def _all_gather(at: CollectiveCase) -> Ready:
    payload, wanted = at.pattern.bits(at.rank, at.part), at.dealt()
    return Ready(
        lambda payload, out: _gather(out, payload, async_op=True),
        *(payload, torch.empty_like(wanted), wanted),
        (at.size - 1) / at.size,
    )


def _reduce_scatter(at: CollectiveCase) -> Ready:
    wanted = at.pattern.total(at.part, at.rank * at.part)
    return Ready(
        lambda payload, out: _scatter(out, payload, async_op=True),
        *(at.mine, torch.empty_like(wanted), wanted),
        (at.size - 1) / at.size,
    )


def _broadcast(at: CollectiveCase) -> Ready:
    root, payload = at.size - 1, at.moved
    return Ready(
        lambda _, out: dist.broadcast(out, src=root, async_op=True),
        *(payload, torch.empty_like(payload), at.pattern.bits(root, at.count)),
        1.0,
    )


def _all_to_all(at: CollectiveCase) -> Ready:
    payload = at.moved
    return Ready(
        lambda payload, out: dist.all_to_all_single(out, payload, async_op=True),
        *(payload, torch.empty_like(payload), at.dealt(at.rank * at.part)),
        (at.size - 1) / at.size,
    )


def _pass_on(at: CollectiveCase) -> Ready:
    """Send to the next worker what the one before sends here, as stages of a pipeline do."""
    after, before = (at.rank + 1) % at.size, (at.rank - 1) % at.size

    def begin(payload: Tensor, out: Tensor) -> list[Work]:
        both = [dist.P2POp(dist.isend, payload, after), dist.P2POp(dist.irecv, out, before)]
        return list(dist.batch_isend_irecv(both))

    wanted = at.pattern.bits(before, at.count)
    return Ready(begin, at.moved, torch.empty_like(wanted), wanted, 1.0)


_FLOAT, _BF16 = torch.float32, torch.bfloat16
# Each collective with the number types that training uses it with.
COLLECTIVES: tuple[tuple[str, Callable[[CollectiveCase], Ready], tuple[torch.dtype, ...]], ...] = (
    ("all-reduce", _all_reduce, (_FLOAT, _BF16)),
    ("all-reduce (max)", _largest, (torch.int32, torch.int64)),
    ("all-gather", _all_gather, (_FLOAT, _BF16)),
    ("reduce-scatter", _reduce_scatter, (_FLOAT, _BF16)),
    ("broadcast", _broadcast, (_FLOAT,)),
    ("all-to-all", _all_to_all, (_BF16,)),
    ("send and receive", _pass_on, (_BF16,)),
)


def check_collectives(bench: Bench) -> None:
    """Run every collective at several sizes, and look who keeps the others waiting."""
    if bench.ctx.world_size == 1:
        note = "one worker has nobody to talk to"
        bench.say("collectives", "all", SKIPPED, note=note, roles=_ONLY)
        return
    late = 0.0
    for name, make, dtypes in COLLECTIVES:
        for dtype in dtypes:
            for size in _sizes(bench):
                began = time.perf_counter()
                bench.step()
                pause = time.perf_counter() - began
                subject = f"{name} {str(dtype).removeprefix('torch.')} {_bytes(size)}"
                at = place(bench, dtype, size // dtype.itemsize)
                late = max(late, pause, _run(bench, subject, make(at)))
    bench.say(
        "punctuality",
        "before collectives",
        figure=max(late, _PUNCTUAL_SECONDS),
        unit="s",
        spread=_LATE,
        roles=_ONLY,
    )
    bench.step()
    check_links(bench)


def place(bench: Bench, dtype: torch.dtype, count: int) -> CollectiveCase:
    """Return this worker's place; `count` becomes a number that can be dealt out."""
    size = bench.ctx.world_size
    whole = max(count - count % size, size)
    tables = pattern(size, dtype, bench.device, bench.ctx.seed)
    return CollectiveCase(bench.ctx.rank, size, tables, whole)


def _run(bench: Bench, subject: str, ready: Ready) -> float:
    """Repeat a collective; return the longest time that this worker took to begin one."""
    begins, whole, wrong = [], [], 0
    repeats = (5 if bench.quick else 50) if bench.real else (3 if bench.quick else 10)
    for _ in range(repeats):
        if ready.out.shape == ready.payload.shape:
            ready.out.copy_(ready.payload)
        else:
            ready.out.zero_()  # not what came out before
        bench.finish()
        began = time.perf_counter()
        try:
            work = ready.begin(ready.payload, ready.out)
        except RuntimeError as error:
            if not missing(error):
                raise
            bench.say("collectives", subject, FAILED, note=one_line(error), roles=_ONLY)
            return 0.0
        begun = time.perf_counter()
        for handle in _works(work):
            handle.wait()
        bench.finish()
        whole.append(time.perf_counter() - began)
        begins.append(begun - began)
        wrong += not same_bits(ready.out, ready.wanted)
    note = f"wrong in {wrong} of {repeats} repeats" if wrong else ""
    moved = ready.moved * max(ready.payload.nbytes, ready.out.nbytes)
    bench.say(
        "collectives",
        subject,
        FAILED if wrong else PASSED,
        figure=moved / max(median(whole), 1e-9) / _GB,
        unit="GB/s",
        note=note,
        roles=_ONLY,
    )
    return max(begins)


def _works(work: Work | list[Work]) -> Sequence[Work]:
    return work if isinstance(work, list) else [work] if work is not None else []


def _sizes(bench: Bench) -> tuple[int, ...]:
    """Return how many bytes to send: few for a host in a chip's place."""
    return (1 << 14, 1 << 22, 1 << 28) if bench.real else (1 << 14, 1 << 20)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count} B"
