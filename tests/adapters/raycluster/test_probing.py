"""Many hosts are asked at once whether somebody listens there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from orchestrator.adapters.raycluster import probing
from orchestrator.adapters.raycluster.nodes import ClusterNodes
from orchestrator.adapters.raycluster.probing import Address
from orchestrator.adapters.rayqueries.cluster_tables import Node

SECONDS = 0.3


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def listener(held: ExitStack) -> Address:
    server = held.enter_context(socket.create_server(("127.0.0.1", 0)))
    return server.getsockname()


def silent(held: ExitStack) -> Address:
    """Return an address at which whoever connects waits: nobody takes those that came before."""
    server = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        waiting = held.enter_context(socket.socket())
        waiting.settimeout(0.0)
        waiting.connect_ex(server.getsockname())
    return server.getsockname()


def closed() -> Address:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()


def test_many_that_are_silent_take_the_time_of_one(held: ExitStack) -> None:
    there = {listener(held) for _ in range(3)}
    away = {*(silent(held) for _ in range(10)), closed()}

    began = time.monotonic()
    assert probing.listening(there | away, SECONDS) == there
    assert time.monotonic() - began < 3 * SECONDS


def test_where_all_answer_nobody_waits(held: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MOST_AT_ONCE", 2)
    addresses = {closed(), *(listener(held) for _ in range(5))}

    began = time.monotonic()
    assert len(probing.listening(addresses, 60.0)) == 5
    assert time.monotonic() - began < 5.0
    assert probing.listening((), 60.0) == set()


def test_nodes_stand_that_ray_counts_and_that_listen(held: ExitStack) -> None:
    address = {"up": listener(held), "down": closed(), "silent": silent(held)}
    live = [Node(name, name, *address[name], {}, {}, {}) for name in address]
    nodes = ClusterNodes(ask=lambda: live, ask_names=dict)

    assert nodes.standing({"up", "down", "silent", "unknown"}) == {"up"}
    assert nodes.standing({"unknown"}) == set()
