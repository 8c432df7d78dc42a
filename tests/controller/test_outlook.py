"""What a controller sees of the world beside its run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from orchestrator.controller.better_places import PlaceWatcher
from orchestrator.controller.outlook import SECONDS_IN_QUEUE, OutlookWatcher
from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.recovery import Outlook
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptPlaced,
    AttemptStarted,
    GateReached,
    RunStarted,
    StageMoved,
)
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.policy import Gate
from orchestrator.messages import PoolState, PoolStatus, Queued
from tests.build import header, plan, stage
from tests.fakes import FakeClock, FakeGates, MemoryStore

APPROVAL = Gate(kind="approval")


class CountingStore(MemoryStore):
    """Counts how often the queue was read, and how much of it."""

    times = entries = 0

    def queue(self, seconds: float, pools: Collection[str] | None = None) -> Sequence[Queued]:
        listed = super().queue(seconds, pools)
        self.times += 1
        self.entries += len(listed)
        return listed


class Post:
    """A run of one stage, and its outlook."""

    def __init__(self, gate: Gate | None = None, pools: Sequence[str] = ("a",)) -> None:
        self.store, self.gates, self.clock = CountingStore(), FakeGates(), FakeClock(100.0)
        self.store.now = self.clock.now
        self.free: int | None = None
        growth = PlaceWatcher(self.clock, self.states, 600.0)
        self.watcher = OutlookWatcher(self.store, self.gates, self.clock, growth)
        self.run: Run = apply(
            begin(header(plan(stage("s", gate=gate), pools=pools))), RunStarted(3), 100.0
        )

    def states(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        if self.free is None:
            raise ClusterError("the head is silent")
        up = PoolState.UP
        return {n: PoolStatus(name=n, state=up, devices=8, free=self.free) for n in wanted}

    def wait_behind(self, count: int, pool: str = "a") -> None:
        """Have so many others wait, who came before."""
        for number in range(count):
            one = replace(other(priority=0, since=50.0), pool=pool, run=f"{pool}-{number}")
            self.store.queue_up(one.run, (one,))

    def looks(self, seconds: float) -> int:
        """Return how often it reads the queue in so many seconds, at a turn each quarter."""
        before = self.store.times
        for _ in range(int(seconds * 4)):
            self.look(after=0.25)
        return self.store.times - before

    def look(self, after: float = 0.0) -> Outlook:
        self.clock.sleep(after)
        return self.watcher.refresh(self.run, self.clock.now())


def other(priority: int, since: float, devices: int = 1) -> Queued:
    return Queued(
        pool="a", run="other", stage="t", priority=priority, since=since, devices=devices
    )


def test_emptied_pools_are_seen_within_a_second() -> None:
    post = Post()
    post.look()
    post.store.drain("a", "repair")
    assert post.look(after=0.6).drained == {"a": "repair"}
    post.store.undrain("a")
    assert post.look(after=0.6).drained == {}


def test_who_has_a_higher_priority_or_came_first_goes_before() -> None:
    post = Post()
    post.store.queue_up("other", (other(priority=5, since=200.0),))
    assert post.look().behind == {"s": "waits for pool 'a' behind other/t (priority 5)"}
    post.store.queue_up("other", (other(priority=0, since=200.0),))
    assert post.look(after=0.6).behind == {}
    post.store.queue_up("other", (other(priority=0, since=50.0),))
    assert "s" in post.look(after=0.6).behind
    post.store.queue_up("other", ())
    assert post.look(after=0.6).behind == {}


def test_who_needs_a_free_chip_passes_one_that_waits_for_more_than_are_free() -> None:
    post = Post()
    post.store.queue_up("other", (other(priority=0, since=50.0, devices=8),))
    assert post.look().behind, "nobody knows what is free"
    post.free = 4
    assert post.look(after=0.6).behind == {}
    post.free = 8
    assert post.look(after=0.6).behind, "now the other one has its place"


def test_who_has_many_ahead_asks_less_often_and_sees_within_seconds_that_they_left() -> None:
    post = Post()
    assert post.looks(16.0) == 32
    post.wait_behind(200)
    post.look(after=0.6)
    assert post.looks(16.0) == 4
    for number in range(200):
        post.store.queue_up(f"a-{number}", ())
    assert post.look(after=4.1).behind == {}
    assert post.looks(8.0) == 16, "it is next again"


def test_who_waits_for_a_pool_reads_the_line_of_that_alone() -> None:
    post = Post()
    post.wait_behind(3)
    post.wait_behind(300, pool="b")
    assert post.look().behind
    assert post.store.entries == 4


def test_who_waits_for_nothing_reads_no_queue_and_looks_every_two_seconds() -> None:
    post = Post()
    post.run = apply(post.run, AttemptStarted("s", 1, "a"), 100.0)
    post.run = apply(post.run, AttemptPlaced("s", 1, ("n1",)), 100.0)
    post.look()
    post.store.drain("a", "repair")
    assert post.look(after=1.0).drained == {}
    assert post.look(after=1.1).drained == {"a": "repair"}
    assert post.store.times == 0


def test_pools_of_one_name_in_two_fleets_are_two() -> None:
    post = Post()
    post.store.drain("other/a", "repair")
    far = replace(other(priority=9, since=0.0), pool="other/a", run="far")
    post.store.queue_up("far", (far,))
    found = post.look()
    assert (found.drained, found.behind) == ({}, {})
    post.store.drain("test/a", "repair")
    assert post.look(after=0.6).drained == {"a": "repair"}


def test_after_a_move_the_line_of_the_pool_before_holds_nobody_up() -> None:
    post = Post(pools=("a", "b"))
    post.store.queue_up("other", (other(priority=5, since=50.0),))
    assert post.look().behind
    post.run = apply(post.run, StageMoved("s", "b", "goes to b"), 100.1)
    assert post.look(after=0.1).behind == {}
    assert [one.pool for one in post.store.queue(60.0) if one.run == "run"] == ["test/b"]


def test_who_has_not_been_heard_for_long_waits_no_more() -> None:
    post = Post()
    post.store.queue_up("other", (other(priority=5, since=0.0),))
    assert post.look().behind
    assert not post.look(after=SECONDS_IN_QUEUE + 1.0).behind


def test_a_run_leaves_the_queue_once_it_has_its_place_and_when_it_ends() -> None:
    post = Post()
    post.look()
    (entry,) = post.store.queue(60.0)
    assert (entry.pool, entry.stage, entry.since) == ("test/a", "s", 100.0)
    post.run = apply(post.run, AttemptStarted("s", 1, "a"), 101.0)
    post.look(after=1.0)
    assert post.store.queue(60.0) == [entry], "it keeps its turn while it waits for its place"
    post.run = apply(post.run, AttemptPlaced("s", 1, ("n1",)), 102.0)
    post.look(after=1.0)
    assert post.store.queue(60.0) == []
    post.watcher.leave(post.run)


def test_a_run_that_ends_while_it_waits_leaves_the_queue() -> None:
    post = Post()
    post.look()
    post.watcher.leave(post.run)
    assert post.store.queue(60.0) == []


def test_gates_are_looked_at_every_two_seconds() -> None:
    post = Post(APPROVAL)
    post.run = apply(post.run, GateReached("s", "approval"), 100.0)
    assert post.look().opened == {}
    post.gates.opened["s"] = "approved by ann"
    assert post.look(after=1.0).opened == {}
    assert post.look(after=1.1).opened == {"s": "approved by ann"}


def test_nodes_of_its_fleet_that_are_not_to_be_used_are_seen() -> None:
    post = Post()
    post.store.quarantine("test/a", "n1", "Xid 79", 10.0)
    post.store.quarantine("other/a", "n2", "Xid 79", 10.0)
    post.store.drain_node("test/a", "n3", "repair")
    seen = post.look(after=0.6)
    assert (seen.quarantined, seen.drained_nodes) == ({"a": ("n1",)}, {"a": {"n3": "repair"}})
    assert post.look(after=10.0).quarantined == {}


def test_nodes_of_its_cluster_are_not_used_whichever_fleet_says_so() -> None:
    post = Post()
    config = {"cluster": {"address": "head:6379"}}
    post.run = replace(post.run, header=replace(post.run.header, config=config))
    post.store.quarantine("lab@head/a", "n1", "Xid 79", 10.0)
    post.store.quarantine("lab@elsewhere/a", "n2", "Xid 79", 10.0)
    post.store.drain_node("lab@head/a", "n3", "repair")
    post.store.quarantine("test@head/a", "n3", "Xid 79", 10.0)
    seen = post.look(after=0.6)
    assert (seen.quarantined, seen.drained_nodes) == ({"a": ("n1",)}, {"a": {"n3": "repair"}})
