"""A better place is one that was there for a while: the rest of a gang, or the preferred pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from orchestrator.controller.better_places import PlaceWatcher
from orchestrator.core.errors import ClusterError
from orchestrator.core.failures.kinds import OF_A_NODE, FailureKind
from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.recovery import BetterPlace, Outlook
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    LeaveRequested,
    RetryScheduled,
)
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.policy import Recovery
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import NodeStatus, PoolState, PoolStatus, Queued
from tests.build import failure, plan, stage
from tests.core.histories import after
from tests.fakes import FakeClock

GANG = stage("s", needs=Needs(workers=4, min_workers=1))
SAID = "pool 'a' has room for all 4 workers, not 2"
ROOM = {"s": BetterPlace(attempt=1, pool="a", reason=SAID)}
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
        self.watcher = PlaceWatcher(self.clock, self.states, patience)

    def states(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        if self.free is None:
            raise ClusterError("the head is silent")
        nodes = tuple(NodeStatus(name=n, devices=2, free=f) for n, f in self.free.items())
        return {n: PoolStatus(name=n, state=PoolState.UP, members=nodes) for n in wanted}

    def better(self, seconds: float = 0.0) -> Mapping[str, BetterPlace]:
        """Return what is better after so many seconds, in which it looks all the time."""
        better = self.watcher.better(self.run, self.outlook, self.queue)
        for _ in range(int(seconds // 10)):
            self.clock.sleep(10.0)
            better = self.watcher.better(self.run, self.outlook, self.queue)
        return better


def test_a_gang_grows_when_there_has_been_room_for_long_enough() -> None:
    post = Post()
    assert post.better(590.0) == {}
    assert post.better(10.0) == ROOM


def test_room_that_comes_and_goes_is_none() -> None:
    post = Post()
    assert post.better(590.0) == {}
    post.free = {"n1": 0, "n2": 1}
    assert post.better(10.0) == {}
    post.free = {"n1": 1, "n2": 1}
    assert post.better(600.0) == {}
    assert post.better(10.0) == ROOM


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
    assert post.better(1200.0) == {}


def test_a_gang_that_shall_not_grow_does_not() -> None:
    post = Post(patience=None)
    assert post.watcher.pools(post.run) == set()
    assert post.better(1200.0) == {}


def test_the_next_attempt_waits_anew_for_room() -> None:
    post = Post()
    assert post.better(600.0) == ROOM
    left = replace(failure(FailureKind.DRAINED), evidence="left")
    events = (AttemptFailed("s", 1, left), RetryScheduled("s", "a", 0.0, "again"))
    for event in (*events, *placed("n1", "n1", number=2)):
        post.run = apply(post.run, event, 1.0)
    assert post.better() == {}
    assert post.better(590.0) == {}
    assert post.better(20.0) == {"s": replace(ROOM["s"], attempt=2)}


# --- the pool that is preferred ------------------------------------------------------------------

BACK = {
    "s": BetterPlace(attempt=2, pool="a", reason="pool 'a' has room again, which comes before 'b'")
}


class Away(Post):
    """A run whose stage of two workers fell back from pool `a` to `b`, for such a `kind`."""

    def __init__(
        self, kind: FailureKind = FailureKind.NODE_LOST, failback: float | None = 60.0
    ) -> None:
        super().__init__()
        recovery = Recovery(failback=failback)
        away = stage("s", needs=Needs(workers=2), recovery=recovery)
        fallen = replace(failure(kind), node="n2" if kind in OF_A_NODE else None)
        moved = (AttemptFailed("s", 1, fallen), RetryScheduled("s", "b", 0.0, ""))
        on_b = (AttemptStarted("s", 2, "b"), AttemptPlaced("s", 2, ("m1", "m1")))
        self.run = after(plan(away, pools=("a", "b")), *placed("n1", "n2"), *moved, *on_b)
        self.free = {"n1": 2, "n2": 2}


def test_a_stage_goes_back_once_the_pool_that_it_prefers_had_room_for_long_enough() -> None:
    away = Away()
    assert away.watcher.pools(away.run) == {"a"}
    assert away.better(50.0) == {}
    assert away.better(10.0) == BACK


def test_by_itself_no_stage_goes_back() -> None:
    away = Away(failback=None)
    assert away.watcher.pools(away.run) == set()
    assert away.better(1200.0) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"free": None},
        {"free": {}},
        {"free": {"n1": 1, "n2": 2}},  # it has just failed by n2
        {"queue": (WAITING,)},
        {"outlook": Outlook(drained={"a": "repair"})},
        {"outlook": Outlook(quarantined={"a": ("n1",)})},
    ],
)
def test_it_stays_where_the_preferred_pool_has_no_room_for_it(
    change: Mapping[str, object],
) -> None:
    away = Away(FailureKind.DEVICE_LOST)
    for name, value in change.items():
        setattr(away, name, value)
    assert away.better(1200.0) == {}


PASSING = {
    *("interconnect", "device_lost", "device_degraded", "host_memory", "software", "storage"),
    *("worker_lost", "node_lost", "placement", "unqualified", "hang", "serving", "drained"),
    "controller_lost",
}


@pytest.mark.parametrize("kind", FailureKind)
def test_it_goes_back_only_to_where_it_failed_by_what_passes(kind: FailureKind) -> None:
    passes = kind.value in PASSING
    assert Away(kind).better(60.0) == (BACK if passes else {})


def test_each_time_that_it_went_back_it_waits_twice_as_long() -> None:
    away = Away()
    left = replace(failure(FailureKind.DRAINED), evidence="left")
    lost = failure(FailureKind.NODE_LOST)
    for event in (
        AttemptFailed("s", 2, left),
        RetryScheduled("s", "a", 0.0, "back"),
        *placed("n1", "n1", number=3),
        AttemptFailed("s", 3, lost),
        RetryScheduled("s", "b", 0.0, "away"),
        AttemptStarted("s", 4, "b"),
        AttemptPlaced("s", 4, ("m1", "m1")),
    ):
        away.run = apply(away.run, event, 1.0)
    assert away.better(110.0) == {}
    assert away.better(10.0) == {"s": replace(BACK["s"], attempt=4)}


def test_the_pool_that_comes_first_goes_before_the_rest_of_a_gang() -> None:
    away = Away()
    needs = Needs(workers=4, min_workers=1)
    gang = replace(away.run.plan.stages[0].stage, needs=needs)
    moved = (
        AttemptFailed("s", 1, failure(FailureKind.PLACEMENT)),
        RetryScheduled("s", "b", 0, ""),
    )
    on_b = (AttemptStarted("s", 2, "b"), AttemptPlaced("s", 2, ("m1", "m1")))
    away.run = after(plan(gang, pools=("a", "b")), *placed("n1", "n2"), *moved, *on_b)
    assert away.better(600.0) == BACK
    away.free = {"n1": 1, "n2": 2}
    grown = "pool 'b' has room for all 4 workers, not 2"
    assert away.better(600.0) == {"s": BetterPlace(attempt=2, pool="b", reason=grown)}
