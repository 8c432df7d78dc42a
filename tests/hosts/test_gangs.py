"""A gang over two hosts trains, whatever the names of the hosts resolve to."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

import pytest

from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import Network, Process, lacking, several_hosts

pytestmark = pytest.mark.services

# A worker: it meets the others at an address, or opens one on its own host.
WORKER = """
import json, os, sys
from orchestrator.adapters.torch_process_group import open_process_group
from orchestrator.node import rendezvous_port
rank, where = int(sys.argv[1]), sys.argv[2]
address = where if rank else rendezvous_port.keep_open(where)
print("address", address, flush=True)
with open_process_group(address, rank, 2, "gloo", interface_variable="NCCL_SOCKET_IFNAME"):
    import torch
    total = torch.tensor([float(rank + 1)])
    torch.distributed.all_reduce(total)
    names = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
    print(json.dumps([total.item(), *(os.environ.get(name) for name in names)]))
"""
NAMES = {
    "loopback": "127.0.0.1 localhost\n127.0.1.1 {name}\n",
    "nothing": "127.0.0.1 localhost\n",
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if why := lacking():
        pytest.skip(why)
    with several_hosts(2, tmp_path_factory.mktemp("logs")) as network:
        yield network


@pytest.mark.parametrize("names", NAMES)
def test_a_gang_over_two_hosts_meets_by_the_interface_between_them(
    network: Network, names: str
) -> None:
    first, second = network.hosts
    for host in network.hosts:
        host.path("/run/hosts").write_text(NAMES[names].format(name=host.name))
    worker = (sys.executable, "-c", WORKER)
    leader = first.start(*worker, "0", first.address, name=names)
    assert wait(lambda: bool(_address(leader)), 60.0, tick=0.1), leader.printed()
    follower = second.start(*worker, "1", _address(leader), name=names, NCCL_SOCKET_IFNAME="lo")
    assert (leader.finish(60.0), follower.finish(60.0)) == (0, 0), (
        leader.printed() + follower.printed()
    )
    assert _said(leader) == [3.0, "eth0", "eth0"]
    assert _said(follower) == [3.0, "eth0", "lo"], "what the user sets stays"


def _address(process: Process) -> str:
    match = re.search(r"^address (\S+)$", process.printed(), re.MULTILINE)
    return match.group(1) if match else ""


def _said(process: Process) -> list[object]:
    said: list[object] = json.loads(process.printed().splitlines()[-1])
    return said
