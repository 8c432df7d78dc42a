"""Which gangs are smaller than they ask for though their pools have room for the rest.

Room counts that has been there for a while, on nodes that are used, while nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.recovery import Outlook
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import PoolStatus, Queued
from orchestrator.ports import Clock

SECONDS_BETWEEN_LOOKS = 10.0
States: TypeAlias = Callable[[Mapping[str, Pool]], Mapping[str, PoolStatus]]


class GrowthWatcher:
    """Looks for room for the gangs of one run."""

    def __init__(self, clock: Clock, states: States, patience: float | None) -> None:
        """Wait for `patience` seconds; with `None` no gang ever grows."""
        self._clock, self._states, self._patience = clock, states, patience
        self._since: dict[tuple[str, int], float] = {}
        self._roomy: dict[tuple[str, int], str] = {}
        self._next_look = 0.0

    def states(self, run: Run, names: set[str]) -> Mapping[str, PoolStatus]:
        """Return the state of the pools `names`, as far as the cluster tells."""
        if not names:
            return {}
        try:
            return self._states({name: run.plan.pools[name] for name in names})
        except ClusterError:
            return {}

    def pools(self, run: Run) -> set[str]:
        """Return the pools in which there would have to be room."""
        if self._patience is None:
            return set()
        return {stage.pool for stage in run.stages.values() if stage.lacking}

    def growing(self, run: Run, outlook: Outlook, queue: Sequence[Queued]) -> Mapping[str, str]:
        """Return the stages that have had room for long enough, with that in words.

        `queue` is who waits for their pools.
        """
        now = self._clock.monotonic()
        pools = self.pools(run)
        if self._patience is None or not pools:
            self._since, self._roomy = {}, {}
            return {}
        if now >= self._next_look:
            self._next_look = now + SECONDS_BETWEEN_LOOKS
            free = pools - {entry.pool for entry in queue} - set(outlook.drained)
            self._roomy = dict(_roomy(run, outlook, self.states(run, free)))
            self._since = {key: self._since.get(key, now) for key in self._roomy}
        return {
            stage: said
            for (stage, number), said in self._roomy.items()
            if len(run.stages[stage].attempts) == number
            and now - self._since[stage, number] >= self._patience
        }


def _roomy(
    run: Run, outlook: Outlook, states: Mapping[str, PoolStatus]
) -> Iterator[tuple[tuple[str, int], str]]:
    """Yield the stage and number of each attempt whose gang could be whole, and say so."""
    for stage in run.stages.values():
        state = states.get(stage.pool)
        if stage.lacking and state is not None and _room(stage, outlook, state) >= stage.lacking:
            attempt = stage.attempts[-1]
            whole = stage.lacking + len(attempt.nodes)
            said = (
                f"pool {stage.pool!r} has room for all {whole} workers, not {len(attempt.nodes)}"
            )
            yield (stage.name, attempt.number), said


def _room(stage: StageRun, outlook: Outlook, state: PoolStatus) -> int:
    """Return how many more workers the nodes of a pool hold that the stage may use."""
    unused = {
        *stage.avoid,
        *outlook.quarantined.get(stage.pool, ()),
        *outlook.drained_nodes.get(stage.pool, ()),
    }
    devices = stage.planned.stage.at(stage.pool).needs.devices
    usable = (node.free for node in state.members if node.name not in unused)
    return sum(free // devices for free in usable) if devices else stage.lacking
