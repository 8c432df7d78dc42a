"""Patterns: sums in closed form, exact in each number type, for thousands of workers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jobs.qualification.bench import FAILED, PASSED, Bench
from jobs.qualification.collectives import (
    CollectiveCase,
    Ready,
    _all_gather,
    _all_to_all,
    _broadcast,
    _pass_on,
    _run,
    check_collectives,
)
from jobs.qualification.patterns import PERIOD, pattern
from tests.jobs.local_context import LocalContext

CPU = torch.device("cpu")
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int32, torch.int64)
MANY = 2048


@pytest.mark.parametrize("size", [1, 2, 3, 250, 251, 252, 600])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_the_closed_form_is_the_sum_and_the_greatest_of_all_workers(
    size: int, dtype: torch.dtype
) -> None:
    tables, count, start = pattern(size, dtype, CPU), 1000, 77
    given = torch.stack([tables.of(rank, count) for rank in range(size)])
    assert torch.equal(tables.total(count).double(), given.double().sum(0))
    assert torch.equal(tables.total(count - start, start).double(), given.double().sum(0)[start:])
    assert torch.equal(tables.most(count), given.max(0).values)
    assert torch.equal(tables.of(1, 10, 5), tables.of(1, 15)[5:])
    assert len(set(tables.values.tolist())) > 5


@pytest.mark.parametrize("dtype", TYPES[:3], ids=str)
def test_sums_of_2048_workers_are_exact_in_any_order(dtype: torch.dtype) -> None:
    tables = pattern(MANY, dtype, CPU)
    given = torch.stack([tables.of(rank, PERIOD) for rank in range(MANY)])
    for order in (torch.arange(MANY), torch.arange(MANY).flip(0), torch.randperm(MANY)):
        total = torch.zeros(PERIOD, dtype=dtype)
        for row in given[order]:
            total += row
        assert torch.equal(total, tables.total(PERIOD))


def test_too_many_workers_for_sums_that_are_exact_are_refused() -> None:
    with pytest.raises(ValueError, match="size=100000 workers are too many"):
        pattern(100_000, torch.bfloat16, CPU)


@pytest.mark.parametrize("bit", range(16))
@pytest.mark.parametrize(
    "make", [_all_gather, _all_to_all, _broadcast, _pass_on], ids=lambda make: make.__name__
)
def test_each_bit_that_a_link_holds_or_swaps_is_found(
    tmp_path: Path, make: Callable[[CollectiveCase], Ready], bit: int
) -> None:
    ready = make(CollectiveCase(0, 2, pattern(2, torch.bfloat16, CPU, seed=7), 1000))
    mask, low = 1 << bit if bit < 15 else -(1 << 15), 1 << (bit + 1) % 15

    def carry(out: Tensor, *, stuck: int = 0, swapped: bool = False) -> list[Any]:
        words = ready.wanted.clone().view(torch.int16)
        if swapped:
            one, other = (words & mask) != 0, (words & low) != 0
            words = torch.where(one != other, words ^ mask ^ low, words)
        out.view(torch.int16).copy_(words & ~stuck)
        return []

    kinds: tuple[dict[str, Any], ...] = ({}, {"stuck": mask}, {"swapped": True})
    for fault in kinds:
        bench = Bench(LocalContext(folder=tmp_path), quick=True)
        done = partial(carry, **fault)
        _run(bench, "bits", replace(ready, begin=lambda _, out, done=done: done(out)))
        assert bench.findings[0].status == (FAILED if fault else PASSED)


def test_a_collective_that_leaves_what_was_there_is_wrong(tmp_path: Path) -> None:
    ready = _all_gather(CollectiveCase(0, 2, pattern(2, torch.float32, CPU, seed=7), 1000))
    calls = iter(range(10))

    def once(_: Tensor, out: Tensor) -> list[Any]:
        if next(calls) == 0:
            out.copy_(ready.wanted)
        return []

    bench = Bench(LocalContext(folder=tmp_path), quick=True)
    _run(bench, "once", replace(ready, begin=once))
    assert bench.findings[0].note == "wrong in 2 of 3 repeats"


class Alive(TorchDispatchMode):
    """Keeps the most bytes that are alive at once, of all that operators make."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._held: dict[int, tuple[weakref.ref[Any], int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._hold(leaf.untyped_storage())
        self.bytes = max(self.bytes, sum(size for _, size in self._held.values()))
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._held:
            gone = weakref.ref(storage, lambda _: self._held.pop(key, None))
            self._held[key] = gone, storage.nbytes()


def test_all_that_is_alive_is_counted_and_nothing_else() -> None:
    with Alive() as alive:
        for _ in range(3):
            both = [torch.ones(1000), torch.ones(1000)]
            both[0].view(10, 100)
            del both
    assert alive.bytes == 8000


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Bench]:
    """One worker of 2,048 whose group sends nothing, as torch's own tests have it."""
    dist.init_process_group("fake", rank=5, world_size=MANY, store=FakeStore())
    yield Bench(LocalContext(folder=tmp_path, rank=5, world_size=MANY), quick=True)
    dist.destroy_process_group()


def test_a_worker_among_2048_needs_no_more_memory_than_one_of_two(
    crowd: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.qualification.collectives.check_links", lambda _: None)
    with Alive() as alive:
        check_collectives(crowd)
    most = 4 * (1 << 20)
    assert alive.bytes <= most, "what is sent, what comes, what must come, and what makes one"
    # nothing is summed: what the fake leaves as it was is seen to be wrong
    bad = {one.subject for one in crowd.findings if one.status == FAILED}
    assert "all-reduce float32 1 MiB" in bad
    assert "send and receive bfloat16 1 MiB" in bad
