"""What the cluster has now: the live nodes of a pool, their chips, and what fits on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

from orchestrator.adapters.raycluster import probing
from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.adapters.rayqueries.gcs import HeadSilentError
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import NodeStatus, PoolState, PoolStatus

SECONDS_OF_A_LOOK = 0.2  # as long as a controller that has nothing to do waits for its next turn
_PROBE_SECONDS = 0.5
Probe: TypeAlias = Callable[[Collection[probing.Address], float], Collection[probing.Address]]


class ClusterNodes:
    """The nodes as all attempts of a controller see them: asked for once a turn, not by each."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        ask: Callable[[], Sequence[Node]] = cluster_tables.live,
        ask_names: Callable[[], Mapping[str, str]] = cluster_tables.names,
        probe: Probe = probing.listening,
    ) -> None:
        """Know nothing yet; ask the cluster by `ask` and `ask_names`, its nodes by `probe`."""
        self._now, self._ask, self._ask_names, self._probe = now, ask, ask_names, probe
        self._live: Sequence[Node] = ()
        self._names: dict[str, str] = {}
        self._until = float("-inf")

    def live(self) -> Sequence[Node]:
        """Return the nodes that Ray counts as alive, or did a moment ago."""
        if self._now() >= self._until:
            self._live = self._query()
            self._names |= {node.id: node.name for node in self._live}
            self._until = self._now() + SECONDS_OF_A_LOOK
        return self._live

    def _query(self) -> Sequence[Node]:
        """Return the live nodes; those of the last look while the head does not answer."""
        try:
            return self._ask()
        except HeadSilentError:
            if not self._live:
                raise
            return self._live

    def alive(self) -> set[str]:
        """Return the ids of the nodes that Ray counts as alive."""
        return {node.id for node in self.live()}

    def name(self, node: str) -> str:
        """Return the name of the node with id `node`, dead ones included."""
        if node not in self._names:
            self._names = {node: node, **self._names, **self._ask_names()}
        return self._names[node]

    def standing(self, nodes: Collection[str]) -> set[str]:
        """Return which of the nodes with ids `nodes` live: Ray counts them, their raylets listen.

        Ray itself takes seconds to miss a node; its closed port tells at once. Those that are
        silent are waited for together.
        """
        address = {live.id: (live.host, live.port) for live in self.live() if live.id in nodes}
        answered = self._probe(set(address.values()), _PROBE_SECONDS) if address else set()
        return {node for node in address if address[node] in answered}


def of_pool(pool: Pool, nodes: Sequence[Node]) -> list[Node]:
    """Return those of `nodes` that belong to `pool`."""
    return [node for node in nodes if pool.selector.items() <= node.labels.items()]


def room(amounts: Mapping[str, float], each: Mapping[str, float]) -> int:
    """Return how many times `each` fits into `amounts`."""
    slack = 1e-6  # amounts are sums of fractions
    return int(min(amounts.get(name, 0.0) / asked for name, asked in each.items()) + slack)


def status(pool: Pool, nodes: Sequence[Node]) -> PoolStatus:
    """Return the state of `pool`; a pool without chips is counted in cores."""
    ours = of_pool(pool, nodes)
    resource = pool.accelerator.resource or "CPU"
    free = sum(int(node.free.get(resource, 0)) for node in ours)
    state = PoolState.UP if free else PoolState.BUSY
    return PoolStatus(
        name=pool.name,
        state=state if ours else PoolState.DOWN,
        nodes=len(ours),
        devices=sum(int(node.total.get(resource, 0)) for node in ours),
        free=free,
        members=tuple(
            NodeStatus(
                name=node.name,
                devices=int(node.total.get(resource, 0)),
                free=int(node.free.get(resource, 0)),
            )
            for node in sorted(ours, key=lambda node: node.name)
        ),
    )
