"""The port `Cluster` on Ray: each attempt a placement group and the workers in it.

Rules: placement goes by label and resource; what can never be placed is told at once, not waited
for; when an attempt ends, however it does, its processes and its placement group are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from orchestrator.adapters.raycluster import access
from orchestrator.adapters.raycluster.gang import Gang, bundle
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.core.spec import Pool
from orchestrator.ports import (
    AttemptRequest,
    Failed,
    Message,
    PoolState,
    PoolStatus,
    Succeeded,
    Waiting,
    Worker,
)

INFEASIBLE = "INFEASIBLE"


class RayCluster:
    """Attempts on the Ray cluster at `address`, each worker running `worker`."""

    def __init__(self, address: str, worker: Worker) -> None:
        """Connect.

        Raises:
            ClusterError: Nothing answers at `address`, or it doesn't let us in.
        """
        self._ours = access.connect(address)
        self._worker = worker
        self._attempts: dict[str, _Attempt] = {}

    def start(self, request: AttemptRequest) -> None:
        """Ask for an attempt."""
        self._attempts[request.key] = _Attempt(request, self._worker)

    def poll(self, key: str) -> Sequence[Message]:
        """Return what attempt `key` said since the last call."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return ()
        messages = attempt.poll()
        if messages and isinstance(messages[-1], Succeeded | Failed):
            self.cancel(key)
        return messages

    def cancel(self, key: str) -> None:
        """End attempt `key`, if there is one, and give back what it holds."""
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            attempt.end()

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        """Return the live state of the `wanted` pools."""
        nodes = [node for node in ray.nodes() if node["Alive"]]
        free = ray._private.state.available_resources_per_node()  # noqa: SLF001 - the one way to ask by node
        return {name: _status(pool, nodes, free) for name, pool in wanted.items()}

    def close(self) -> None:
        """Cancel what still runs and leave the cluster. Safe to call twice."""
        for key in list(self._attempts):
            self.cancel(key)
        if self._ours:
            ray.shutdown()
            self._ours = False


class _Attempt:
    """One attempt: first a placement group that is asked for, then the gang in it."""

    def __init__(self, request: AttemptRequest, worker: Worker) -> None:
        self._request = request
        self._worker = worker
        self._gang: Gang | None = None
        self._told = ""
        workers = request.needs.workers
        self._group = placement_group(
            [bundle(request)] * workers,
            strategy="PACK",
            name=request.key,
            bundle_label_selector=[request.pool.selector] * workers,
        )

    def poll(self) -> list[Message]:
        """Return what is new."""
        if self._gang is None:
            table: dict[str, Any] = placement_group_table(self._group)
            if table["state"] != "CREATED":
                return self._waiting(table["stats"]["scheduling_state"])
            self._gang = Gang(self._worker, self._request, self._group)
        return self._gang.poll()

    def end(self) -> None:
        """End the processes and remove the placement group."""
        if self._gang is not None:
            self._gang.end()
        remove_placement_group(self._group)

    def _waiting(self, state: str) -> list[Message]:
        asked = _asked(self._request)
        if state == INFEASIBLE:
            evidence = f"no node of pool {self._request.pool.name!r} can ever give {asked}"
            pool = self._request.pool.name
            return [Failed(Failure(kind=FailureKind.PLACEMENT, evidence=evidence, pool=pool))]
        if state == self._told or state != "NO_RESOURCES":
            return []
        self._told = state
        return [Waiting(f"pool {self._request.pool.name!r} is busy: {asked} are not free")]


def _asked(request: AttemptRequest) -> str:
    """Return what an attempt asks for, as people write it."""
    each = ", ".join(f"{amount:g} {name}" for name, amount in bundle(request).items())
    return f"{request.needs.workers} x ({each})"


def _status(
    pool: Pool, nodes: Sequence[dict[str, Any]], free: Mapping[str, Mapping[str, float]]
) -> PoolStatus:
    ours = [n for n in nodes if pool.selector.items() <= n.get("Labels", {}).items()]
    resource = pool.accelerator.resource or "CPU"
    total: Counter[str] = Counter()
    for node in ours:
        total["all"] += int(node["Resources"].get(resource, 0))
        total["free"] += int(free.get(node["NodeID"], {}).get(resource, 0))
    state = PoolState.UP if total["free"] else PoolState.BUSY
    return PoolStatus(
        name=pool.name,
        state=state if ours else PoolState.DOWN,
        nodes=len(ours),
        devices=total["all"],
        free=total["free"],
    )
