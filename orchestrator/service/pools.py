"""The pools of a fleet: their live state, what they have earned, and whether they take work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import wiring
from orchestrator.controller.outlook import drained_in
from orchestrator.core.errors import NotFoundError
from orchestrator.core.nearest import choices
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Fleet, Pool, Role, name_in_fleet
from orchestrator.core.trust.qualification import EARNED, Verdict, not_measured, verdict_of
from orchestrator.messages import PoolStatus
from orchestrator.service.change import Change


@dataclass(frozen=True, slots=True)
class PoolStates:
    """What is known of the pools of a fleet at `now` (seconds, epoch).

    `live` and `nodes` have those of a cluster that is up, `drained` the reasons of those that are
    being emptied.
    """

    fleet: Fleet
    live: Mapping[str, PoolStatus]
    drained: Mapping[str, str]
    verdicts: Sequence[Verdict]
    now: float
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

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
    known = PoolStates(settings.fleet, live, drained, store.verdicts(), store.now())
    trusted = {
        name: pool
        for name, pool in settings.fleet.pools.items()
        if settings.qualification.ask_for_one(pool) and known.verdicts_of(pool)
    }
    return replace(known, nodes=wiring.nodes_of(settings, home, trusted))


def pool_of(fleet: Fleet, name: str) -> Pool:
    """Return a pool of a fleet by its name.

    Raises:
        NotFoundError: There is none.
    """
    if name not in fleet.pools:
        hint = choices(name, fleet.pools, "pools of this fleet")
        raise NotFoundError(f"{name!r} is not a pool of fleet {fleet.name!r}; {hint}")
    return fleet.pools[name]


def drain(fleet: Fleet, name: str, reason: str) -> Change[None]:
    """Have a pool take no new attempts; those on it leave at their next checkpoint.

    Raises:
        NotFoundError: The fleet has no such pool.
    """
    pool = pool_of(fleet, name)

    def make() -> None:
        wiring.database(wiring.home()).drain(name_in_fleet(fleet.name, pool.name), reason)

    return Change(f"empty pool {name}", make)


def undrain(fleet: Fleet, name: str) -> Change[None]:
    """Have a pool take attempts again.

    Raises:
        NotFoundError: The fleet has no such pool.
    """
    pool = pool_of(fleet, name)

    def make() -> None:
        store = wiring.database(wiring.home())
        for named in (pool.name, name_in_fleet(fleet.name, pool.name)):
            store.undrain(named)

    return Change(f"use pool {name} again", make)
