"""Workers of a gang over gloo, forked after the imports, which take longest.

`python -m tests.jobs.qualification.forked_gang SPEC`: the spec is that of `local_context.main`,
without a rank, and may have `workers`.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch
import torch._dynamo
import torch.distributed as dist
import transformers.models.llama.modeling_llama  # noqa: F401

import jobs.qualification.all_chips  # noqa: F401
from jobs.qualification import report
from jobs.qualification.bench import Bench
from jobs.qualification.links import check_links
from orchestrator.job import JobContext, Metrics
from tests.jobs import local_context

WORKERS = 2


def links(ctx: JobContext, *, names: list[str], broken: str = "") -> Metrics:
    """Check the links alone, of workers on nodes of these names; something may be `broken`."""
    bench = Bench(ctx, quick=True)
    with BROKEN[broken](ctx.rank):
        check_links(bench, names)
    return report.finish(bench)


@contextmanager
def sums_of_groups(_: int) -> Iterator[None]:
    """Have sums within a part of the gang be wrong in one number."""
    whole = dist.all_reduce

    def wrong(tensor: torch.Tensor, *args: Any, group: Any = None, **more: Any) -> Any:
        work = whole(tensor, *args, group=group, **more)
        if group is not None and tensor.is_floating_point():
            tensor[3] += 1
        return work

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dist, "all_reduce", wrong)
        yield


@contextmanager
def stuck_bit(rank: int) -> Iterator[None]:
    """Have the lowest bit of all that comes to worker 1 be 0."""
    whole = dist.batch_isend_irecv

    def stuck(ops: list[Any]) -> list[Any]:
        for work in whole(ops):
            work.wait()
        for op in ops:
            if rank == 1 and op.op is dist.irecv:
                op.tensor.view(torch.int32).bitwise_and_(~1)
        return []

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dist, "batch_isend_irecv", stuck)
        yield


BROKEN: dict[str, Callable[[int], AbstractContextManager[None]]] = {
    "": lambda _: nullcontext(),
    "sums": sums_of_groups,
    "bit": stuck_bit,
}


def main(spec: str) -> int:
    """Run the job in both; return how many failed."""
    torch.set_num_threads(1)
    told = json.loads(spec)
    told["world_size"] = told.pop("workers", WORKERS)
    return fork_all(told["world_size"], lambda rank: _work(told, rank))


def fork_all(workers: int, work: Callable[[int], int]) -> int:
    """Do `work` of each rank in a process of its own; return how many didn't end with 0."""
    children = [_fork(rank, work) for rank in range(workers)]
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


def _fork(rank: int, work: Callable[[int], int]) -> int:
    child = os.fork()
    if child:
        return child
    failed = 1
    try:
        failed = work(rank)
    except BaseException:  # noqa: BLE001 - the process ends here: nobody else would tell
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(failed)


def _work(spec: dict[str, Any], rank: int) -> int:
    local_context.main(json.dumps({**spec, "rank": rank}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
