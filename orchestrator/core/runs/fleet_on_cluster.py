"""Which nodes a fleet has: those of its pools on one cluster, where other fleets may be too.

A Ray node carries the name of one pool, whatever fleet declares that. So a node with a broken chip
is the same to all fleets of its cluster, and what is noted of it names the cluster as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.core.own_host import host_of, leads_home
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.spec.hardware import name_in_fleet

HOST = "orchestrator.host"  # the tag that names the machine from which a run was launched
HOME = "orchestrator.home"  # the tag with the identity of its home


@dataclass(frozen=True, slots=True)
class FleetOnCluster:
    """A fleet and the identity of its cluster, which is empty where nobody knows it."""

    fleet: str
    cluster: str = ""

    def name_of(self, pool: str) -> str:
        """Return the name of a pool whose nodes are meant: FLEET@CLUSTER/POOL."""
        owner = f"{self.fleet}@{self.cluster}" if self.cluster else self.fleet
        return name_in_fleet(owner, pool)

    def pool_of(self, name: str) -> str | None:
        """Return the pool that `name_of` named so here; `None` where its nodes are elsewhere.

        A pool of another fleet on this cluster has the same nodes. Names of before lack the
        cluster; one without a fleet is of every fleet.
        """
        owner, slash, pool = name.rpartition("/")
        fleet, _, cluster = owner.partition("@")
        ours = fleet == self.fleet or (bool(cluster) and cluster == self.cluster)
        return pool if ours or not slash else None


def fleet_on_cluster(header: RunHeader) -> FleetOnCluster:
    """Return the fleet of a run, and its cluster as the run was launched there."""
    cluster, tags = header.config.get("cluster"), header.tags
    address = str(cluster.get("address") or "") if isinstance(cluster, Mapping) else ""
    identity = cluster_identity(address, tags.get(HOST, ""), tags.get(HOME, ""))
    return FleetOnCluster(header.plan.fleet, identity)


def cluster_identity(address: str, host: str, home: str) -> str:
    """Return the identity of the cluster at `address`: the host of its head.

    `host` is the machine on which an address that leads home was named, `home` the identity of the
    home whose own cluster it is where no address was.
    """
    if not address:
        return f"home-{home}" if home else ""
    return host if leads_home(address) else host_of(address)
