"""What breaks around a run: it ends as if nothing had, and what was not told is counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.controller.loop import Controller
from orchestrator.core.errors import (
    ClusterError,
    StaleControllerError,
    StoreError,
    UnstorableError,
)
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import AttemptSaved, Event, RunStarted, RunState
from orchestrator.core.settings import PATIENT
from orchestrator.core.spec.policy import Gate, Limits, Recovery
from orchestrator.error_boundary import reason
from orchestrator.messages import (
    Alive,
    LogLine,
    Message,
    Placed,
    Points,
    Progress,
    Report,
    Resumed,
    Saved,
    Succeeded,
    Waiting,
)
from tests.build import REF, header, plan, stage
from tests.fakes import FakeCluster, InMemory
from tests.memory import WatchedStore

ERRORS = (
    StoreError("the database is away"),
    OSError(28, "No space left on device"),
    UnicodeEncodeError("utf-8", "\ud83d", 0, 1, "surrogates not allowed"),
    RuntimeError("broken"),
)
STORE = (
    "append",
    "events",
    "add_points",
    "renew_lease",
    "lease",
    "drained",
    "queue_up",
    "queue",
    "cancel_requested",
    "remember",
    "recall",
)
SAID: Sequence[tuple[float, Message]] = (
    (0.0, Waiting("no room")),
    (0.1, Placed(("n1",))),
    (0.2, Resumed(0)),
    (0.3, LogLine(0, "working")),
    (0.4, Points(1, {"loss": 2.0}, 0.4)),
    (0.5, Progress(1, 2)),
    (0.6, Saved(1)),
    (0.7, Alive(0, 1)),
    (0.8, Report("a.txt", "text")),
    (2.0, Succeeded(REF, {"loss": 2.0})),
)
SPARE = Recovery(standby=True)
# Two wait for a place that one has, and the last one for somebody's word.
STAGES = (
    stage("s", recovery=SPARE, limits=Limits(timeout=1e6)),
    stage("t", "s", gate=Gate(kind="approval"), limits=Limits(timeout=1e6)),
)


class Failing:
    """Stands before a port; call number `at` of method `name` raises, before the port does it.

    With `after` the port does it first: what is lost is its answer.
    """

    def __init__(self, port: object, name: str, errors: Sequence[Exception], at: int = 1) -> None:
        self._port, self._name, self._errors, self._at = port, name, list(errors), at
        self.after = False
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return self._wrapped(found) if name == self._name else found

    def _wrapped(self, call: Callable[..., object]) -> Callable[..., object]:
        def failing(*args: object, **named: object) -> object:
            self.calls += 1
            fails = self.calls >= self._at and bool(self._errors)
            if fails and not self.after:
                raise self._errors.pop(0)
            answer = call(*args, **named)
            if fails:
                raise self._errors.pop(0)
            return answer

        return failing


class Bench(InMemory):
    """A run of two stages, with all ports in memory."""

    def __init__(self) -> None:
        super().__init__(lambda _asked: SAID, 1000.0)
        self.heard: list[Message] = []
        self.waits = PATIENT
        self.header = header(plan(*STAGES, pools=("a", "b")))
        self.store.create(self.header, 0.0)
        self.clock.at(1010.0, lambda: self.gates.opened.update(t="approved"))
        self.controller: Controller | None = None

    def observe(self, stage_: str, attempt: int, message: Message) -> None:
        self.heard.append(message)

    def drive(self, **ports: Any) -> Run:
        deps = replace(self.ports, **ports)
        defaults = AttemptDefaults(
            packages=("jobs",),
            code=(),
            storage="mem://",
            reuse_key=lambda _run, one: one.name,
            waits=self.waits,
        )
        self.controller = Controller(self.header, deps, defaults, self.observe)
        return self.controller.drive()

    def events(self) -> list[Event]:
        return [stored.event for stored in self.store.events("run")]

    @property
    def untold(self) -> list[str]:
        return [str(one) for one in self.ports.best_effort.untold]


def undisturbed() -> Bench:
    defaults = Bench()
    assert defaults.drive().state is RunState.SUCCEEDED
    return defaults


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("name", STORE)
def test_a_call_of_the_store_that_fails_once_changes_nothing(
    name: str, at: int, error: Exception
) -> None:
    defaults = Bench()
    failing = Failing(defaults.store, name, [error], at)
    run = defaults.drive(store=failing)
    assert run.state is RunState.SUCCEEDED
    assert defaults.events() == undisturbed().events()
    assert [point.value for point in defaults.store.points("run")] == [2.0, 2.0]
    assert set(defaults.store.results) == {"s", "t"}
    assert not defaults.cluster.active


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize(
    ("port", "name"),
    [
        ("cluster", "start"),
        ("cluster", "poll"),
        ("cluster", "cancel"),
        ("cluster", "prepare"),
        ("cluster", "release"),
        ("tracker", "notify"),
        ("gates", "look"),
        ("artifacts", "mark"),
        ("artifacts", "verify"),
    ],
)
def test_a_call_of_another_port_that_fails_once_changes_nothing(
    port: str, name: str, at: int, error: Exception
) -> None:
    defaults = Bench()
    run = defaults.drive(**{port: Failing(getattr(defaults, port), name, [error], at)})
    assert run.state is RunState.SUCCEEDED
    assert defaults.events() == undisturbed().events()
    assert not defaults.cluster.active


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("number", range(len(SAID)))
def test_an_observer_that_fails_at_any_message_changes_nothing(
    number: int, error: Exception
) -> None:
    defaults = Bench()

    def observe(stage_: str, attempt: int, message: Message) -> None:
        if message == SAID[number][1]:
            raise error

    defaults.observe = observe  # type: ignore[method-assign]
    assert defaults.drive().state is RunState.SUCCEEDED
    assert defaults.events() == undisturbed().events()
    (untold,) = defaults.untold
    assert untold == f"2 messages were not shown: {reason(error)}"


def test_a_database_that_is_away_for_a_minute_is_waited_for_and_workers_run_on() -> None:
    defaults = Bench()
    away: list[float] = [1000.5, 1060.5]

    class Away:
        def __getattr__(self, name: str) -> Any:
            found = getattr(defaults.store, name)
            if not callable(found):
                return found

            def call(*args: object, **named: object) -> object:
                if away[0] <= defaults.clock.now() < away[1]:
                    raise StoreError("the database is away")
                return found(*args, **named)

            return call

    run = defaults.drive(store=Away())
    assert run.state is RunState.SUCCEEDED
    assert len(run.stages["s"].attempts) == 1
    assert defaults.events() == undisturbed().events()
    assert [point.value for point in defaults.store.points("run")] == [2.0, 2.0]
    assert 1060.0 < defaults.clock.now() < 1100.0


def test_a_database_that_stays_away_ends_the_controller_and_gives_back_what_it_held() -> None:
    defaults = Bench()
    defaults.cluster.recorded = False
    store = Failing(defaults.store, "append", [StoreError("the disk is full")] * 10_000, 4)
    with pytest.raises(StoreError, match="the disk is full"):
        defaults.drive(store=store)
    assert 115.0 < defaults.clock.now() - 1000.0 < 130.0
    assert not defaults.cluster.active


@pytest.mark.parametrize("at", range(1, 12))
def test_a_commit_whose_answer_was_lost_is_known_again(at: int) -> None:
    defaults = Bench()
    store = Failing(defaults.store, "append", [StoreError("connection lost")], at)
    store.after = True
    run = defaults.drive(store=store)
    assert (run.state, run.epoch) == (RunState.SUCCEEDED, 1)
    assert defaults.events() == undisturbed().events()


def test_anothers_event_is_not_taken_for_a_commit_whose_answer_was_lost() -> None:
    defaults = Bench()

    def overtake(seq: int, _events: Sequence[Event]) -> None:
        if seq == 3:
            defaults.store.append("run", seq, (RunStarted(2),), 0.0)
            raise StoreError("connection lost")

    store = WatchedStore.of(defaults.store)
    store.before = overtake
    with pytest.raises(StaleControllerError):
        defaults.drive(store=store)


def test_what_an_attempt_says_and_no_database_takes_is_its_own_failure() -> None:
    defaults = Bench()

    def choose(_seq: int, events: Sequence[Event]) -> None:
        if isinstance(events[0], AttemptSaved):
            raise UnstorableError("no database takes it")

    store = WatchedStore.of(defaults.store)
    store.before = choose
    run = defaults.drive(store=store)
    assert run.state is RunState.FAILED
    (attempt,) = run.stages["s"].attempts
    assert attempt.failure
    assert (attempt.failure.kind, attempt.failure.evidence) == (
        FailureKind.USER_CODE,
        "what it says can't be recorded: no database takes it",
    )
    assert not defaults.cluster.active


def test_what_no_controller_understands_is_the_failure_of_who_says_it() -> None:
    defaults = Bench()
    odd = ((0.1, Placed(("n1",))), (0.2, Points("x", {"loss": 1.0}, 0.2)), (0.3, Saved(5)))  # type: ignore[arg-type]
    defaults.cluster = FakeCluster(defaults.clock, defaults.store, lambda _asked: odd * 2)
    run = defaults.drive(cluster=defaults.cluster)
    assert run.state is RunState.FAILED
    assert not defaults.cluster.active


def test_a_message_that_does_not_fit_is_left_out() -> None:
    defaults = Bench()
    twice = ((0.1, Placed(("n1",))), (0.2, Placed(("n1",))), *SAID[2:])
    defaults.cluster = FakeCluster(defaults.clock, defaults.store, lambda _asked: twice)
    assert defaults.drive(cluster=defaults.cluster).state is RunState.SUCCEEDED
    assert any("messages did not fit their attempts" in line for line in defaults.untold)


def test_an_attempt_that_can_not_be_asked_any_more_has_failed_and_others_go_on() -> None:
    defaults = Bench()
    cluster = Failing(defaults.cluster, "poll", [RuntimeError("no such actor")] * 400, 2)
    run = defaults.drive(cluster=cluster)
    first = run.stages["s"].attempts[0]
    assert first.failure
    assert first.failure.kind is FailureKind.UNKNOWN
    assert first.failure.evidence == "can't be asked any more: RuntimeError: no such actor"


def test_one_attempt_that_can_not_be_ended_does_not_keep_the_others() -> None:
    defaults = Bench()
    defaults.cluster.recorded = False
    defaults.header = header(plan(stage("s"), stage("t"), pools=("a",)), "two")
    defaults.store.create(defaults.header, 0.0)
    cluster = Failing(defaults.cluster, "cancel", [RuntimeError("broken")])

    def interrupt() -> None:
        raise KeyboardInterrupt

    defaults.clock.at(1000.5, interrupt)
    with pytest.raises(KeyboardInterrupt):
        defaults.drive(cluster=cluster)
    assert defaults.cluster.cancelled == ["two/t/1"]


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_clock_that_is_set_neither_ends_a_stage_nor_stops_the_senses(seconds: float) -> None:
    endless = ((0.1, Placed(("n1",))),)
    defaults = Bench()
    defaults.cluster = FakeCluster(defaults.clock, defaults.store, lambda _asked: endless)
    defaults.header = header(plan(stage("s", limits=Limits(timeout=600.0))), "set")
    defaults.store.create(defaults.header, 0.0)
    defaults.clock.at(1010.0, lambda: defaults.clock.step(seconds))
    leases: list[float | None] = []

    def look() -> None:
        lease = defaults.store.lease("set")
        leases.append(lease and defaults.store.now() - lease.at)

    defaults.clock.at(1020.0, look)
    defaults.clock.at(1030.0, lambda: defaults.store.request_cancel("set"))
    run = defaults.drive(cluster=defaults.cluster)
    assert run.state is RunState.CANCELLED
    assert run.started is not None
    assert run.ended is not None
    assert 29.0 < run.ended - run.started < 32.0
    assert leases[0] is not None
    assert 0.0 <= leases[0] < 6.0


def test_a_cluster_that_is_about_to_be_stopped_is_left_at_once() -> None:
    defaults = Bench()
    defaults.cluster.recorded = False

    def leave() -> None:
        if defaults.clock.now() > 1000.5:
            raise ClusterError("the cluster is being stopped")

    with pytest.raises(ClusterError, match="is being stopped"):
        defaults.drive(leave=leave)
    assert not defaults.cluster.active
    assert defaults.clock.now() < 1001.0
    assert defaults.drive().state is RunState.SUCCEEDED
