"""How a process gets into a cluster that is slow to let it in."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group

from orchestrator.adapters.raycluster import access, managed_ray, process
from orchestrator.core.errors import ClusterError

SLOW = "No node info found matching attributes: '10.0.0.1' when trying to resolve node to connect"


def connected(address: str, patience: float = 0.0) -> bool:
    """Connect to what listens at `address` and is no head of Ray."""
    return access.connect(address, patience, pauses=(0.0, 0.0), admitted=access.check)


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv(access._RECONNECT, "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def failing(monkeypatch: pytest.MonkeyPatch, *errors: Exception | None) -> list[Exception | None]:
    """Let joining fail with one of `errors` after the other; return those that are left."""
    left = list(errors)

    def init(**_: object) -> None:
        error = left.pop(0)
        if error is not None:
            raise error

    monkeypatch.setattr(ray, "init", init)
    return left


def test_a_node_that_ray_does_not_know_yet_is_asked_for_again(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = failing(monkeypatch, RuntimeError(SLOW), ConnectionError("it timed out"), None)

    assert connected(address)
    assert left == []


def test_what_no_patience_mends_is_told_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = failing(monkeypatch, RuntimeError("Version mismatch: 2.59 and 2.60\nmore"), None)

    with pytest.raises(ClusterError, match=r"can't be joined: Version mismatch: 2\.59 and 2\.60$"):
        connected(address)
    assert len(left) == 1


def test_who_is_slow_for_ever_is_told_in_the_end(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = failing(monkeypatch, *(RuntimeError(SLOW) for _ in range(4)))

    with pytest.raises(ClusterError, match="No node info found"):
        connected(address)
    assert len(left) == 1, "three tries"


def test_ray_waits_for_its_head_for_longer_than_the_product(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(access._RECONNECT)
    failing(monkeypatch, None)
    connected(address, patience=120.0)

    assert int(os.environ[access._RECONNECT]) > 120  # noqa: TID251 - Ray reads it there


@pytest.mark.ray
def test_who_asks_after_the_process_has_left_starts_no_cluster_of_its_own(ray_home: Path) -> None:
    found = managed_ray.find(ray_home)
    assert found is not None
    assert access.connect(found.address)
    group = placement_group([{"CPU": 1.0}])
    remove_placement_group(group)
    ray.shutdown()

    with pytest.raises(RayError, match="not been started"):
        group.wait(1.0)
    with pytest.raises(RayError, match="not been started"):
        ray.nodes()  # noqa: TID251 - Ray itself
    with pytest.raises(ConnectionError, match="has left its Ray cluster"):
        process.forget("run/stage/1")
    assert not ray.is_initialized()


def test_a_process_leaves_no_cluster_while_a_thread_of_ours_asks_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray would end the process: `core_worker_process.cc` leaves by `_exit`."""
    told, ends = [], threading.Event()
    monkeypatch.setattr(ray, "shutdown", lambda: told.append("left"))
    thread = threading.Thread(target=ends.wait, name=f"{access.ASKS}run/stage/1", daemon=True)
    thread.start()

    assert not access.leave(0.1)
    assert told == []
    ends.set()
    assert access.leave(10.0)
    assert told == ["left"]
