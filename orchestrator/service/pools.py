"""The pools of a fleet: their live state, what they have earned, and whether they take work."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import wiring
from orchestrator.controller.outlook import SECONDS_IN_QUEUE, drained_in, unused_on
from orchestrator.core.errors import NotFoundError
from orchestrator.core.nearest import choices
from orchestrator.core.runs.fleet_on_cluster import FleetOnCluster, cluster_identity
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Fleet, Pool, Role, name_in_fleet, pool_of_fleet
from orchestrator.core.trust.qualification import EARNED, Verdict, not_measured, verdict_of
from orchestrator.messages import PoolStatus, Queued, UnusedNode
from orchestrator.ports import Queues
from orchestrator.service.change import Change

_NODE = re.compile(r"[\w.:\[\]-]*\w[\w.:\[\]-]*")  # a host's name or address


@dataclass(frozen=True, slots=True)
class PoolStates:
    """What is known of the pools of a fleet at `now` (seconds, epoch).

    `live` and `nodes` have those of a cluster that is up, `drained` the reasons of those that are
    being emptied, `unused` the nodes that are not to be used. `queue` is what waits for pools.
    """

    fleet: Fleet
    live: Mapping[str, PoolStatus]
    drained: Mapping[str, str]
    verdicts: Sequence[Verdict]
    now: float
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unused: Sequence[UnusedNode] = ()
    queue: Sequence[Queued] = ()

    def unused_of(self, pool: str) -> dict[str, UnusedNode]:
        """Return the nodes of a pool that are not to be used, by name."""
        return {unused.node: unused for unused in self.unused if unused.pool == pool}

    def health(self, pool: str, node: str) -> str:
        """Return in a few words whether a node of a pool can be used."""
        unused = self.unused_of(pool).get(node)
        status = self.live.get(pool)
        lives = status is not None and node in {member.name for member in status.members}
        if unused is None:
            return "up" if lives else "away"
        away = "" if lives else " (away)"
        if unused.until is None:
            return f"being emptied: {unused.reason}{away}"
        hours = max(0.0, unused.until - self.now) / 3600
        return f"in quarantine for {hours:.1f} h: {unused.reason}{away}"

    def waiting_for(self, pool: str) -> list[Queued]:
        """Return what waits for a pool, first who goes first."""
        mine = [entry for entry in self.queue if entry.pool == pool]
        return sorted(mine, key=lambda entry: entry.order)

    def verdicts_of(self, pool: Pool) -> dict[Role, Verdict]:
        """Return the verdicts that hold for a pool."""
        held = {role: verdict_of(pool, role, self.verdicts, self.now) for role in EARNED}
        return {role: verdict for role, verdict in held.items() if verdict is not None}

    def strange(self, pool: Pool) -> tuple[str, ...]:
        """Return the live nodes of a pool that one of its verdicts is not of."""
        live = self.nodes.get(pool.name, {})
        names = (
            name for verdict in self.verdicts_of(pool).values() for name in verdict.strange(live)
        )
        return tuple(dict.fromkeys(names))

    def status(self, pool: Pool) -> str:
        """Return in a few words whether a pool can be used."""
        if not pool.available:
            return f"unavailable: {pool.reason}"
        if pool.name in self.drained:
            return f"being emptied: {self.drained[pool.name]}"
        strange = self.strange(pool)
        if strange:
            return not_measured(pool.name, strange)
        return str(self.live[pool.name].state) if pool.name in self.live else "not started"


def pools(settings: Settings) -> PoolStates:
    """Return what is known of the pools of a config; their live state where the cluster is up."""
    home = wiring.home()
    live = wiring.pool_states(settings, home)
    store = wiring.database(home)
    drained = drained_in(settings.fleet.name, store)
    states = PoolStates(
        settings.fleet,
        live,
        drained,
        store.verdicts(),
        store.now(),
        unused=unused_on(fleet_here(settings), store),
        queue=_queue(settings.fleet.name, store),
    )
    trusted = {
        name: pool
        for name, pool in settings.fleet.pools.items()
        if settings.qualification.ask_for_one(pool) and states.verdicts_of(pool)
    }
    return replace(states, nodes=wiring.nodes_of(settings, home, trusted))


def fleet_here(settings: Settings) -> FleetOnCluster:
    """Return the fleet of a config, and the cluster that the config or the environment names.

    A home without an identity has launched nothing on a cluster of its own: that is not known yet.
    """
    address, home = wiring.cluster_address(settings), wiring.home_id_if_any(wiring.home())
    return FleetOnCluster(settings.fleet.name, cluster_identity(address, wiring.host(), home))


def use_again(
    store: Queues,
    here: FleetOnCluster,
    pool: str,
    nodes: Collection[str],
    *,
    drained: bool = True,
) -> bool:
    """Have nodes of a pool used again, whichever fleet kept them; return whether any did.

    Without `drained` those that somebody drains stay as they are.
    """
    kept = [
        unused
        for unused in store.unused_nodes()
        if unused.node in nodes and here.pool_of(unused.pool) == pool
        if drained or unused.until is not None
    ]
    for unused in kept:
        store.release_node(unused.pool, unused.node)
    return bool(kept)


def _queue(fleet: str, store: Queues) -> list[Queued]:
    """Return what waits for the pools of a fleet."""
    entries = ((pool_of_fleet(fleet, e.pool), e) for e in store.queue(SECONDS_IN_QUEUE))
    return [replace(entry, pool=pool) for pool, entry in entries if pool is not None]


def pool_of(fleet: Fleet, name: str) -> Pool:
    """Return a pool of a fleet by its name.

    Raises:
        NotFoundError: There is none.
    """
    if name not in fleet.pools:
        hint = choices(name, fleet.pools, "pools of this fleet")
        raise NotFoundError(f"{name!r} is not a pool of fleet {fleet.name!r}; {hint}")
    return fleet.pools[name]


@dataclass(frozen=True, slots=True)
class PoolOrNode:
    """A pool of a fleet, or one `node` of it on a cluster."""

    fleet: str
    pool: str
    node: str = ""
    cluster: str = ""

    @property
    def here(self) -> FleetOnCluster:
        """The fleet where its nodes are."""
        return FleetOnCluster(self.fleet, self.cluster)

    @property
    def shared(self) -> str:
        """Name of the pool among those of all fleets, of a node's among those of all clusters."""
        if self.node:
            return self.here.name_of(self.pool)
        return name_in_fleet(self.fleet, self.pool)

    def __str__(self) -> str:
        """Return it in words."""
        return f"node {self.node} of pool {self.pool}" if self.node else f"pool {self.pool}"


def place_of(settings: Settings, name: str, node: str = "") -> PoolOrNode:
    """Return the pool or the node that `name` means, or the `node` of the pool of that name.

    A node that is named alone is looked for among those that live, or are not to be used.

    Raises:
        NotFoundError: There is none.
    """
    fleet, here = settings.fleet, fleet_here(settings)
    if name in fleet.pools and (not node or _NODE.fullmatch(node)):
        return PoolOrNode(fleet.name, name, node, here.cluster)
    home = wiring.home()
    nodes = [(unused.pool, unused.node) for unused in unused_on(here, wiring.database(home))]
    for status in wiring.pool_states(settings, home).values():
        nodes += [(status.name, member.name) for member in status.members]
    for owner, member in () if node else nodes:
        if member == name:
            return PoolOrNode(fleet.name, owner, member, here.cluster)
    hint = choices(name, fleet.pools, "pools of this fleet")
    what = f"{name!r} is not a pool of fleet {fleet.name!r}; {hint}"
    raise NotFoundError(f"{what}; a node is named as it lives, or POOL/NODE")


def others_live(settings: Settings, place: PoolOrNode) -> Sequence[str] | None:
    """Return the live nodes of the pool of a node that is not among them.

    `None` where it is, where it is no node, and where the cluster is not up.
    """
    status = wiring.pool_states(settings, wiring.home()).get(place.pool)
    if not place.node or status is None:
        return None
    names = [member.name for member in status.members]
    return None if place.node in names else names


def drain(place: PoolOrNode, reason: str) -> Change[None]:
    """Have a pool or a node take no new attempts; those on it leave at their next checkpoint."""

    def make() -> None:
        store = wiring.database(wiring.home())
        if place.node:
            store.drain_node(place.shared, place.node, reason)
        else:
            store.drain(place.shared, reason)

    return Change(f"empty {place}", make)


def undrain(place: PoolOrNode) -> Change[bool]:
    """Have a pool or a node take attempts again; a node, whatever kept it from that.

    Return whether anything did.
    """

    def make() -> bool:
        store = wiring.database(wiring.home())
        if not place.node:
            kept = place.pool in drained_in(place.fleet, store)
            for name in (place.pool, place.shared):
                store.undrain(name)
            return kept
        return use_again(store, place.here, place.pool, [place.node])

    return Change(f"use {place} again", make)
