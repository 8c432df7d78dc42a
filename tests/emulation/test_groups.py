"""Collectives over the chip's own backend, of two real processes on a plain CPU device."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.adapters.test_torch_gang import free_address

ROOT = Path(__file__).parents[2]


def collectives(rank: int, dist: Any, torch: Any) -> dict[str, Any]:
    """Do one of each kind, and return what came of it."""
    mine, found = torch.tensor([float(rank + 1)]), [torch.zeros(1), torch.zeros(1)]
    total, first, joined = mine.clone(), mine.clone(), torch.zeros(2)
    dist.all_reduce(total)
    dist.broadcast(first, src=0)
    dist.all_gather(found, mine)
    dist.all_gather_into_tensor(joined, mine)
    objects: list[Any] = [None, None]
    dist.all_gather_object(objects, {"rank": rank})
    dist.barrier()
    if rank == 0:
        dist.send(mine + 10, dst=1)
    else:
        dist.recv(mine, src=0)
    return {
        "sum": total.item(),
        "first": first.item(),
        "all": [one.item() for one in found],
        "joined": joined.tolist(),
        "objects": objects,
        "sent": mine.item(),
        "name": dist.get_backend(),
    }


def lost(rank: int, dist: Any, torch: Any) -> dict[str, Any]:
    """Have rank 1 lose its first collective."""
    from orchestrator.core.emulation import Fault, FaultType
    from orchestrator.emulation.chip import Chip, Outlets
    from orchestrator.emulation.schedule import Schedule, Worker
    from tests.fakes import FakeClock

    fault = Fault(what=FaultType.DROP, signature="hccl_timeout", at_step=1, rank=1, seconds=0.1)
    schedule = Schedule([fault], Worker(stage="s", attempt=1, rank=rank))
    outlets = Outlets(device=False, collectives=True)
    Chip(schedule, outlets, rank, FakeClock(), threading.Event()).reached(1)
    try:
        dist.all_reduce(torch.ones(1))
    except RuntimeError as error:
        return {"error": str(error)}
    return {}


def main(rank: int, address: str, what: Callable[..., dict[str, Any]]) -> None:
    """Be one of the two processes."""
    import torch
    from torch import distributed as dist

    from orchestrator.adapters.torch_gang import open_gang
    from orchestrator.core.emulation import Emulation
    from orchestrator.core.spec import Needs
    from orchestrator.emulation import provide
    from tests.build import accelerator, pool

    chip = accelerator(device="npu", backend="hccl")
    on = pool("ascend", chip=chip, emulation=Emulation(backend="hccl"))
    provide(on, Needs(workers=2))
    with open_gang(address, rank, 2, on.backend):
        print(json.dumps(what(rank, dist, torch)))


def two(what: str) -> list[dict[str, Any]]:
    address = free_address()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.emulation.test_groups", str(rank), address, what],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=110) for worker in started]
    assert all(out for out, _ in outputs), outputs
    return [json.loads(out) for out, _ in outputs]


def test_every_kind_of_collective_goes_over_the_backend_by_its_own_name() -> None:
    one, other = two("collectives")
    same = {"sum": 3.0, "first": 1.0, "all": [1.0, 2.0], "joined": [1.0, 2.0], "name": "hccl"}
    objects = {"objects": [{"rank": 0}, {"rank": 1}]}
    assert one == {**same, **objects, "sent": 1.0}
    assert other == {**same, **objects, "sent": 11.0}


def test_a_lost_collective_ends_in_the_timeout_of_the_chip_and_breaks_the_other_side() -> None:
    one, other = two("lost")
    assert "EI0002: " in other["error"]
    assert "closed" in one["error"].lower()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], {"collectives": collectives, "lost": lost}[sys.argv[3]])
