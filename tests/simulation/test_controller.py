"""How a controller ends: cancelled, too late, broken, or with nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.loop import Controller
from orchestrator.core.errors import ClusterError, StaleControllerError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptSaved,
    AttemptStarted,
    Event,
    RunFailed,
    RunStarted,
    RunState,
)
from orchestrator.core.settings import PATIENT
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.policy import AS_PLANNED, Gate, Limits, Recovery
from orchestrator.core.spec.stages import Needs, Stage
from orchestrator.messages import (
    Failed,
    Lease,
    Message,
    NodeStatus,
    Placed,
    Points,
    PoolState,
    PoolStatus,
    Queued,
    Saved,
    Succeeded,
)
from tests.build import REF, failure, header, plan, pool, stage
from tests.fakes import Asked, InMemory
from tests.memory import WatchedStore

ENDLESS: Sequence[tuple[float, Message]] = ((0.1, Placed(("n1",))),)
GOOD: Sequence[tuple[float, Message]] = (
    (0.1, Placed(("n1",))),
    (0.2, Points(1, {"loss": 2.0}, 0.2)),
    (0.3, Succeeded(REF, {"loss": 2.0})),
)
LOST: Sequence[tuple[float, Message]] = (
    (0.1, Placed(("n1",))),
    (0.2, Failed(failure(FailureKind.NODE_LOST))),
)
BENCH = AttemptDefaults(
    packages=("jobs",), code=(), storage="mem://", reuse_key=lambda _run, _one: None
)


class Bench(InMemory):
    """A run of `stages` in which every attempt says the same, or what `script` has for it."""

    def __init__(
        self,
        said: Sequence[tuple[float, Message]],
        *stages: Stage,
        pools: Sequence[str] = ("a",),
        **known: Pool,
    ) -> None:
        self.script: dict[str, Sequence[tuple[float, Message]]] = {}
        super().__init__(lambda asked: self.script.get(asked.key, said))
        self.header = header(plan(*(stages or (stage("s"),)), pools=pools, **known))
        self.store.create(self.header, 0.0)

    def controller(self) -> Controller:
        return Controller(self.header, self.ports, BENCH)

    def drive(self) -> Run:
        return self.controller().drive()


def test_an_attempt_is_asked_for_with_all_that_it_needs() -> None:
    defaults = Bench(GOOD, stage("s", params={"steps": 3}), stage("t", inputs={"data": "s"}))
    assert defaults.drive().state is RunState.SUCCEEDED
    first, second = defaults.cluster.asked.values()
    assert (first.key, second.key) == ("run/s/1", "run/t/1")
    asked: Asked = second
    assert asked.inputs == {"data": REF}  # type: ignore[union-attr]
    assert first.params == {"steps": 3}  # type: ignore[union-attr]
    assert (asked.epoch, asked.pool.name, asked.storage) == (1, "a", "mem://")  # type: ignore[union-attr]


def test_metric_points_are_kept_and_the_tracker_is_told_of_all_that_is_new() -> None:
    defaults = Bench(GOOD)
    defaults.drive()
    (point,) = defaults.store.points("run")
    assert (point.stage, point.attempt, point.key, point.value) == ("s", 1, "loss", 2.0)
    assert defaults.tracker.told == len(defaults.store.events("run")) + 1


def test_a_stage_whose_input_was_never_made_fails_by_its_data() -> None:
    silent = ((0.1, Succeeded(None, {})),)
    defaults = Bench(silent, stage("s"), stage("t", inputs={"data": "s"}))
    run = defaults.drive()
    (attempt,) = run.stages["t"].attempts
    assert attempt.failure
    assert attempt.failure.kind is FailureKind.DATA
    assert attempt.failure.evidence == "input 'data': stage 's' made no artifact"
    assert "run/t/1" not in defaults.cluster.asked


def test_whoever_asks_can_cancel_from_inside_this_process() -> None:
    defaults = Bench(ENDLESS)
    controller = defaults.controller()
    defaults.clock.at(1.0, lambda: controller.cancel("stopped by the user"))
    run = controller.drive()
    assert (run.state, run.reason) == (RunState.CANCELLED, "stopped by the user")
    assert defaults.cluster.cancelled == ["run/s/1"]


def test_whoever_asks_can_cancel_by_the_store_and_is_heard_within_a_second() -> None:
    defaults = Bench(ENDLESS)
    defaults.clock.at(1.0, lambda: defaults.store.request_cancel("run"))
    assert defaults.drive().state is RunState.CANCELLED
    assert defaults.clock.now() < 2.0


def test_an_endless_attempt_ends_at_the_time_limit_of_its_stage() -> None:
    defaults = Bench(ENDLESS, stage("s", limits=Limits(timeout=5.0, grace=0.0)))
    run = defaults.drive()
    assert run.reason.endswith("time: stage 's' ran over its time limit of 5.0 s")
    assert defaults.cluster.cancelled == ["run/s/1"]


def test_a_run_that_is_over_is_not_driven_again() -> None:
    defaults = Bench(GOOD)
    defaults.store.append("run", 1, (RunStarted(1), RunFailed("broken")), 0.0)
    assert defaults.drive().state is RunState.FAILED
    assert len(defaults.store.events("run")) == 2


def test_a_controller_that_takes_over_raises_the_epoch_and_goes_on() -> None:
    defaults = Bench(GOOD)
    defaults.store.append("run", 1, (RunStarted(4),), 0.0)
    run = defaults.drive()
    assert (run.state, run.epoch) == (RunState.SUCCEEDED, 5)


def test_a_controller_that_breaks_gives_back_what_it_holds() -> None:
    defaults = Bench(ENDLESS)
    defaults.cluster.recorded = False

    def interrupt() -> None:
        raise KeyboardInterrupt

    defaults.clock.at(1.0, interrupt)
    with pytest.raises(KeyboardInterrupt):
        defaults.drive()
    assert not defaults.cluster.active


# --- what happens beside the run ----------------------------------------------------------------


def test_an_attempt_on_an_emptied_pool_leaves_at_its_checkpoint_and_the_next_pool_takes_over() -> (
    None
):
    defaults = Bench(ENDLESS, pools=("a", "b"))
    defaults.script["run/s/2"] = GOOD
    left = Failed(Failure(kind=FailureKind.DRAINED, evidence="left after step 10", step=10))

    def leave() -> None:
        assert defaults.artifacts.marks == {"checkpoints/run/s/leave-1": "repair"}
        defaults.cluster.active["run/s/1"] = [(0.0, Saved(10)), (0.0, left)]

    defaults.clock.at(1.0, lambda: defaults.store.drain("a", "repair"))
    defaults.clock.at(3.0, leave)
    run = defaults.drive()
    assert run.state is RunState.SUCCEEDED
    first, second = run.stages["s"].attempts
    assert (first.leaving, first.saved, second.pool) == ("repair", (10,), "b")


def test_an_attempt_is_asked_to_leave_though_the_storage_is_away_for_two_minutes() -> None:
    defaults = Bench(ENDLESS, pools=("a", "b"))
    defaults.script["run/s/2"] = GOOD
    defaults.artifacts.away = True
    left = Failed(Failure(kind=FailureKind.DRAINED, evidence="left after step 10", step=10))

    def mend() -> None:
        defaults.artifacts.away = False

    def leave() -> None:
        assert defaults.artifacts.marks == {"checkpoints/run/s/leave-1": "repair"}
        defaults.cluster.active["run/s/1"] = [(0.0, Saved(10)), (0.0, left)]

    defaults.clock.at(1.0, lambda: defaults.store.drain("a", "repair"))
    defaults.clock.at(121.0, mend)
    defaults.clock.at(131.0, leave)
    assert defaults.drive().state is RunState.SUCCEEDED


def test_a_run_that_ended_waits_for_no_storage_that_is_away() -> None:
    defaults = Bench(ENDLESS, pools=("a", "b"))
    defaults.script["run/s/2"] = GOOD
    defaults.artifacts.away = True
    left = Failed(Failure(kind=FailureKind.DRAINED, evidence="left after step 10", step=10))
    ends = [(0.0, Saved(10)), (0.0, left)]
    defaults.clock.at(1.0, lambda: defaults.store.drain("a", "repair"))
    defaults.clock.at(3.0, lambda: defaults.cluster.active.update({"run/s/1": ends}))
    assert defaults.drive().state is RunState.SUCCEEDED
    assert defaults.clock.now() < PATIENT.storage / 2


def test_a_gang_that_began_with_fewer_workers_begins_whole_once_there_is_room() -> None:
    gang = stage("s", needs=Needs(workers=2, min_workers=1))
    defaults = Bench(ENDLESS, gang, pools=("a", "b"))
    defaults.script["run/s/2"] = ((0.1, Placed(("n1", "n2"))), *GOOD[1:])
    left = Failed(Failure(kind=FailureKind.DRAINED, evidence="left after step 10", step=10))
    free = (NodeStatus(name="n2", devices=1, free=1),)
    room = {"a": PoolStatus(name="a", state=PoolState.UP, members=free)}
    defaults.cluster.pools = lambda _wanted: room

    def leave() -> None:
        asked = {"checkpoints/run/s/leave-1": "pool 'a' has room for all 2 workers, not 1"}
        assert defaults.artifacts.marks == asked
        defaults.cluster.active["run/s/1"] = [(0.0, Saved(10)), (0.0, left)]

    defaults.clock.at(620.0, leave)
    run = defaults.drive()
    assert run.state is RunState.SUCCEEDED
    first, second = run.stages["s"].attempts
    assert (first.goes_to, first.saved) == ("a", (10,))
    assert (second.pool, second.nodes) == ("a", ("n1", "n2"))
    assert second.started - 620.0 < 1.0, "it waits for nothing"


def test_a_stage_that_fell_back_goes_on_where_it_began_once_there_is_room_again() -> None:
    recovery, limits = Recovery(failback=60.0), Limits(tries=1)
    defaults = Bench(LOST, stage("s", recovery=recovery, limits=limits), pools=("a", "b"))
    defaults.script |= {"run/s/2": ENDLESS, "run/s/3": GOOD}
    state = PoolStatus(name="a", state=PoolState.DOWN)
    room = {"a": state}
    defaults.cluster.pools = lambda _wanted: room
    left = Failed(Failure(kind=FailureKind.DRAINED, evidence="left after step 10", step=10))

    def heal() -> None:
        free = (NodeStatus(name="n1", devices=8, free=8),)
        room["a"] = replace(state, state=PoolState.UP, members=free)

    def leave() -> None:
        asked = {"checkpoints/run/s/leave-2": "pool 'a' has room again, which comes before 'b'"}
        assert defaults.artifacts.marks == asked
        defaults.cluster.active["run/s/2"] = [(0.0, Saved(10)), (0.0, left)]

    defaults.clock.at(300.0, heal)
    defaults.clock.at(380.0, leave)
    run = defaults.drive()
    assert run.state is RunState.SUCCEEDED
    attempts = run.stages["s"].attempts
    assert [attempt.pool for attempt in attempts] == ["a", "b", "a"]
    assert (attempts[1].goes_to, attempts[1].saved) == ("a", (10,))


def test_a_stage_at_its_gate_starts_nothing_until_that_is_open() -> None:
    defaults = Bench(GOOD, stage("s", gate=Gate(kind="approval")))
    defaults.clock.at(5.0, lambda: defaults.gates.opened.update(s="approved by ann"))
    run = defaults.drive()
    assert run.state is RunState.SUCCEEDED
    assert run.stages["s"].gate_opened == "approved by ann"
    assert run.stages["s"].attempts[0].started >= 5.0


@pytest.mark.parametrize("ahead", [60.0, -60.0])
def test_the_times_of_a_run_are_the_databases_on_a_host_whose_clock_is_wrong(ahead: float) -> None:
    defaults = Bench(GOOD)
    defaults.clock.step(ahead)
    run = defaults.drive()
    assert run.state is RunState.SUCCEEDED
    times = [stored.at for stored in defaults.store.events("run")]
    assert times[0] == 0.0
    assert times[-1] <= defaults.clock.monotonic()


def test_a_run_waits_behind_one_of_higher_priority_for_the_same_pool() -> None:
    defaults = Bench(GOOD)
    first = Queued(pool="a", run="other", stage="t", priority=5, since=0.0)
    defaults.store.queue_up("other", (first,))
    defaults.clock.at(3.0, lambda: defaults.store.queue_up("other", ()))
    run = defaults.drive()
    assert run.state is RunState.SUCCEEDED
    assert run.stages["s"].attempts[0].started >= 3.0
    assert defaults.store.queue(60.0) == []


def test_a_gang_stands_by_on_the_next_pool_and_is_sent_away_with_the_stage() -> None:
    defaults = Bench(GOOD, stage("s", recovery=Recovery(standby=True)), pools=("a", "b"))
    defaults.drive()
    assert defaults.cluster.prepared == [("run/s/2", "b")]
    assert defaults.cluster.released == ["run/s"]


def test_a_controller_that_breaks_sends_those_away_that_stand_by() -> None:
    defaults = Bench(ENDLESS, stage("s", recovery=Recovery(standby=True)), pools=("a", "b"))
    defaults.cluster.recorded = False

    def gone() -> None:
        raise ClusterError("the cluster is gone")

    defaults.clock.at(1.0, gone)
    with pytest.raises(ClusterError):
        defaults.drive()
    assert defaults.cluster.released == ["run/s"]
    assert not defaults.controller().run.done


def test_an_attempt_knows_the_nodes_that_it_must_avoid_and_what_it_shall_do_otherwise() -> None:
    defaults = Bench(GOOD, stage("s"), a=pool("a", nodes=2))
    lost = Failure(kind=FailureKind.NODE_LOST, evidence="gone", node="n1")
    defaults.script["run/s/1"] = ((0.1, Failed(lost)),)
    assert defaults.drive().state is RunState.SUCCEEDED
    second = defaults.cluster.asked["run/s/2"]
    assert second.avoid == ("n1",)  # type: ignore[union-attr]
    assert second.adjust == AS_PLANNED  # type: ignore[union-attr]


def test_a_controller_that_has_nothing_to_commit_notices_that_another_took_over() -> None:
    defaults = Bench(ENDLESS, stage("s", limits=Limits(timeout=1e6)))
    later = Lease(run="run", epoch=2, at=3.0, holder="other")
    defaults.clock.at(3.0, lambda: defaults.store.renew_lease(later))
    with pytest.raises(StaleControllerError):
        defaults.drive()
    assert defaults.clock.now() < 4.0
    assert defaults.store.lease("run") == later


def overtaken(bench: Bench, *others: Event) -> Run:
    """Drive the run while another controller commits one of `others` before each commit."""
    left = list(others)

    def commit(_seq: int, _events: Sequence[Event]) -> None:
        if left:
            bench.store.append("run", len(bench.store.log["run"]) + 1, (left.pop(0),), 0.0)

    store = WatchedStore.of(bench.store)
    store.before = commit
    return Controller(bench.header, replace(bench.ports, store=store), BENCH).drive()


def test_a_busy_controller_can_be_taken_over() -> None:
    defaults = Bench(GOOD)
    defaults.store.append("run", 1, (RunStarted(1),), 0.0)
    defaults.store.append("run", 2, (AttemptStarted("s", 1, "a"),), 0.0)
    run = overtaken(defaults, AttemptSaved("s", 1, 5), AttemptSaved("s", 1, 6))
    assert (run.state, run.epoch) == (RunState.SUCCEEDED, 2)
    assert [attempt.saved for attempt in run.stages["s"].attempts] == [(5, 6), ()]


def test_of_two_that_take_a_run_over_at_once_one_stops() -> None:
    defaults = Bench(GOOD)
    with pytest.raises(StaleControllerError):
        overtaken(defaults, RunStarted(1))
    assert not defaults.cluster.asked
