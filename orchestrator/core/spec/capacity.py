"""Whether what a stage asks for has room on a pool.

A process is whole on one node, but for replicas of engine servers that run over several: those
take all chips of each of their nodes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from orchestrator.core.errors import Problem, shown
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Endpoint, Needs, Stage


def problems_of_room(path: str, stage: Stage, pool: Pool) -> Iterator[Problem]:
    """Yield why `pool` can't hold `stage`, whoever else uses it."""
    yield from _size_problems(path, stage, pool)
    yield from _memory_problems(path, stage, pool)


def fewest_nodes(pool: Pool, replicas: Iterable[int]) -> int:
    """Return on how many nodes of `pool` replicas with so many chips each are at the least."""
    node, whole, large, chips = max(pool.devices_per_node, 1), 0, 0, 0
    for devices in replicas:
        if devices >= node:
            whole += pool.nodes_of(devices)
        else:
            large += 2 * devices > node  # no two of these are on one
            chips += devices
    return whole + max(large, math.ceil(chips / node))


def _size_problems(path: str, stage: Stage, pool: Pool) -> Iterator[Problem]:
    needs, node = stage.needs, f"a node of {pool.name!r} has"
    least = stage.fewest * needs.devices
    if least > pool.devices:
        what = f"needs {least!r} devices, {pool.name!r} has {pool.devices!r}"
        yield Problem(f"{path}.needs", what, "ask for fewer, or bind a larger pool")
    elif stage.endpoint is not None and (wrong := _unspreadable(stage.endpoint, needs, pool)):
        yield Problem(f"{path}.needs.devices", *wrong)
    elif stage.endpoint is None and needs.devices > pool.devices_per_node:
        what = f"needs {needs.devices!r} devices in one worker, {node} {pool.devices_per_node!r}"
        yield Problem(f"{path}.needs.devices", what, "ask for fewer")
    elif pool.shares_chips(needs.devices):
        what = f"{node} {pool.devices_per_node!r} chips, of which no worker can be shown its own"
        hint = f"ask for all of a node, or set fleet.pools.{pool.name}.accelerator.visible_devices"
        yield Problem(f"{path}.needs.devices", what, hint)
    elif needs.cpus > pool.cpus_per_node:
        what = f"needs {needs.cpus!r} cores in one worker, {node} {pool.cpus_per_node!r}"
        yield Problem(f"{path}.needs.cpus", what, "ask for fewer")
    elif stage.fewest > places(stage, pool):
        each = f"{needs.devices!r} devices and {needs.cpus!r} cores each"
        what = f"needs {stage.fewest!r} workers with {each}, {pool.name!r} has room for "
        yield Problem(f"{path}.needs", f"{what}{places(stage, pool)!r}", "ask for fewer")


def _unspreadable(endpoint: Endpoint, needs: Needs, pool: Pool) -> tuple[str, str] | None:
    """Return why a replica can't be spread over nodes of `pool`, and what to do instead."""
    each, devices = pool.devices_per_node, needs.devices
    if devices <= each:
        return None
    server = endpoint.server
    if server is None or server.nodes is None:
        what = f"engine {shown(endpoint.engine)} runs on one node, and a node of {pool.name!r} has"
        hint = f"ask for at most so many of the {devices!r}, and for more replicas"
        return f"{what} {each!r} devices", hint
    if devices % each:
        less, more = devices // each * each, pool.nodes_of(devices) * each
        what = f"{devices!r} devices are no whole nodes of {pool.name!r}, which have {each!r} each"
        return what, f"ask for {less!r} or {more!r}"
    return None


def places(stage: Stage, pool: Pool) -> int:
    """Return how many processes of `stage` the nodes of `pool` hold.

    Each is whole on one node, but for replicas that take several, all of each.
    """
    devices, cpus, all_of_them = stage.needs.devices, stage.needs.cpus, stage.processes
    nodes = pool.nodes_of(devices) if stage.endpoint else 1
    if nodes > 1:
        return pool.nodes // nodes
    by_devices = pool.devices_per_node // devices if devices > 0 else all_of_them
    by_cpus = int(pool.cpus_per_node // cpus) if cpus > 0 else all_of_them
    return pool.nodes * min(by_devices, by_cpus)


def _memory_problems(path: str, stage: Stage, pool: Pool) -> Iterator[Problem]:
    need, have = stage.needs.memory_gb, pool.accelerator.memory_gb
    if need is not None and have is not None and need > have * max(stage.needs.devices, 1):
        what = f"needs {need!r} GB in a worker, {pool.accelerator.name!r} has {have!r} GB a chip"
        yield Problem(f"{path}.needs.memory_gb", what, "use more devices, or another pool")
