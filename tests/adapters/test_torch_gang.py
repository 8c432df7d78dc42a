"""Gangs of real processes over gloo, and gangs that do not come together."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from orchestrator.adapters.torch_gang import open_gang, threads
from orchestrator.core.classify import kind_of
from orchestrator.core.failure import FailureKind
from tests.build import documented

WORKER = """
import sys
from orchestrator.adapters.torch_gang import open_gang
rank = int(sys.argv[1])
with open_gang(sys.argv[2], rank, 2, "gloo", cpu_threads=1):
    import torch
    ranks = torch.tensor([float(rank + 1)])
    torch.distributed.all_reduce(ranks)
    print(ranks.item(), torch.get_num_threads(), torch.distributed.get_world_size())
    if rank:
        torch.distributed.destroy_process_group()
assert not torch.distributed.is_initialized()
"""


def free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_gang_of_processes_reduces_over_its_group() -> None:
    address = free_address()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    told = [worker.communicate(timeout=100) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], told
    assert [out.split() for out, _ in told] == [["3.0", "1", "2"]] * 2


def test_a_gang_of_one_does_not_import_torch() -> None:
    code = (
        "import sys; from orchestrator.adapters.torch_gang import open_gang\n"
        "with open_gang(None, 0, 1, 'nccl', cpu_threads=4): pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_job_that_has_torch_gets_its_share_of_threads() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        with open_gang(None, 0, 1, "gloo", cpu_threads=1):
            assert torch.get_num_threads() == 1
    finally:
        threads(before)


@pytest.mark.parametrize("rendezvous", [None, "", "host", "host:", ":80", "host:port"])
def test_a_gang_without_an_address_is_refused(rendezvous: str | None) -> None:
    with (
        pytest.raises(ValueError, match=r"rendezvous .* of 2 workers is no HOST:PORT"),
        open_gang(rendezvous, 0, 2, "gloo"),
    ):
        pass


def test_a_gang_whose_other_half_does_not_come_ends_in_time() -> None:
    with (
        pytest.raises(RuntimeError) as caught,
        open_gang(free_address(), 0, 2, "gloo", setup_seconds=0.2),
    ):
        pass
    kind = kind_of(f"{type(caught.value).__name__}: {caught.value}", documented())
    assert kind is FailureKind.INTERCONNECT
