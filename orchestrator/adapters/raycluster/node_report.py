"""What each node of a cluster is like, as an actor there finds it: for whoever checks the cluster.

The actor travels by value, so that a node is heard whose orchestrator is of another version, or
not there at all.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.adapters.raycluster import faults
from orchestrator.adapters.raycluster.nodes import of_pool
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.core.spec.hardware import Pool
from orchestrator.error_boundary import reason
from orchestrator.messages import NodeReport

SECONDS = 60.0
Read: TypeAlias = Callable[[], str]
_LOOKS = 3  # at the clock of a node: the quickest answer counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What each node is to try.

    `read` makes, for the pool of a node (or none), what looks there whether storage can be read,
    and returns why not; `reach` has HOST and PORT of services by their names, of which any of
    several is enough.
    """

    read: Callable[[Pool | None], Read] | None
    reach: Mapping[str, Sequence[tuple[str, int]]]


class _NodeReporter:
    """Runs on a node. It imports what it needs where it needs it: it may be of another version."""

    def facts(self, host: str, reach: Mapping[str, Sequence[tuple[str, int]]]) -> dict[str, Any]:
        import os
        import platform
        import shutil
        import socket
        import tempfile
        from importlib import metadata

        versions = {"Python": platform.python_version()}
        for name, package in (("Ray", "ray"), ("orchestrator", "orchestrator")):
            try:
                versions[name] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[name] = ""
        folders = [tempfile.gettempdir(), "/dev/shm"]  # noqa: S108 - Ray's object store lives there
        free = {path: shutil.disk_usage(path).free for path in folders if os.path.isdir(path)}  # noqa: PTH112 - of any name
        lacking = {}
        for name, servers in reach.items():
            refused = []
            for to, port in servers:
                try:
                    socket.create_connection((to, port), timeout=5.0).close()
                    break
                except (OSError, UnicodeError) as error:
                    refused.append(f"{to}:{port}: {error}")
            else:
                lacking[name] = "; ".join(refused)
        interface = self.interface(host)
        return {"versions": versions, "free": free, "lacking": lacking, "interface": interface}

    def call(self, read: Callable[[], str]) -> str:
        return read()

    def interface(self, host: str) -> str:
        import fcntl
        import socket
        import struct

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            for _, name in socket.if_nameindex():
                try:
                    asked = struct.pack("256s", name.encode()[:15])
                    answer = fcntl.ioctl(probe.fileno(), 0x8915, asked)  # SIOCGIFADDR
                except OSError:
                    continue
                if socket.inet_ntoa(answer[20:24]) == host:
                    return name
        return ""

    def now(self) -> float:
        import time

        return time.time()  # noqa: TID251 - the clock that is compared


def reports(
    pools: Mapping[str, Pool],
    live: Sequence[Node],
    asked: Asked,
    now: Callable[[], float] = time.time,  # noqa: TID251 - as above
) -> list[NodeReport]:
    """Return what the nodes are like, those of `pools` in the pool's own environment."""
    pool_of = {node.id: pool for pool in pools.values() for node in of_pool(pool, live)}
    module = sys.modules[__name__]
    ray.cloudpickle.register_pickle_by_value(module)
    try:
        actors = [_on(node, pool_of.get(node.id)) for node in live]
    finally:
        ray.cloudpickle.unregister_pickle_by_value(module)
    reach = dict(asked.reach)
    facts = [a.facts.remote(node.host, reach) for a, node in zip(actors, live, strict=True)]
    ready, _ = ray.wait(facts, num_returns=len(facts), timeout=SECONDS)
    reported = []
    for actor, node, answer in zip(actors, live, facts, strict=True):
        pool = pool_of.get(node.id)
        named = NodeReport(node=node.name, host=node.host, pool=pool.name if pool else "")
        if answer in ready:
            read = asked.read(pool) if asked.read else None
            reported.append(_completed(named, actor, answer, read, now))
        else:
            silent = f"it does not answer within {SECONDS:g} s"
            reported.append(replace(named, silent=silent))
    for actor in actors:
        with suppress(*faults.ERRORS):
            ray.kill(actor)
    return reported


def _on(node: Node, pool: Pool | None) -> Any:  # noqa: ANN401 - Ray's handles have no types
    affinity = NodeAffinitySchedulingStrategy(node.id, soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=0)(_NodeReporter)
    environment = (pool.runtime_env(pool.variables) or None) if pool else None
    return actor.options(scheduling_strategy=affinity, runtime_env=environment).remote()


def _completed(
    named: NodeReport,
    actor: Any,  # noqa: ANN401 - as above
    answer: Any,  # noqa: ANN401 - as above
    read: Read | None,
    now: Callable[[], float],
) -> NodeReport:
    """Return the report of a node with what its actor has said, and how its clock goes."""
    try:
        facts = ray.get(answer)
        report = replace(named, **facts, ahead=min(_offsets(actor, now), key=abs))
    except faults.ERRORS as error:
        return replace(named, silent=reason(error))
    why = _why_unread(actor, read) if read else ""
    return replace(report, lacking={**report.lacking, "storage": why}) if why else report


def _why_unread(actor: Any, read: Read) -> str:  # noqa: ANN401 - as above
    try:
        return str(ray.get(actor.call.remote(read), timeout=SECONDS))
    except faults.ERRORS as error:  # its orchestrator lacks what is asked, or hangs
        return reason(error)


def _offsets(actor: Any, now: Callable[[], float]) -> list[float]:  # noqa: ANN401 - as above
    """Return by how much the clock of an actor's node is ahead, by each of a few looks."""
    offsets = []
    for _ in range(_LOOKS):
        before = now()
        then = ray.get(actor.now.remote(), timeout=SECONDS)
        offsets.append(then - (before + now()) / 2)
    return offsets
