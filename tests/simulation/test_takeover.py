"""Seeded runs whose controllers die without a word at any call, while others take the run over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from orchestrator.controller.lease import LeaseState, lease_state
from orchestrator.controller.loop import Controller
from orchestrator.controller.reaper import Reaper
from orchestrator.core.errors import StaleControllerError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptStarted,
    AttemptSucceeded,
    Event,
    RunStarted,
    RunState,
    StageReused,
)
from orchestrator.messages import AttemptRequest, Lease, Message
from tests.fakes import Asked, FakeClock, FakeCluster, MemoryStore, Script
from tests.memory import WatchedStore
from tests.simulation.test_controller import BENCH, GOOD, Bench
from tests.simulation.test_loop import Simulation, check_stage

RUNS = 300


class Killed(BaseException):
    """What SIGKILL is here: nothing of the controller acts after it."""


class Fate:
    """Kills the controller that makes a certain call of all."""

    def __init__(self, calls: list[int]) -> None:
        self.left = sorted(calls)
        self.made = 0

    def call(self) -> None:
        self.made += 1
        if self.left and self.made >= self.left[0]:
            self.left.pop(0)
            raise Killed


class Driver(FakeCluster):
    """A controller's own connection: what it started dies with it, and others can't see that."""

    def __init__(self, clock: FakeClock, store: MemoryStore, script: Script, fate: Fate) -> None:
        super().__init__(clock, store, script)
        self._fate = fate

    def start(self, request: Asked) -> None:
        self._fate.call()
        super().start(request)
        self._fate.call()

    def poll(self, key: str) -> Sequence[Message]:
        self._fate.call()
        return super().poll(key)

    def cancel(self, key: str) -> None:
        if key in self.asked and not self.closed:
            super().cancel(key)

    def prepare(self, request: AttemptRequest) -> None:
        if not self.closed:
            super().prepare(request)


@dataclass
class Mortal(Simulation):
    """A run whose controllers die, and are followed by others."""

    deaths: int = 0

    def __post_init__(self) -> None:
        self.store = store = WatchedStore()
        super().__post_init__()
        calls = [self.dice.randint(1, 150) for _ in range(self.dice.randint(1, 3))]
        self.fate = Fate(calls)
        store.before = lambda _seq, _events: self.fate.call()  # a death before a commit
        store.after = self.fate.call
        self.drivers: list[Driver] = []

    def drive(self) -> None:
        """Be a controller until the end, until another takes over, or until death."""
        jobs, endpoints = (
            Driver(self.clock, self.store, self.script, self.fate) for _ in range(2)
        )
        self.drivers += [jobs, endpoints]
        controller = Controller(
            self.header, replace(self.ports, cluster=jobs, serving=endpoints), self.defaults
        )
        for driver in (jobs, endpoints):
            driver.recorded = False  # what a session closes was not always told to end
        try:
            controller.drive()
        except StaleControllerError:
            self.stale += 1
        except Killed:
            self.deaths += 1
        for driver in (jobs, endpoints):
            driver.close()

    def driven(self) -> Run:
        while not (run := self.stored()).done:
            self.drive()
            self.clock.sleep(self.dice.uniform(0.0, 0.5))
        return run

    def check(self, run: Run) -> None:
        assert run == Controller(self.header, self.ports, self.defaults).run
        for one in run.stages.values():
            check_stage(one, calm=self.calm)
        asked = Counter(key for driver in self.drivers for key in driver.asked)
        assert set(asked.values()) <= {1}, "an attempt was asked for twice"
        started = {f"run/{a.stage}/{a.number}" for s in run.stages.values() for a in s.attempts}
        assert asked.keys() <= started
        assert not any(driver.active for driver in self.drivers)
        check_history([stored.event for stored in self.store.events("run")])


def check_history(events: list[Event]) -> None:
    """Epochs grow, and no stage is run again that has succeeded."""
    epochs = [event.epoch for event in events if isinstance(event, RunStarted)]
    assert epochs == list(range(1, len(epochs) + 1))
    done: set[str] = set()
    for event in events:
        if isinstance(event, AttemptSucceeded | StageReused):
            done.add(event.stage)
        if isinstance(event, AttemptStarted):
            assert event.stage not in done, f"{event.stage} ran again"


@pytest.mark.parametrize("block", range(1))
def test_runs_whose_controllers_die_keep_every_promise(block: int) -> None:
    ends: Counter[str] = Counter()
    for seed in range(block * RUNS, (block + 1) * RUNS):
        simulation = Mortal(seed)
        ends[simulation.play().state] += 1
        ends["died"] += simulation.deaths
        ends["stale"] += simulation.stale
    expected = {"succeeded", "failed", "cancelled", "died", "stale"}
    assert {end for end in expected if ends[end] < 10} == set(), ends


@pytest.mark.parametrize("old", [None, Lease(run="run", epoch=1, at=0.0, holder="gone")])
def test_a_controller_that_has_just_begun_is_there_for_all_other_hosts(old: Lease | None) -> None:
    bench = Bench(GOOD)
    bench.clock.sleep(1000.0)
    store = WatchedStore.of(bench.store)
    store.append("run", 1, (RunStarted(1),), 0.0)
    if old is not None:
        store.renew_lease(old)
    buried, states = list[str](), list[LeaseState | None]()

    def bury(run: Run, reason: str) -> bool:
        buried.append(f"{run.header.run}: {reason}")
        return True

    reaper = Reaper(store, lambda _: None, bury)
    reaper.reap()  # which has found the old lease dead once

    def look() -> None:
        run = fold(bench.header, ((item.at, item.event) for item in store.log["run"]))
        states.append(lease_state(run, store.lease("run"), store.now(), lambda _: None))
        reaper.reap()

    store.after = look
    run = Controller(bench.header, replace(bench.ports, store=store), BENCH).drive()
    assert (run.state, run.epoch) == (RunState.SUCCEEDED, 2)
    assert set(states) <= {LeaseState.ALIVE, None}
    assert buried == []


def test_the_loser_of_a_race_leaves_the_lease_of_the_winner_as_it_is() -> None:
    bench = Bench(GOOD)
    winner = Lease(run="run", epoch=1, at=0.0, holder="winner")

    def overtake(seq: int, _events: Sequence[Event]) -> None:
        if seq == 1:
            bench.store.append("run", 1, (RunStarted(1),), 0.0, winner)

    store = WatchedStore.of(bench.store)
    store.before = overtake
    with pytest.raises(StaleControllerError):
        Controller(bench.header, replace(bench.ports, store=store), BENCH).drive()
    assert store.lease("run") == winner
