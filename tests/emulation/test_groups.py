"""Collectives over the chip's own backend, of two real processes on a plain CPU device."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.emulation.reductions import refusals
from tests.adapters.test_torch_process_group import free_address

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
    from orchestrator.core.spec.emulation import Fault, FaultType
    from orchestrator.emulation.chip import EmulatedChip, Outlets
    from orchestrator.emulation.fault_schedule import AttemptRank, FaultSchedule
    from tests.fakes import FakeClock

    fault = Fault(what=FaultType.DROP, signature="hccl_timeout", at_step=1, rank=1, seconds=0.1)
    schedule = FaultSchedule([fault], AttemptRank(stage="s", attempt=1, rank=rank))
    outlets = Outlets(device=False, collectives=True)
    EmulatedChip(schedule, outlets, rank, FakeClock(), threading.Event()).reached(1)
    try:
        dist.all_reduce(torch.ones(1))
    except RuntimeError as error:
        return {"error": str(error)}
    return {}


TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64")
TYPES += ("float16", "bfloat16", "float32", "float64", "complex64")


def reductions(rank: int, dist: Any, torch: Any) -> dict[str, Any]:
    """Return what each kind of reduction says of each type; empty where it works."""
    told: dict[str, Any] = {}
    for name in TYPES:
        ones = torch.ones(2, dtype=getattr(torch, name))
        halves = (ones[:1].clone(), ones.clone())
        kinds: dict[str, Callable[[], Any]] = {
            "all_reduce": lambda given=ones: dist.all_reduce(given),
            "reduce": lambda given=ones: dist.reduce(given, dst=0),
            "reduce_scatter": lambda given=halves: dist.reduce_scatter_tensor(*given),
        }
        for kind, act in kinds.items():
            try:
                act()
            except (RuntimeError, TypeError) as error:
                told[f"{kind} {name}"] = f"{type(error).__name__}: {error}"
    ones = torch.ones(2, dtype=torch.uint8)
    dist.all_gather([ones.clone(), ones.clone()], ones)  # adds nothing up, and takes all
    return told


def sums(rank: int, dist: Any, torch: Any) -> dict[str, Any]:
    """Return what each kind of reduction makes of 1 + 2 and 5 + 6, by the types that it takes."""
    sums: dict[str, Any] = {}
    for name in TYPES:
        dtype = getattr(torch, name)
        given = (torch.tensor([1, 5]) + rank).to(dtype)
        total, first, part = given.clone(), given.clone(), given[:1].clone()
        try:
            dist.all_reduce(total)
            dist.reduce(first, dst=0)
            dist.reduce_scatter_tensor(part, given)
        except (RuntimeError, TypeError):
            continue
        assert (total.dtype, part.dtype) == (dtype, dtype)
        numbers = [*total.tolist(), *part.tolist(), *(first.tolist() if rank == 0 else [])]
        sums[name] = [float(number) for number in numbers]
    return sums


def main(rank: int, address: str, what: Callable[..., dict[str, Any]], asked: str) -> None:
    """Be one of the two processes, over the backend of `asked` (`hccl=int8,int16`)."""
    import torch
    from torch import distributed as dist

    from orchestrator.adapters.torch_process_group import open_process_group
    from orchestrator.core.spec.emulation import Emulation
    from orchestrator.core.spec.stages import Needs
    from orchestrator.emulation import provide
    from tests.build import accelerator, pool

    backend, _, types = asked.partition("=")
    reduces = tuple(filter(None, types.split(",")))
    chip = accelerator(device="npu", backend=backend, reduces=reduces)
    on = pool("ascend", chip=chip, emulation=Emulation(backend="own"))
    provide(on, Needs(workers=2))
    with open_process_group(address, rank, 2, on.backend):
        print(json.dumps(what(rank, dist, torch)))


def two(what: str, over: str = "hccl") -> list[dict[str, Any]]:
    address = free_address()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.emulation.test_groups", str(rank), address, what, over],
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


BYTES = "RuntimeError: HCCL AllReduce & Reduce: Unsupported data type at::kByte/at::kBool"
REFUSED = {
    "ascend_910c": {
        "bool": BYTES,
        "uint8": BYTES,
        "float64": "RuntimeError: HCCL AllReduce & Reduce: Unsupported data type at::kDouble",
        "complex64": "RuntimeError: Unsupported data type for HCCL process group",
    },
    "h100": {
        "int16": "TypeError: Input tensor data type is not supported for NCCL process group: "
        "Short",
    },
    "s5000": {
        "int16": "RuntimeError: Input tensor data type in not supported for MCCL process group: "
        "Short",
    },
    "mlu590": {"int16": "RuntimeError: Unsupported data type for CNCL process group"},
}


@pytest.mark.parametrize("chip", REFUSED)
def test_a_reduction_refuses_what_the_makers_own_refuses_in_its_words(chip: str) -> None:
    facts = yaml.safe_load((ROOT / "conf" / "accelerator" / f"{chip}.yaml").read_text())
    one, other = two("reductions", f"{facts['backend']}={','.join(facts['reduces'])}")
    assert one == other
    # torch makes numbers of complex ones itself, for an all-reduce
    expected = REFUSED[chip]
    assert {key: text for key, text in one.items() if "complex64" not in key} == {
        f"{kind} {name}": text
        for name, text in expected.items()
        for kind in ("all_reduce", "reduce", "reduce_scatter")
        if name != "complex64"
    }


CHIPS = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((ROOT / "conf/accelerator").glob("*.yaml"))
}
# One chip of each table: by its backend and its types.
TABLES = {
    (facts["backend"], tuple(facts["reduces"])): name
    for name, facts in CHIPS.items()
    if facts.get("reduces")
}


@pytest.mark.parametrize("chip", TABLES.values())
def test_each_type_of_a_makers_table_is_reduced(chip: str) -> None:
    types = CHIPS[chip]["reduces"]
    first, second = two("sums", f"{CHIPS[chip]['backend']}={','.join(types)}")
    assert set(first) == set(second) == {*types}
    one = [1.0, 1.0, 1.0, 1.0, 1.0]
    whole = {name: [3.0, 11.0, 3.0, 3.0, 11.0] for name in types}
    assert first == whole | ({"bool": one} if "bool" in types else {})
    parts = {name: [3.0, 11.0, 11.0] for name in types}
    assert second == parts | ({"bool": one[:3]} if "bool" in types else {})


def test_all_makers_whose_types_are_known_have_their_own_words() -> None:
    chips = [yaml.safe_load(p.read_text()) for p in (ROOT / "conf/accelerator").glob("*.yaml")]
    assert all(chip["source"].count("reductions: ") == ("reduces" in chip) for chip in chips)
    assert {chip["backend"] for chip in chips if chip.get("reduces")} == refusals().keys()
    assert all(refusal.source for refusal in refusals().values())


if __name__ == "__main__":
    kinds = {"collectives": collectives, "lost": lost, "reductions": reductions, "sums": sums}
    main(int(sys.argv[1]), sys.argv[2], kinds[sys.argv[3]], sys.argv[4])
