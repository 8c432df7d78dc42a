"""Decisions and a world that answers at random: what must hold whatever happens."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orchestrator.core.failures.kinds import Action, FailureKind
from orchestrator.core.runs.decide import Cancel, Command, Expire, Leave, Record, Start, decide
from orchestrator.core.runs.fold import apply, begin, fold
from orchestrator.core.runs.recovery import BetterPlace, Outlook
from orchestrator.core.runs.run import Attempt, Run, StageRun
from orchestrator.core.runs.stage_history import in_vain
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    AttemptState,
    AttemptSucceeded,
    CancelRequested,
    Event,
    RunReopened,
    RunStarted,
    RunState,
    StageReused,
)
from orchestrator.core.spec.checks import HOPELESS
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.policy import Limits
from orchestrator.core.spec.stages import Needs
from tests.build import REF, failure, header, plan, pool, stage

POOLS = ("a", "b", "c")
ENOUGH_TURNS = 200

limits = st.builds(
    Limits,
    attempts=st.integers(1, 4),
    timeout=st.none() | st.floats(1, 50),
    pending=st.none() | st.floats(1, 20),
    cost=st.none() | st.floats(0, 50),
    backoff=st.floats(0, 5),
)
own_actions = st.dictionaries(
    st.sampled_from([kind for kind in FailureKind if kind is not FailureKind.USER_CODE]),
    st.sampled_from(Action),
    max_size=4,
).filter(lambda own: not own.items() & HOPELESS.keys())


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Draw a small pipeline with random limits, on pools that have a price."""
    names = "stuv"[: draw(st.integers(1, 4))]
    stages = [
        stage(
            name,
            *draw(st.lists(st.sampled_from(names[:index]), unique=True) if index else st.just([])),
            limits=draw(limits),
            needs=draw(st.sampled_from([Needs(), Needs(workers=2, min_workers=1)])),
            on_failure=draw(own_actions),
        )
        for index, name in enumerate(names)
    ]
    order = draw(st.lists(st.sampled_from(POOLS), min_size=1, unique=True))
    limit = draw(st.none() | st.floats(0, 100))
    paid = {name: pool(name, price_per_hour=3600.0) for name in ("a", "b", "c")}
    return plan(*stages, pools=order, cost_limit=limit, **paid)


class RunAtRandom(RuleBasedStateMachine):
    """A run, the time, and all that was ever committed."""

    run: Run

    @initialize(planned=plans(), at=st.floats(0, 10))
    def create(self, planned: Plan, at: float) -> None:
        self.now = at
        self.history: list[tuple[float, Event]] = []
        self.run = begin(header(planned))
        self.commit(RunStarted(1))

    def commit(self, event: Event) -> None:
        before, self.run = self.run, apply(self.run, event, self.now)
        self.history.append((self.now, event))
        for name, one in before.stages.items():
            again = isinstance(event, RunReopened) and name in event.stages
            assert again or not one.done or self.run.stages[name] == one

    def answer(self, command: Command, *, reuse: bool) -> Event:
        if isinstance(command, Record):
            return command.event
        if isinstance(command, Expire):
            return AttemptFailed(command.stage, command.number, command.failure)
        if isinstance(command, Leave):
            return command.event
        if isinstance(command, Cancel):
            return AttemptCancelled(command.stage, command.number)
        if reuse and command.number == 1:
            return StageReused(command.stage, REF, {}, "earlier")
        return AttemptStarted(command.stage, command.number, command.pool)

    def best(self, stage: StageRun) -> BetterPlace:
        pool = stage.planned.pools[0]
        return BetterPlace(attempt=len(stage.attempts), pool=pool, reason="room")

    def act(self, *, reuse: bool = False, room: bool = False) -> None:
        better = {s.name: self.best(s) for s in self.run.stages.values() if room and s.attempts}
        outlook = Outlook(better=better)
        for command in decide(self.run, self.now, outlook):
            if isinstance(command, Start):
                assert self.run.state is RunState.RUNNING
            self.commit(self.answer(command, reuse=reuse))

    def attempt(self, index: int) -> Attempt:
        return self.run.active[index % len(self.run.active)]

    # --- what may happen ----------------------------------------------------------------------

    @rule(reuse=st.booleans(), room=st.booleans())
    def decide_and_act(self, *, reuse: bool, room: bool) -> None:
        self.act(reuse=reuse, room=room)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.run.active)
    @rule(index=st.integers(0, 3))
    def place(self, index: int) -> None:
        attempt = self.attempt(index)
        if attempt.state is AttemptState.WAITING:
            self.commit(AttemptPlaced(attempt.stage, attempt.number, ("n1",)))

    @precondition(lambda self: self.run.active)
    @rule(index=st.integers(0, 3))
    def succeed(self, index: int) -> None:
        attempt = self.attempt(index)
        self.commit(AttemptSucceeded(attempt.stage, attempt.number, REF))

    @precondition(lambda self: self.run.active)
    @rule(index=st.integers(0, 3), kind=st.sampled_from(FailureKind))
    def fail(self, index: int, kind: FailureKind) -> None:
        attempt = self.attempt(index)
        self.commit(AttemptFailed(attempt.stage, attempt.number, failure(kind)))

    @precondition(lambda self: not self.run.done)
    @rule()
    def take_over(self) -> None:
        self.commit(RunStarted(self.run.epoch + 1))

    @precondition(lambda self: not self.run.done)
    @rule(sure=st.sampled_from([False, False, False, True]))
    def cancel(self, *, sure: bool) -> None:
        if sure:
            self.commit(CancelRequested("enough"))

    @precondition(lambda self: self.run.done)
    @rule(seconds=st.floats(0, 1000))
    def reopen(self, seconds: float) -> None:
        self.now += seconds
        unfinished = [n for n, one in self.run.stages.items() if one.state != "succeeded"]
        self.commit(RunReopened(reason="go on", stages=tuple(unfinished)))
        self.commit(RunStarted(self.run.epoch + 1))

    # --- what must hold -----------------------------------------------------------------------

    @invariant()
    def replay_equals_live(self) -> None:
        assert fold(self.run.header, self.history) == self.run

    @invariant()
    def no_stage_has_more_attempts_than_its_limit(self) -> None:
        for one in self.run.stages.values():
            assert len(in_vain(one)) <= one.planned.stage.limits.attempts

    @invariant()
    def pools_are_used_in_their_order_and_never_again_but_for_emptied_ones(self) -> None:
        for one in self.run.stages.values():
            for before, after in pairwise(one.attempts):
                drained = before.failure and before.failure.kind is FailureKind.DRAINED
                if before.failure and not drained:
                    places = [one.planned.pools.index(a.pool) for a in (before, after)]
                    assert 0 <= places[1] - places[0] <= 1

    @invariant()
    def a_defect_of_user_code_is_never_carried_to_another_attempt(self) -> None:
        for one in self.run.stages.values():
            since = one.attempts[one.forgiven : -1]
            assert FailureKind.USER_CODE not in [a.failure.kind for a in since if a.failure]

    @invariant()
    def a_stage_begins_only_after_those_before_it_succeeded(self) -> None:
        for one in self.run.stages.values():
            before = [self.run.stages[name] for name in one.planned.stage.upstream]
            assert not one.attempts or all(up.state == "succeeded" for up in before)

    @invariant()
    def a_run_that_is_over_holds_nothing(self) -> None:
        if self.run.done:
            assert not self.run.active
            cut = self.run.state in {RunState.PAUSED, RunState.FAILED, RunState.CANCELLED}
            assert all(one.done or cut for one in self.run.stages.values())

    @invariant()
    def nobody_pays_for_the_time_in_which_nothing_ran(self) -> None:
        assert self.run.seconds(self.now) <= self.now - (self.run.started or 0.0) + 1e-9

    def teardown(self) -> None:
        """Every run ends: whatever runs is let succeed, and time goes on."""
        for _ in range(ENOUGH_TURNS if hasattr(self, "now") else 0):
            if self.run.done:
                break
            self.act()
            for attempt in self.run.active:
                self.commit(AttemptSucceeded(attempt.stage, attempt.number, REF))
            self.now += 10.0
        else:
            assert not hasattr(self, "now"), f"the run never ends: {self.run!r}"


TestRunAtRandom = RunAtRandom.TestCase
TestRunAtRandom.settings = settings(max_examples=60, stateful_step_count=30)
