"""Which nodes of a pool are not to be used by replicas, as the store last said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Protocol

from orchestrator.core.errors import NotFoundError, StoreError
from orchestrator.core.runs.fleet_on_cluster import FleetOnCluster, fleet_on_cluster
from orchestrator.messages import UnusedNode
from orchestrator.ports import Clock, EventLog, Queues

SECONDS_OF_A_LOOK = 0.5


class RunsAndNodes(EventLog, Queues, Protocol):
    """The runs, whose fleets pools are of, and the nodes that are not to be used."""


class UnusedNodes:
    """Asks the store, at most every moment; while that is away what it said last holds."""

    def __init__(self, store: RunsAndNodes, clock: Clock) -> None:
        """Know nothing yet."""
        self._store, self._clock = store, clock
        self._listed: Sequence[UnusedNode] = ()
        self._until = float("-inf")
        self._fleets: dict[str, FleetOnCluster | None] = {}

    def of(self, run: str, pool: str) -> Mapping[str, UnusedNode]:
        """Return those of a pool of the fleet of a run, by name; whichever fleet said so."""
        now = self._clock.monotonic()
        try:
            if now >= self._until:
                self._listed = self._store.unused_nodes()
                self._until = now + SECONDS_OF_A_LOOK
            fleet = self._fleet(run) if self._listed else None
        except StoreError:
            self._until = now + SECONDS_OF_A_LOOK
            fleet = self._fleets.get(run)
        if fleet is None:
            return {}
        listed = sorted(self._listed, key=lambda node: node.until or inf)  # a drain holds
        return {node.node: node for node in listed if fleet.pool_of(node.pool) == pool}

    def _fleet(self, run: str) -> FleetOnCluster | None:
        if run not in self._fleets:
            try:
                self._fleets[run] = fleet_on_cluster(self._store.header(run))
            except NotFoundError:
                self._fleets[run] = None
        return self._fleets[run]
