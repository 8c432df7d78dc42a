"""The process of a worker, as others of the cluster know it: to look after it, or to end it.

A process is known by its node, its number there and its birth, so that no other one is ever meant.
Before it does anything it is noted in the cluster's own store under the key of its attempt: what
it says itself may be lost when it dies, and a controller that takes a run over has to end what the
one before it started. The placement group of an attempt has the attempt's key as its name.
"""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray import PlacementGroupID
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.util.placement_group import (
    PlacementGroup,
    get_placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.adapters.raycluster.access import NAMESPACE
from orchestrator.adapters.raycluster.cgroup import oom_kills
from orchestrator.adapters.raycluster.nodes import of_pool
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.core.spec.hardware import Pool
from orchestrator.node.node_identity import identify
from orchestrator.supervisor import record

_STREAMS = (1, 2)
_IDENTITY_SECONDS = 60.0  # a driver may have to wake its chips, and a process to start
_BUSY = (RayError, ConnectionError, RuntimeError)


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """A process on the node with id `node`, in the placement group with id `group`, if in one.

    `files` take what it writes, each after so many bytes that are not of this attempt. So often
    had the kernel ended others of its container for want of memory (`oom_kills`) when it began.
    `software` has the versions that it runs, by name.
    """

    node: str
    pid: int
    birth: str | None
    group: str | None = None
    files: tuple[tuple[str, int], ...] = ()
    oom_kills: int | None = None
    software: Mapping[str, str] = field(default_factory=dict)


def here(node: str, software: Mapping[str, str]) -> WorkerProcess:
    """Return this process, which is on the node with id `node` and runs `software`."""
    files: dict[str, int] = {}
    for descriptor in _STREAMS:
        with suppress(OSError):
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode):
                files[str(Path(f"/proc/self/fd/{descriptor}").readlink())] = status.st_size
    group = ray.get_runtime_context().get_placement_group_id()
    born = record.birth(os.getpid())
    written = tuple(files.items())
    return WorkerProcess(node, os.getpid(), born, group, written, oom_kills(), software)


@contextmanager
def noted(key: str, rank: int, process: WorkerProcess) -> Iterator[None]:
    """Have `process` be found as worker `rank` of attempt `key` while it is that.

    An attempt does not fail because the cluster is too busy to note that.
    """
    name, content = _name(key, rank), json.dumps(asdict(process)).encode()
    with suppress(*_BUSY):
        _store("put", name, content)
    try:
        yield
    finally:
        with suppress(*_BUSY):
            _store("del", name)


def of(key: str, rank: int) -> WorkerProcess | None:
    """Return the process that was worker `rank` of attempt `key`, if it is noted still."""
    content = _store("get", _name(key, rank))
    if not content:
        return None
    known = json.loads(content)
    return WorkerProcess(**{**known, "files": tuple((path, at) for path, at in known["files"])})


def forget(key: str) -> None:
    """Note no more which processes were workers of attempt `key`."""
    _store("del", _name(key), del_by_prefix=True)


def end(key: str) -> None:
    """End what another controller started as attempt `key`, if any of it runs; returns at once."""
    end_group(key)
    names = _store("list", _name(key))
    ranks = (int(name.rpartition(b"/")[2]) for name in names)
    workers = [worker for worker in (of(key, rank) for rank in ranks) if worker]
    for group in {worker.group for worker in workers if worker.group}:
        remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group))))
    for worker in workers:
        if not worker.group:
            kill(worker)
    forget(key)


def kill(worker: WorkerProcess) -> None:
    """Kill a process; returns at once."""
    on(worker.node, _kill).remote(worker.pid, worker.birth)


def end_group(name: str) -> None:
    """Remove the placement group of that name, if there is one, and with it what runs there."""
    with suppress(ValueError):
        remove_placement_group(get_placement_group(name))


def standby(run: str, stage: str) -> str:
    """Return the name of the placement group of those that stand by for `stage` of `run`."""
    return f"{run}/{stage}/standby"


def on(
    node: str, function: object, environment: Mapping[str, object] | None = None
) -> ray.remote_function.RemoteFunction:
    """Return `function` as a task on the node with id `node`, and there alone.

    It runs in a process with an `environment` as Ray takes it, or in one of the cluster's own.
    """
    affinity = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(num_cpus=0, max_retries=0)(function)
    return task.options(scheduling_strategy=affinity, runtime_env=dict(environment or {}))


def identities(pools: Mapping[str, Pool], live: Sequence[Node]) -> dict[str, dict[str, str]]:
    """Return what the nodes of `pools` among those `live` are told apart by, by pool and name.

    All are asked at once; those that don't answer are left out.
    """
    asked = [
        (name, node.name, on(node.id, identify).remote(pool.accelerator.identity))
        for name, pool in pools.items()
        for node in of_pool(pool, live)
    ]
    answers = [answer for *_, answer in asked]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=_IDENTITY_SECONDS)
    answered = set(ready)
    by_pool: dict[str, dict[str, str]] = {name: {} for name in pools}
    for pool_name, node_name, answer in asked:
        with suppress(*_BUSY):
            if answer in answered:
                by_pool[pool_name][node_name] = ray.get(answer)
    return by_pool


def _store(do: str, *arguments: bytes, **how: bool) -> Any:  # noqa: ANN401 - as Ray says it
    """Have Ray's own store, which has no public interface, `do` something.

    Raises:
        ConnectionError: This process has left the cluster.
    """
    try:
        return getattr(internal_kv, f"_internal_kv_{do}")(*arguments, namespace=_SPACE, **how)
    except AttributeError as error:
        raise ConnectionError("this process has left its Ray cluster") from error


def _kill(pid: int, birth: str | None) -> None:
    if birth is not None and record.birth(pid) == birth:
        os.kill(pid, signal.SIGKILL)


def _name(key: str, rank: int | None = None) -> bytes:
    return f"attempt/{key}/{'' if rank is None else rank}".encode()


_SPACE = NAMESPACE.encode()
