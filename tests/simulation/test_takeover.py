"""Seeded runs whose controllers die without a word at any call, while others take the run over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from orchestrator.controller.loop import Controller
from orchestrator.core.errors import StaleControllerError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptStarted,
    AttemptSucceeded,
    Event,
    RunStarted,
    StageReused,
)
from orchestrator.messages import AttemptRequest, Message
from tests.fakes import Asked, FakeClock, FakeCluster, MemoryStore, Script
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


class MortalStore(MemoryStore):
    """Its callers may die before a commit and after it."""

    fate: Fate

    def append(self, run: str, seq: int, events: Sequence[Event], at: float) -> None:
        self.fate.call()
        super().append(run, seq, events, at)
        self.fate.call()


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
        self.store = store = MortalStore()
        super().__post_init__()
        calls = [self.dice.randint(1, 150) for _ in range(self.dice.randint(1, 3))]
        self.fate = store.fate = Fate(calls)
        self.drivers: list[Driver] = []

    def drive(self) -> None:
        """Be a controller until the end, until another takes over, or until death."""
        jobs, endpoints = (
            Driver(self.clock, self.store, self.script, self.fate) for _ in range(2)
        )
        self.drivers += [jobs, endpoints]
        controller = Controller(
            self.header, replace(self.dependencies, cluster=jobs, serving=endpoints), self.defaults
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

    def play(self) -> Run:
        self.interfere()
        run = self.stored()
        while not run.done:
            self.drive()
            self.clock.sleep(self.dice.uniform(0.0, 0.5))
            run = self.stored()
        self.check(run)
        return run

    def stored(self) -> Run:
        events = [(stored.at, stored.event) for stored in self.store.events(self.header.run)]
        return fold(self.header, events)

    def check(self, run: Run) -> None:
        assert run == Controller(self.header, self.dependencies, self.defaults).run
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
        try:
            ends[simulation.play().state] += 1
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise
        ends["died"] += simulation.deaths
        ends["stale"] += simulation.stale
    expected = {"succeeded", "failed", "cancelled", "died", "stale"}
    assert {end for end in expected if ends[end] < 10} == set(), ends
