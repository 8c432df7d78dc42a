"""vLLM over two nodes of emulated pools: one process leads, the other follows it without a port.

By hand, as `test_engine_servers.py` says. The tests are chapters of one story: an endpoint whose
tensors lie on two nodes loses the one that follows, then its replica, and is moved to another pool
whose two nodes each have a copy of the model.
"""

from __future__ import annotations

import time

import psutil
import pytest

from orchestrator.supervisor.record import wait
from tests.chaos.clients import Load
from tests.chaos.vllm_server import (
    BY_HAND,
    HEADS,
    MODEL,
    OPTIONS,
    PYTHON,
    SECONDS,
    SERVE,
    Ports,
    answers,
    launch,
    servers,
    switch,
)
from tests.conftest import Workplace

pytestmark = BY_HAND

TWO_NODES = tuple(
    f"fleet.pools.{pool}.{size}"
    for pool in ("nvidia", "ascend")
    for size in ("nodes=2", "devices_per_node=1")
)


@pytest.fixture(scope="module")
def base(workplace: Workplace, ports: Ports) -> str:
    """The address of a gateway behind which vLLM serves on both nodes of pool `ascend`."""
    launch(workplace, ports, "pipeline=smoke", HEADS, f"+{SERVE}.needs.devices=2", *TWO_NODES)
    return f"http://127.0.0.1:{ports[0]}/v1"


def followers() -> list[psutil.Process]:
    """Return the processes that follow a server on another node."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "--headless" in words and words[0] == str(PYTHON):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def actor_of(engine: psutil.Process) -> psutil.Process:
    """Return the process of Ray that started an engine."""
    parent = engine.parent()
    assert parent is not None
    return parent


def runs(process: psutil.Process) -> bool:
    """Return whether a process does anything: what nobody has waited for does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def pair() -> tuple[psutil.Process, psutil.Process]:
    """Return the process that leads and the one that follows, once there is one of each."""
    assert wait(lambda: len(servers()) == len(followers()) == 1, SECONDS, tick=0.5)
    return servers()[0], followers()[0]


def replaced(base: str, before: tuple[psutil.Process, psutil.Process]) -> float:
    """Wait until others have the place of both, and answer; return after how many seconds."""
    began = time.monotonic()

    def others() -> bool:
        now = {*servers(), *followers()}
        return len(now) == len(before) and not now & {*before} and answers(base)

    assert wait(others, SECONDS, tick=0.5)
    return time.monotonic() - began


def test_the_tensors_of_a_replica_lie_on_two_nodes(base: str) -> None:
    server, follower = pair()
    words = server.cmdline()
    told = {name: words[words.index(f"--{name}") + 1] for name in ("nnodes", "node-rank")}
    assert told == {"nnodes": "2", "node-rank": "0"}
    assert words[words.index("--tensor-parallel-size") + 1] == "2"
    assert actor_of(server).parent() != actor_of(follower).parent(), "the raylets of two nodes"
    assert answers(base)


def test_a_replica_whose_follower_is_killed_is_replaced_though_its_server_says_it_is_well(
    base: str,
) -> None:
    before = pair()
    before[1].kill()
    print(f"\na killed follower: answers again after {replaced(base, before):.1f} s")


def test_followers_end_with_a_killed_replica(base: str) -> None:
    before = pair()
    parts = [before[1], *before[1].children(recursive=True)]
    actor_of(before[0]).kill()
    began = time.monotonic()
    assert wait(lambda: not any(map(runs, parts)), 60.0, tick=0.2)
    print(f"\na killed replica: its follower gone after {time.monotonic() - began:.1f} s")
    print(f"answers again after {replaced(base, before):.1f} s")


def test_a_switch_to_copies_on_two_nodes_of_another_pool_fails_no_request(
    workplace: Workplace, base: str
) -> None:
    options = f"{SERVE}.endpoint.engine_options={{{OPTIONS}, data-parallel-size: 2}}"
    with Load(base, MODEL, 2) as load:
        switch(workplace, "pool=nvidia", options)
    print(f"\nfrom tensors on two nodes to copies on two others: {load.line}")
    assert load.failures == []
    server, _ = pair()
    assert "--data-parallel-size" in server.cmdline()


def test_nothing_is_left_on_either_node(workplace: Workplace, base: str) -> None:
    assert answers(base)
    done = workplace.run("down", seconds=120.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert wait(lambda: not servers() and not followers(), 60.0, tick=0.5)
