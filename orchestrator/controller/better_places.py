"""Better places for attempts that run: room for the rest of a gang, or the preferred pool.

Room counts that has been there for a while, on nodes that are used, while nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.recovery import BetterPlace, Outlook
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.runs.stage_history import avoided, preferred, returns
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import PoolState, PoolStatus, Queued
from orchestrator.ports import Clock

SECONDS_BETWEEN_LOOKS = 10.0
States: TypeAlias = Callable[[Mapping[str, Pool]], Mapping[str, PoolStatus]]
_Key: TypeAlias = tuple[str, int, str]  # a stage, its attempt, and the pool that would be better


class PlaceWatcher:
    """Looks for better places for the attempts of one run."""

    def __init__(self, clock: Clock, states: States, grow: float | None) -> None:
        """Let a gang grow after `grow` seconds of room; with `None` none ever does."""
        self._clock, self._states, self._grow = clock, states, grow
        self._since: dict[_Key, float] = {}
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
        return {preference.pool for preference in self._preferences(run)}

    def better(
        self, run: Run, outlook: Outlook, queue: Sequence[Queued]
    ) -> Mapping[str, BetterPlace]:
        """Return the better places that have been there for long enough, by stage.

        `queue` is who waits for their pools.
        """
        now, preferences = self._clock.monotonic(), tuple(self._preferences(run))
        if now >= self._next_look or not preferences:
            self._next_look = now + SECONDS_BETWEEN_LOOKS if preferences else 0.0
            free = {preference.pool for preference in preferences}
            free -= {entry.pool for entry in queue} | set(outlook.drained)
            states = self.states(run, free)
            roomy = (
                preference.key
                for preference in preferences
                if _has_room(preference, outlook, states)
            )
            self._since = {key: self._since.get(key, now) for key in roomy}
        better: dict[str, BetterPlace] = {}
        for preference in preferences:
            if (
                now - self._since.get(preference.key, now) >= preference.patience
                and preference.key in self._since
            ):
                better.setdefault(preference.stage.name, preference.place)
        return better

    def _preferences(self, run: Run) -> Iterator[_Preference]:
        """Yield where each stage would rather be, what it prefers first."""
        for stage in run.stages.values():
            patience = stage.planned.stage.recovery.failback
            for pool in preferred(stage) if patience is not None else ():
                workers = stage.planned.stage.on_pool(pool).needs.workers
                yield _Preference(stage, pool, workers, (patience or 0.0) * 2.0 ** returns(stage))
            if self._grow is not None and stage.lacking:
                yield _Preference(stage, stage.pool, stage.lacking, self._grow)


@dataclass(frozen=True, slots=True)
class _Preference:
    """So many more workers of a stage on `pool`, once there was room for `patience` seconds."""

    stage: StageRun
    pool: str
    workers: int
    patience: float

    @property
    def key(self) -> _Key:
        return self.stage.name, self.stage.attempts[-1].number, self.pool

    @property
    def place(self) -> BetterPlace:
        attempt = self.stage.attempts[-1]
        reason = f"pool {self.pool!r} has room again, which comes before {attempt.pool!r}"
        if self.pool == attempt.pool:
            whole = self.workers + len(attempt.nodes)
            reason = (
                f"pool {self.pool!r} has room for all {whole} workers, not {len(attempt.nodes)}"
            )
        return BetterPlace(attempt=attempt.number, pool=self.pool, reason=reason)


def _has_room(preference: _Preference, outlook: Outlook, states: Mapping[str, PoolStatus]) -> bool:
    """Whether the nodes of a pool that its stage may use hold the workers that it would have."""
    state, stage = states.get(preference.pool), preference.stage
    if state is None or state.state is PoolState.DOWN:
        return False
    unused = {
        *(stage.avoid if preference.pool == stage.pool else avoided(stage, preference.pool)),
        *outlook.quarantined.get(preference.pool, ()),
        *outlook.drained_nodes.get(preference.pool, ()),
    }
    usable = [node.free for node in state.members if node.name not in unused]
    devices = stage.planned.stage.on_pool(preference.pool).needs.devices
    return (
        sum(free // devices for free in usable) >= preference.workers if devices else bool(usable)
    )
