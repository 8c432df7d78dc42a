"""What a controller must know of the world beside its run, looked up now and then.

The pools that are being emptied, the gates that are open, the runs that go first: all of it comes
from the database and the gates, a few times a second at most. It shows the run's own places in
the queues there, too. Who has many ahead asks less often, and of its own pools alone: a thousand
runs that wait would ask for a thousand lines each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf

from orchestrator.controller.backfill import held_up_by
from orchestrator.controller.better_places import PlaceWatcher
from orchestrator.core.runs.decide import at_gate, wanting
from orchestrator.core.runs.fleet_on_cluster import FleetOnCluster, fleet_on_cluster
from orchestrator.core.runs.recovery import QUIET, Outlook
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.spec.hardware import name_in_fleet, pool_of_fleet
from orchestrator.messages import Queued, UnusedNode
from orchestrator.ports import Clock, Gates, Queues

SECONDS_BETWEEN_LOOKS = 0.5  # of who waits, and is next or nearly so
AHEAD_OF_A_LOOK = 20  # for each so many that are ahead, as much longer
LONGEST_BETWEEN_LOOKS = 4.0
SECONDS_OF_NO_WISH = 2.0  # between looks of who waits for nothing
SECONDS_BETWEEN_GATES = 2.0
SECONDS_BETWEEN_WORDS = 5.0  # to those who wait as well: each is a write
# Who has not said for so long that it waits waits no more: its controller is gone.
SECONDS_IN_QUEUE = 30.0


class OutlookWatcher:
    """Looks around for one run."""

    def __init__(self, queues: Queues, gates: Gates, clock: Clock, places: PlaceWatcher) -> None:
        """Know nothing yet; `places` knows the live state of pools."""
        self._queues, self._gates, self._clock, self._places = queues, gates, clock, places
        self._next_look = self._next_gates = self._next_word = 0.0
        self._queued: dict[str, Queued] = {}
        self._outlook = QUIET

    def refresh(self, run: Run, now: float) -> Outlook:
        """Return what is known `now`, in the time of the run, which is that of the database.

        Asks the cluster where what is known is old, or the run wants a place.
        """
        tick = self._clock.monotonic()
        wanted = {s.name: _entry(run, s, self._queued, now) for s in wanting(run, now)}
        if tick >= self._next_look or wanted != self._queued:  # another stage, or another pool
            self._next_look = tick + SECONDS_BETWEEN_LOOKS  # where the store is away
            drained = drained_in(run.plan.fleet, self._queues)
            unused = unused_on(fleet_on_cluster(run.header), self._queues)
            self._say(run, wanted, tick)
            queue = self._queue(run, wanted)
            self._outlook = Outlook(
                drained=drained,
                opened=self._opened(run, tick),
                behind=dict(self._behind(run, wanted, queue, now)),
                quarantined=_quarantined(unused),
                drained_nodes=drained_nodes(unused),
            )
            better = self._places.better(run, self._outlook, queue)
            self._outlook = replace(self._outlook, better=better)
            self._next_look = tick + _pause(wanted.values(), queue)
        return self._outlook

    def leave(self, run: Run) -> None:
        """Take the run out of all queues."""
        if self._queued:
            self._queued = {}
            self._queues.queue_up(run.header.run, ())

    def _say(self, run: Run, wanted: Mapping[str, Queued], tick: float) -> None:
        """Say what the run waits for."""
        if wanted != self._queued or (wanted and tick >= self._next_word):
            self._queued = dict(wanted)
            self._next_word = tick + SECONDS_BETWEEN_WORDS
            entries = (_shared(run, entry) for entry in wanted.values())
            self._queues.queue_up(run.header.run, tuple(entries))

    def _queue(self, run: Run, wanted: Mapping[str, Queued]) -> Sequence[Queued]:
        """Return all that wait for the pools that the run waits for, or would rather be in."""
        own = {entry.pool for entry in wanted.values()} | self._places.pools(run)
        if not own:
            return ()
        shared = {name_in_fleet(run.plan.fleet, pool) for pool in own}
        listed = self._queues.queue(SECONDS_IN_QUEUE, own | shared)
        return [entry for other in listed for entry in _own(run, other)]

    def _behind(
        self, run: Run, wanted: Mapping[str, Queued], queue: Sequence[Queued], now: float
    ) -> Iterator[tuple[str, str]]:
        """Yield the stages that others go before, with who."""
        others = {entry.pool for entry in queue if entry.run != run.header.run}
        states = self._places.states(run, {entry.pool for entry in wanted.values()} & others)
        for name, mine in wanted.items():
            first = held_up_by(mine, queue, states.get(mine.pool), now)
            if first is not None:
                who = f"{first.run}/{first.stage} (priority {first.priority})"
                yield name, f"waits for pool {mine.pool!r} behind {who}"

    def _opened(self, run: Run, tick: float) -> Mapping[str, str]:
        shut = at_gate(run)
        if not shut or tick < self._next_gates:
            return {}
        self._next_gates = tick + SECONDS_BETWEEN_GATES
        looked = ((stage.name, self._opened_by(run, stage)) for stage in shut)
        return {name: opened for name, opened in looked if opened is not None}

    def _opened_by(self, run: Run, stage: StageRun) -> str | None:
        gate = stage.planned.stage.gate
        return self._gates.opened_by(gate, run.header.run, stage.name) if gate else None


def _pause(wanted: Collection[Queued], queue: Sequence[Queued]) -> float:
    """Return for how long what was seen holds, for who stands in the `queue` as `wanted` says."""
    if not wanted:
        return SECONDS_OF_NO_WISH
    ahead = min(
        sum(entry.pool == mine.pool and entry.order < mine.order for entry in queue)
        for mine in wanted
    )
    longer = 1 + ahead // AHEAD_OF_A_LOOK
    return min(SECONDS_BETWEEN_LOOKS * longer, LONGEST_BETWEEN_LOOKS)


def drained_in(fleet: str, queues: Queues) -> dict[str, str]:
    """Return the pools of `fleet` that are being emptied, with the reasons."""
    named = ((pool_of_fleet(fleet, name), why) for name, why in queues.drained().items())
    return {pool: why for pool, why in named if pool is not None}


def unused_on(cluster: FleetOnCluster, queues: Queues) -> list[UnusedNode]:
    """Return the nodes of a fleet on its cluster that are not to be used, whoever said so.

    Of what several fleets say of a node that holds which lasts longest: a drain, before all.
    """
    nodes: dict[tuple[str, str], UnusedNode] = {}
    for unused in sorted(queues.unused_nodes(), key=lambda node: node.until or inf):
        pool = cluster.pool_of(unused.pool)
        if pool is not None:
            nodes[pool, unused.node] = replace(unused, pool=pool)
    return [nodes[key] for key in sorted(nodes)]


def _quarantined(unused: Iterable[UnusedNode]) -> dict[str, tuple[str, ...]]:
    nodes: dict[str, tuple[str, ...]] = {}
    for node in unused:
        if node.until is not None:
            nodes[node.pool] = (*nodes.get(node.pool, ()), node.node)
    return nodes


def drained_nodes(unused: Iterable[UnusedNode]) -> dict[str, dict[str, str]]:
    """Return those of the nodes that somebody drains, with the reasons, by pool and name."""
    nodes: dict[str, dict[str, str]] = {}
    for node in unused:
        if node.until is None:
            nodes.setdefault(node.pool, {})[node.node] = node.reason
    return nodes


def _shared(run: Run, entry: Queued) -> Queued:
    """Return an entry of a queue as runs on other fleets see it."""
    return replace(entry, pool=name_in_fleet(run.plan.fleet, entry.pool))


def _own(run: Run, entry: Queued) -> Iterator[Queued]:
    """Yield an entry of a queue as this run sees it, if it is for a pool of its fleet."""
    pool = pool_of_fleet(run.plan.fleet, entry.pool)
    if pool is not None:
        yield replace(entry, pool=pool)


def _entry(run: Run, stage: StageRun, before: Mapping[str, Queued], now: float) -> Queued:
    kept = before.get(stage.name)
    if kept is not None and kept.pool == stage.pool:
        return kept
    placed = stage.planned.stage.on_pool(stage.pool)
    return Queued(
        pool=stage.pool,
        run=run.header.run,
        stage=stage.name,
        priority=run.plan.priority,
        since=now,
        devices=placed.fewest * placed.needs.devices,
    )
