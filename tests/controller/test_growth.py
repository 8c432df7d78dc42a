"""A gang that began with fewer workers begins whole once its pool has had room for a while."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from orchestrator.controller.growth import GrowthWatcher
from orchestrator.core.errors import ClusterError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.recovery import Outlook
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    LeaveRequested,
    RetryScheduled,
)
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import NodeStatus, PoolState, PoolStatus, Queued
from tests.build import failure, plan, stage
from tests.core.histories import after
from tests.fakes import FakeClock

GANG = stage("s", needs=Needs(workers=4, min_workers=1))
ROOM = {"s": "pool 'a' has room for all 4 workers, not 2"}
WAITING = Queued(pool="a", run="other", stage="t", priority=0, since=0.0, devices=1)


def placed(*nodes: str, number: int = 1) -> tuple[AttemptStarted, AttemptPlaced]:
    return AttemptStarted("s", number, "a"), AttemptPlaced("s", number, nodes)


class Post:
    """A run whose gang has two of four workers; `free` are the chips that each node has left."""

    def __init__(self, patience: float | None = 600.0) -> None:
        self.run: Run = after(plan(GANG), *placed("n1", "n1"))
        self.free: dict[str, int] | None = {"n1": 0, "n2": 2}
        self.outlook = Outlook()
        self.queue: Sequence[Queued] = ()
        self.clock = FakeClock(100.0)
        self.watcher = GrowthWatcher(self.clock, self.states, patience)

    def states(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        if self.free is None:
            raise ClusterError("the head is silent")
        nodes = tuple(NodeStatus(name=n, devices=2, free=f) for n, f in self.free.items())
        return {n: PoolStatus(name=n, state=PoolState.UP, members=nodes) for n in wanted}

    def growing(self, seconds: float = 0.0) -> Mapping[str, str]:
        """Return what grows after so many seconds, in which it looks all the time."""
        growing = self.watcher.growing(self.run, self.outlook, self.queue)
        for _ in range(int(seconds // 10)):
            self.clock.sleep(10.0)
            growing = self.watcher.growing(self.run, self.outlook, self.queue)
        return growing


def test_a_gang_grows_when_there_has_been_room_for_long_enough() -> None:
    post = Post()
    assert post.growing(590.0) == {}
    assert post.growing(10.0) == ROOM


def test_room_that_comes_and_goes_is_none() -> None:
    post = Post()
    assert post.growing(590.0) == {}
    post.free = {"n1": 0, "n2": 1}
    assert post.growing(10.0) == {}
    post.free = {"n1": 1, "n2": 1}
    assert post.growing(600.0) == {}
    assert post.growing(10.0) == ROOM


@pytest.mark.parametrize(
    "change",
    [
        {"free": None},
        {"queue": (WAITING,)},
        {"outlook": Outlook(drained={"a": "repair"})},
        {"outlook": Outlook(drained_nodes={"a": {"n2": "repair"}})},
        {"outlook": Outlook(quarantined={"a": ("n2",)})},
        {"run": after(plan(GANG), *placed("n1", "n1", "n2", "n2"))},
        {"run": after(plan(GANG), *placed("n1", "n1"), LeaveRequested("s", 1, "x"))},
        {"run": after(plan(stage("s", needs=Needs(workers=4))), *placed("n1", "n1"))},
    ],
)
def test_no_room_is_what_is_not_seen_wanted_by_others_emptied_or_not_needed(
    change: Mapping[str, object],
) -> None:
    post = Post()
    for name, value in change.items():
        setattr(post, name, value)
    assert post.growing(1200.0) == {}


def test_a_gang_that_shall_not_grow_does_not() -> None:
    post = Post(patience=None)
    assert post.watcher.pools(post.run) == set()
    assert post.growing(1200.0) == {}


def test_the_next_attempt_waits_anew_for_room() -> None:
    post = Post()
    assert post.growing(600.0) == ROOM
    left = replace(failure(FailureKind.DRAINED), evidence="left")
    events = (AttemptFailed("s", 1, left), RetryScheduled("s", "a", 0.0, "again"))
    for event in (*events, *placed("n1", "n1", number=2)):
        post.run = apply(post.run, event, 1.0)
    assert post.growing() == {}
    assert post.growing(590.0) == {}
    assert post.growing(20.0) == ROOM
