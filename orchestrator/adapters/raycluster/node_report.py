"""What each node of a cluster is like, as an actor there finds it: for whoever checks the cluster.

All nodes are asked at once, so that one that is silent holds up no other. The actor travels by
value: a node is heard whose orchestrator is of another version, or not there at all.
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

from orchestrator.adapters.raycluster import ray_errors
from orchestrator.adapters.raycluster.nodes import of_pool
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.core.spec.hardware import Pool
from orchestrator.error_boundary import reason
from orchestrator.messages import NodeReport

SECONDS = 60.0
DATABASE = "database"
Read: TypeAlias = Callable[[], str]
_LOOKS = 3  # at the clock of a node: the quickest answer counts


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChecks:
    """What each node is to try.

    `read` makes, for the pool of a node (or none), what looks there whether storage can be read,
    and returns why not; `reach` has HOST and PORT of services by their names, of which any of
    several is enough; `open_database` returns there why it can't be opened, and why that was not
    tried. `code` names the packages whose files are compared, `cache` the folder of what is
    downloaded, where a node names no other.
    """

    read: Callable[[Pool | None], Read] | None
    reach: Mapping[str, Sequence[tuple[str, int]]]
    code: Sequence[str] = ()
    open_database: Callable[[], tuple[str, str]] | None = None
    cache: str = ""


class _NodeReporter:
    """Runs on a node. It imports what it needs where it needs it: it may be of another version."""

    def facts(
        self,
        host: str,
        reach: Mapping[str, Sequence[tuple[str, int]]],
        packages: Sequence[str],
        cache: str = "",
    ) -> dict[str, Any]:
        import platform
        import socket
        from importlib import metadata

        versions = {"Python": platform.python_version()}
        for name, package in (("Ray", "ray"), ("orchestrator", "orchestrator")):
            try:
                versions[name] = metadata.version(package)
            except metadata.PackageNotFoundError:
                versions[name] = ""
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
        return {
            "versions": versions,
            "code": self.code(packages),
            "free": self.free(cache),
            "lacking": lacking,
            "interface": self.interface(host),
        }

    def code(self, packages: Sequence[str]) -> dict[str, str]:
        try:
            from orchestrator.node.software import package
        except ImportError:  # which its version says
            return {}
        return {name: package(name) for name in packages}

    def free(self, cache: str) -> dict[str, int]:
        import os
        import shutil
        import tempfile

        kept = os.environ.get("ORCHESTRATOR_CACHE") or cache  # noqa: TID251 - of the node
        kept = os.path.abspath(os.path.expanduser(kept)) if kept else ""  # noqa: PTH100, PTH111 - of any name
        shared = "/dev/shm"  # noqa: S108 - Ray's object store lives there
        free = {}
        for path in (tempfile.gettempdir(), shared, kept):
            held = path
            while path == kept and held and not os.path.isdir(held):  # noqa: PTH112 - of any name
                held = os.path.dirname(held)  # noqa: PTH120 - it is made when it is needed
            if os.path.isdir(held):  # noqa: PTH112 - of any name
                free[path] = shutil.disk_usage(held).free
        return free

    def call(self, question: Callable[[], Any]) -> Any:  # noqa: ANN401 - what it answers
        return question()

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
    checks: NodeChecks,
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
    try:
        return _reported(list(zip(live, actors, strict=True)), pool_of, checks, now)
    finally:
        for actor in actors:
            with suppress(*ray_errors.ERRORS):
                ray.kill(actor)


def _on(node: Node, pool: Pool | None) -> Any:  # noqa: ANN401 - Ray's handles have no types
    affinity = NodeAffinitySchedulingStrategy(node.id, soft=False)
    actor = ray.remote(num_cpus=0, max_restarts=0)(_NodeReporter)
    environment = (pool.runtime_env(pool.variables) or None) if pool else None
    return actor.options(scheduling_strategy=affinity, runtime_env=environment).remote()


def _reported(
    nodes: Sequence[tuple[Node, Any]],
    pool_of: Mapping[str, Pool],
    checks: NodeChecks,
    now: Callable[[], float],
) -> list[NodeReport]:
    """Return what each of `nodes`, with its actor, is like."""
    reach, code, cache = dict(checks.reach), checks.code, checks.cache
    facts = _answers({n.id: a.facts.remote(n.host, reach, code, cache) for n, a in nodes}, now)
    clocks = _offsets({n.id: a for n, a in nodes if not facts[n.id].why}, now)
    ours = [(n.id, a) for n, a in nodes if n.id in clocks and not clocks[n.id].why]
    storages: dict[str, _NodeAnswer] = {}
    if checks.read is not None:
        reads = {node: a.call.remote(checks.read(pool_of.get(node))) for node, a in ours}
        storages = _answers(reads, now)
    databases: dict[str, _NodeAnswer] = {}
    if checks.open_database is not None:
        free = [(n, a) for n, a in ours if not storages.get(n, _NOTHING).why]  # else it reads on
        databases = _answers({n: a.call.remote(checks.open_database) for n, a in free}, now)
    reported = []
    for node, _ in nodes:
        pool = pool_of.get(node.id)
        report = NodeReport(node=node.name, host=node.host, pool=pool.name if pool else "")
        fact, clock = facts[node.id], clocks.get(node.id, _NOTHING)
        if fact.why or clock.why:
            reported.append(replace(report, silent=fact.why or clock.why))
            continue
        report = replace(report, **fact.value, ahead=clock.value)
        storage = storages.get(node.id, _NOTHING)
        unread = {"storage": text} if (text := storage.why or storage.value) else {}
        report = replace(report, lacking={**report.lacking, **unread})
        reported.append(_with_database(report, databases.get(node.id, _NOTHING)))
    return reported


def _with_database(report: NodeReport, answer: _NodeAnswer) -> NodeReport:
    """Return the report with what a node says of the database, where it reaches that."""
    refused, untried = (answer.why, "") if answer.why else answer.value or ("", "")
    if not (refused or untried) or DATABASE in report.lacking:
        return report
    if refused:
        return replace(report, lacking={**report.lacking, DATABASE: refused})
    return replace(report, untried={DATABASE: untried})


@dataclass(frozen=True, slots=True)
class _NodeAnswer:
    """What a node has answered, and when; else `why` it has not."""

    value: Any = None
    at: float = 0.0
    why: str = ""


_NOTHING = _NodeAnswer()


def _answers(questions: Mapping[str, Any], now: Callable[[], float]) -> dict[str, _NodeAnswer]:
    """Return what each node answers within `SECONDS` that they all have."""
    node_of = {question: node for node, question in questions.items()}
    waiting, until = list(node_of), time.monotonic() + SECONDS
    silent = _NodeAnswer(why=f"it does not answer within {SECONDS:g} s")
    answers = dict.fromkeys(questions, silent)
    while waiting and (left := until - time.monotonic()) > 0:
        ready, waiting = ray.wait(waiting, num_returns=1, timeout=left)
        at = now()
        for question in ready:
            try:
                answer = _NodeAnswer(ray.get(question), at)
            except ray_errors.ERRORS as error:  # its orchestrator lacks what is asked, or hangs
                answer = _NodeAnswer(why=reason(error))
            answers[node_of[question]] = answer
    return answers


def _offsets(actors: Mapping[str, Any], now: Callable[[], float]) -> dict[str, _NodeAnswer]:
    """Return by how much the clock of each node is ahead, by the quickest of a few looks."""
    offsets: dict[str, _NodeAnswer] = {}
    for _ in range(_LOOKS):
        going = [node for node in actors if node not in offsets or not offsets[node].why]
        before = {node: now() for node in going}
        answers = _answers({node: actors[node].now.remote() for node in going}, now)
        for node, answer in answers.items():
            known = offsets.get(node)
            if answer.why:
                offsets[node] = answer
                continue
            ahead = answer.value - (before[node] + answer.at) / 2
            if known is None or abs(ahead) < abs(known.value):
                offsets[node] = replace(answer, value=ahead)
    return offsets
