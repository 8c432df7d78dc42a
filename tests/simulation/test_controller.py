"""How a controller ends: cancelled, too late, broken, or with nothing to do."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.control.loop import Controller, World
from orchestrator.control.requests import Workbench
from orchestrator.core.failure import FailureKind
from orchestrator.core.policy import Limits
from orchestrator.core.run import Run
from orchestrator.core.spec import Stage
from orchestrator.core.state import RunFailed, RunStarted, RunState
from orchestrator.messages import Message, Placed, Points, Succeeded
from tests.build import REF, header, plan, stage
from tests.fakes import (
    Asked,
    FakeArtifacts,
    FakeClock,
    FakeCluster,
    FakeGates,
    FakeTracker,
    MemoryStore,
)

ENDLESS: Sequence[tuple[float, Message]] = ((0.1, Placed(("n1",))),)
GOOD: Sequence[tuple[float, Message]] = (
    (0.1, Placed(("n1",))),
    (0.2, Points(1, {"loss": 2.0}, 0.2)),
    (0.3, Succeeded(REF, {"loss": 2.0})),
)
BENCH = Workbench(packages=("jobs",), code=(), storage="mem://", reuse_key=lambda _run, _one: None)


class Bench:
    """A run of `stages` in which every attempt says the same."""

    def __init__(self, said: Sequence[tuple[float, Message]], *stages: Stage) -> None:
        self.clock, self.store = FakeClock(), MemoryStore()
        self.cluster = FakeCluster(self.clock, self.store, lambda _asked: said)
        self.header = header(plan(*(stages or (stage("s"),))))
        self.tracker = FakeTracker()
        self.world = World(
            cluster=self.cluster,
            serving=self.cluster,
            store=self.store,
            artifacts=FakeArtifacts(),
            tracker=self.tracker,
            clock=self.clock,
            gates=FakeGates(),
        )
        self.store.create(self.header, 0.0)

    def controller(self) -> Controller:
        return Controller(self.header, self.world, BENCH)

    def drive(self) -> Run:
        return self.controller().drive()


def test_an_attempt_is_asked_for_with_all_that_it_needs() -> None:
    bench = Bench(GOOD, stage("s", params={"steps": 3}), stage("t", inputs={"data": "s"}))
    assert bench.drive().state is RunState.SUCCEEDED
    first, second = bench.cluster.asked.values()
    assert (first.key, second.key) == ("run/s/1", "run/t/1")
    asked: Asked = second
    assert asked.inputs == {"data": REF}  # type: ignore[union-attr]
    assert first.params == {"steps": 3}  # type: ignore[union-attr]
    assert (asked.epoch, asked.pool.name, asked.storage) == (1, "a", "mem://")  # type: ignore[union-attr]


def test_metric_points_are_kept_and_the_tracker_is_told_of_all_that_is_new() -> None:
    bench = Bench(GOOD)
    bench.drive()
    (point,) = bench.store.points("run")
    assert (point.stage, point.attempt, point.key, point.value) == ("s", 1, "loss", 2.0)
    assert bench.tracker.told == len(bench.store.events("run")) + 1


def test_a_stage_whose_input_was_never_made_fails_by_its_data() -> None:
    silent = ((0.1, Succeeded(None, {})),)
    bench = Bench(silent, stage("s"), stage("t", inputs={"data": "s"}))
    run = bench.drive()
    (attempt,) = run.stages["t"].attempts
    assert attempt.failure
    assert attempt.failure.kind is FailureKind.DATA
    assert attempt.failure.evidence == "input 'data': stage 's' made no artifact"
    assert "run/t/1" not in bench.cluster.asked


def test_whoever_asks_can_cancel_from_inside_this_process() -> None:
    bench = Bench(ENDLESS)
    controller = bench.controller()
    bench.clock.at(1.0, lambda: controller.cancel("stopped by the user"))
    run = controller.drive()
    assert (run.state, run.reason) == (RunState.CANCELLED, "stopped by the user")
    assert bench.cluster.cancelled == ["run/s/1"]


def test_whoever_asks_can_cancel_by_the_store_and_is_heard_within_a_second() -> None:
    bench = Bench(ENDLESS)
    bench.clock.at(1.0, lambda: bench.store.request_cancel("run"))
    assert bench.drive().state is RunState.CANCELLED
    assert bench.clock.now() < 2.0


def test_an_endless_attempt_ends_at_the_time_limit_of_its_stage() -> None:
    bench = Bench(ENDLESS, stage("s", limits=Limits(timeout=5.0)))
    run = bench.drive()
    assert run.reason.endswith("time: stage 's' ran over its time limit of 5.0 s")
    assert bench.cluster.cancelled == ["run/s/1"]


def test_a_run_that_is_over_is_not_driven_again() -> None:
    bench = Bench(GOOD)
    bench.store.append("run", 1, (RunStarted(1), RunFailed("broken")), 0.0)
    assert bench.drive().state is RunState.FAILED
    assert len(bench.store.events("run")) == 2


def test_a_controller_that_takes_over_raises_the_epoch_and_goes_on() -> None:
    bench = Bench(GOOD)
    bench.store.append("run", 1, (RunStarted(4),), 0.0)
    run = bench.drive()
    assert (run.state, run.epoch) == (RunState.SUCCEEDED, 5)


def test_a_controller_that_breaks_gives_back_what_it_holds() -> None:
    bench = Bench(ENDLESS)
    bench.cluster.recorded = False

    def interrupt() -> None:
        raise KeyboardInterrupt

    bench.clock.at(1.0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.drive()
    assert not bench.cluster.active
