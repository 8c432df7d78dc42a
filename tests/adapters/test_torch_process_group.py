"""Gangs of real processes over gloo, and gangs that do not come together."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from types import SimpleNamespace

import pytest

from orchestrator.adapters import torch_process_group
from orchestrator.adapters.torch_process_group import open_process_group, threads
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import AttemptSettings
from orchestrator.worker.exception_report import describe
from tests.build import documented
from tests.ports import free_address, free_port

WORKER = """
import sys
from orchestrator.adapters.torch_process_group import open_process_group
rank = int(sys.argv[1])
with open_process_group(sys.argv[2], rank, 2, "gloo", cpu_threads=1):
    import torch
    ranks = torch.tensor([float(rank + 1)])
    torch.distributed.all_reduce(ranks)
    print(ranks.item(), torch.get_num_threads(), torch.distributed.get_world_size())
    if rank:
        torch.distributed.destroy_process_group()
assert not torch.distributed.is_initialized()
"""


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


def test_no_worker_goes_on_before_all_are_in() -> None:
    late = """
import sys, threading, time
from torch import distributed
from orchestrator.adapters.torch_process_group import open_process_group
join, address = distributed.init_process_group, sys.argv[2]
def slowly(*args, **more):
    join(*args, **more)
    global since
    since = time.monotonic()
    if sys.argv[1] == "0":
        threading.Event().wait(1.0)
distributed.init_process_group = slowly
with open_process_group(address, int(sys.argv[1]), 2, "cpu:gloo"):
    print(time.monotonic() - since)
"""
    address = free_address()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", late, str(rank), address], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    told = [worker.communicate(timeout=100)[0] for worker in workers]
    assert all(float(out) > 0.5 for out in told), told


def test_a_gang_meets_at_a_port_that_was_kept_open_since_its_address_was_told() -> None:
    code = (
        "import sys\nfrom orchestrator.node import rendezvous_port as rendezvous\n"
        "address = rendezvous.keep_open('127.0.0.1')\nprint(address, flush=True)\n"
        "sys.argv[2:] = [address]\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code + WORKER, "0"], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    address = first.stdout.readline().strip()
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", int(address.rpartition(":")[2])))
    second = subprocess.run([sys.executable, "-c", WORKER, "1", address], check=False, timeout=100)

    assert (first.wait(100), second.returncode) == (0, 0)
    assert first.stdout.read().split() == ["3.0", "1", "2"]
    first.stdout.close()


def test_a_port_that_another_has_at_the_moment_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_process_group, "CLASH_SECONDS", (0.0, 0.0, 0.0))
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        where = ("127.0.0.1", taken.getsockname()[1], 1)
        how = {"is_master": True, "timeout": timedelta(seconds=5)}
        with pytest.raises(RuntimeError, match="EADDRINUSE"):
            torch_process_group._open_store(*where, **how)
        monkeypatch.setattr(torch_process_group, "CLASH_SECONDS", iter((0.0,)))
        monkeypatch.setattr(
            torch_process_group.threading,
            "Event",
            lambda: SimpleNamespace(wait=lambda _: taken.close()),
        )
        assert torch_process_group._open_store(*where, **how).port == where[1]


def test_backends_take_the_interface_that_reaches_the_rendezvous_unless_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    variables = ("GLOO_SOCKET_IFNAME", "HCCL_SOCKET_IFNAME")
    monkeypatch.setattr(torch_process_group, "_chosen", {})
    for variable in variables:
        monkeypatch.setenv(variable, "")
    torch_process_group._use_interface_to("127.0.0.1", variables)
    assert {os.environ[variable][:2] for variable in variables} == {"lo"}  # noqa: TID251 - set for backends
    monkeypatch.setenv("HCCL_SOCKET_IFNAME", "eth7")
    torch_process_group._use_interface_to("127.0.0.1", variables)
    assert os.environ["HCCL_SOCKET_IFNAME"] == "eth7"  # noqa: TID251 - as above
    assert os.environ["GLOO_SOCKET_IFNAME"].startswith("lo")  # noqa: TID251 - as above


@pytest.mark.parametrize(("own", "limit"), [(None, "91"), ("1800", "1800")])
def test_the_makers_own_limit_is_that_of_an_operation_unless_the_environment_names_one(
    own: str | None, limit: str
) -> None:
    code = """
import os, sys
from orchestrator.adapters.torch_process_group import open_process_group
with open_process_group(sys.argv[2], int(sys.argv[1]), 2, "gloo",
                        limits={"HCCL_EXEC_TIMEOUT": "91"}):
    print(os.environ["HCCL_EXEC_TIMEOUT"])
"""
    address = free_address()
    environment = {**os.environ, **({"HCCL_EXEC_TIMEOUT": own} if own else {})}  # noqa: TID251 - of a worker
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), address],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    limits = [worker.communicate(timeout=100)[0].strip() for worker in workers]
    assert limits == [limit, limit]


def test_a_gang_waits_for_who_fetches_longer_than_it_may_take_to_meet() -> None:
    slow = """
import sys, threading
from orchestrator.adapters.torch_process_group import open_process_group
from orchestrator.core.settings import AttemptSettings
rank, waited = int(sys.argv[1]), []
fetch = threading.Event().wait if rank else lambda seconds: None
with open_process_group(sys.argv[2], rank, 2, "gloo", fetch=lambda: fetch(7.0),
                        go_on=lambda: waited.append(1), waits=AttemptSettings(meet=5.0)):
    print(bool(waited))
"""
    address = free_address()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", slow, str(rank), address], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    assert [worker.communicate(timeout=100)[0].strip() for worker in workers] == ["True", "False"]


def test_a_worker_that_shall_wait_no_longer_leaves_the_others() -> None:
    def enough() -> None:
        raise ConnectionAbortedError("the attempt was given up")

    code = (
        "import sys, threading; sys.argv[1:] = ['1', sys.argv[1]]\n"
        "from orchestrator.adapters.torch_process_group import open_process_group\n"
        "with open_process_group(sys.argv[2], 1, 2, 'gloo', fetch=threading.Event().wait): pass\n"
    )
    address = free_address()
    other = subprocess.Popen([sys.executable, "-c", code, address])
    try:
        with (
            pytest.raises(ConnectionAbortedError),
            open_process_group(address, 0, 2, "gloo", go_on=enough),
        ):
            pass
    finally:
        other.kill()
        other.wait()


def test_a_gang_of_one_does_not_import_torch() -> None:
    code = (
        "import sys; from orchestrator.adapters.torch_process_group import open_process_group\n"
        "with open_process_group(None, 0, 1, 'nccl', cpu_threads=4): pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_job_that_has_torch_gets_its_share_of_threads() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        with open_process_group(None, 0, 1, "gloo", cpu_threads=1):
            assert torch.get_num_threads() == 1
    finally:
        threads(before)


@pytest.mark.parametrize("rendezvous", [None, "", "host", "host:", ":80", "host:port"])
def test_a_gang_without_an_address_is_refused(rendezvous: str | None) -> None:
    with (
        pytest.raises(ValueError, match=r"rendezvous .* of 2 workers is no HOST:PORT"),
        open_process_group(rendezvous, 0, 2, "gloo"),
    ):
        pass


def test_a_gang_whose_other_half_does_not_come_ends_in_time() -> None:
    with (
        pytest.raises(RuntimeError) as caught,
        open_process_group(free_address(), 0, 2, "gloo", waits=AttemptSettings(meet=0.2)),
    ):
        pass
    assert describe(caught.value, documented()).kind is FailureKind.INTERCONNECT
