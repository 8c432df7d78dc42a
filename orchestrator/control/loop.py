"""Drive a run to its end: poll, apply, record, decide, execute.

Every event is committed to the event store before anything is done about it, so that whoever
reads the store knows at least as much as this controller. A controller that finds its next
number taken stops at once and touches nothing: the run has another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.control.hearing import Steps, event_of
from orchestrator.control.lookout import Lookout
from orchestrator.control.names import leaving
from orchestrator.control.requests import Workbench, attempt_request, deployment
from orchestrator.control.reuse import credit, entering, standing_for
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.decide import Cancel, Command, Expire, Leave, Record, Start, decide, standby
from orchestrator.core.errors import ArtifactError, StaleControllerError
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.core.fold import apply, fold
from orchestrator.core.run import Attempt, Run, RunHeader
from orchestrator.core.state import (
    AttemptCancelled,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    Event,
    LeaveRequested,
    RunStarted,
    RunState,
    StageReused,
)
from orchestrator.messages import Message, Points, Succeeded
from orchestrator.ports import (
    ArtifactStore,
    Clock,
    Cluster,
    EventStore,
    Gates,
    Observer,
    Serving,
    Tracker,
)

SHORTEST_WAIT = 0.005
LONGEST_WAIT = 0.2
SECONDS_BETWEEN_CANCEL_CHECKS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The ports that a controller acts through; `holder` names its process in its lease."""

    cluster: Cluster
    serving: Serving
    store: EventStore
    artifacts: ArtifactStore
    tracker: Tracker
    clock: Clock
    gates: Gates
    holder: str = ""


def ignore(stage: str, attempt: int, message: Message) -> None:
    """Observe nothing."""


class Controller:
    """Drives one run. `run` is the fold of what it has committed so far."""

    def __init__(
        self, header: RunHeader, world: World, bench: Workbench, observer: Observer = ignore
    ) -> None:
        """Read what is there of the run; `drive` takes it over."""
        self._world = world
        self._bench = bench
        self._observer = observer
        self._cancel_reason: str | None = None
        self._next_cancel_check = 0.0
        self._lookout = Lookout(world.store, world.gates, world.clock, world.holder)
        self._steps = Steps()
        self._standing_by: set[tuple[str, str]] = set()
        self._header = header
        self.run = self._stored()

    def cancel(self, reason: str) -> None:
        """Ask for the run to end; safe to call from a signal handler."""
        self._cancel_reason = reason

    def drive(self) -> Run:
        """Take the run over, drive it to its end, and return it.

        Raises:
            StaleControllerError: Another controller has the run; nothing was touched.
            ClusterError: The cluster is gone; the run can be resumed on another.
        """
        if self.run.done:
            return self.run
        try:
            self._take_over()
            self._until_done()
        except StaleControllerError:
            raise
        except BaseException:
            self._abandon()
            raise
        self._lookout.leave(self.run)
        return self.run

    def _take_over(self) -> None:
        """Begin an epoch; what the controller of the last one commits meanwhile is read first."""
        last = self.run.epoch
        while not self.run.done:
            try:
                self._commit(RunStarted(last + 1))
            except StaleControllerError:
                self.run = self._stored()
                if self.run.epoch != last:
                    raise
            else:
                return

    def _until_done(self) -> None:
        wait = SHORTEST_WAIT
        while not self.run.done:
            if self._turn():
                wait = SHORTEST_WAIT
            else:
                self._world.clock.sleep(wait)
                wait = min(wait * 1.5, LONGEST_WAIT)

    def _turn(self) -> bool:
        """Poll, then decide and execute; return whether anything moved."""
        before = self.run.seq
        self._notice_cancel()
        for attempt in self.run.active:
            self._poll(attempt)
        outlook = self._lookout.look(self.run)
        for command in decide(self.run, self._world.clock.now(), outlook):
            self._execute(command)
        if self.run.seq != before:
            self._keep_standby()
        return self.run.seq != before

    def _stored(self) -> Run:
        stored = self._world.store.events(self._header.run)
        return fold(self._header, ((item.at, item.event) for item in stored))

    # --- record --------------------------------------------------------------------------------

    def _commit(self, event: Event) -> None:
        now = self._world.clock.now()
        following = apply(self.run, event, now)
        self._world.store.append(self.run.header.run, following.seq, (event,), now)
        self.run = following
        self._world.tracker.notify()

    def _notice_cancel(self) -> None:
        if self.run.state is not RunState.RUNNING:
            return
        now = self._world.clock.now()
        if self._cancel_reason is None and now >= self._next_cancel_check:
            self._next_cancel_check = now + SECONDS_BETWEEN_CANCEL_CHECKS
            if self._world.store.cancel_requested(self.run.header.run):
                self._cancel_reason = "cancelled by request"
        if self._cancel_reason is not None:
            self._commit(CancelRequested(self._cancel_reason))

    # --- poll ----------------------------------------------------------------------------------

    def _poll(self, attempt: Attempt) -> None:
        messages = self._port(attempt.stage).poll(self._key(attempt.stage, attempt.number))
        self._keep_points(attempt, [m for m in messages if isinstance(m, Points)])
        for message in messages:
            self._observer(attempt.stage, attempt.number, message)
            event = event_of(attempt, self._steps.heard(attempt, message))
            if event is not None:
                self._commit(event)
            if isinstance(message, Succeeded):
                self._remember(attempt.stage, message)

    def _keep_points(self, attempt: Attempt, points: Sequence[Points]) -> None:
        if points:
            run = self.run.header.run
            self._world.store.add_points(run, attempt.stage, attempt.number, points)
            self._world.tracker.notify()

    # --- execute -------------------------------------------------------------------------------

    def _execute(self, command: Command) -> None:
        if isinstance(command, Record):
            self._commit(command.event)
        elif isinstance(command, Start):
            self._start(command)
        elif isinstance(command, Expire):
            failure = self._steps.located(command.stage, command.number, command.failure)
            self._commit(AttemptFailed(command.stage, command.number, failure))
            self._end(command)
        elif isinstance(command, Leave):
            self._commit(LeaveRequested(command.stage, command.number, command.reason))
            self._ask_to_leave(command)
        else:
            self._commit(AttemptCancelled(command.stage, command.number))
            self._end(command)

    def _ask_to_leave(self, command: Leave) -> None:
        name = leaving(self.run.header.run, command.stage, command.number)
        try:
            self._world.artifacts.mark(name, command.reason)
        except ArtifactError:
            return  # it goes on where it is, which is no worse

    # --- standby -------------------------------------------------------------------------------

    def _keep_standby(self) -> None:
        """Have a gang stand by on the next pool of each stage that wants one and runs."""
        wanted = dict(standby(self.run))
        for stage, command in wanted.items():
            if (stage, command.pool) not in self._standing_by:
                self._standing_by.add((stage, command.pool))
                request = attempt_request(self.run, self._bench, command, self._inputs(command))
                self._world.cluster.prepare(request)
        for stage, pool in list(self._standing_by):
            if self.run.stages[stage].done:
                self._standing_by.discard((stage, pool))
                self._world.cluster.release(self.run.header.run, stage)

    def _end(self, command: Expire | Cancel) -> None:
        self._port(command.stage).cancel(self._key(command.stage, command.number))

    def _start(self, command: Start) -> None:
        reused = self._recall(command)
        if reused is not None:
            self._commit(reused)
            return
        self._commit(AttemptStarted(command.stage, command.number, command.pool))
        stage = self.run.stages[command.stage].planned.stage
        inputs = self._inputs(command)
        lacking = next((name for name in stage.inputs if name not in inputs), None)
        if lacking is not None:
            made = stage.inputs[lacking]
            self._refuse(command, f"input {lacking!r}: stage {made!r} made no artifact")
        elif stage.endpoint is None:
            self._world.cluster.start(attempt_request(self.run, self._bench, command, inputs))
        else:
            model = inputs[stage.endpoint.model]
            self._world.serving.start(deployment(self.run, self._bench, command, model))

    def _inputs(self, command: Start) -> Mapping[str, ArtifactRef]:
        """Return the artifacts that the stage reads, by input; those that were made."""
        stage = self.run.stages[command.stage].planned.stage
        found = ((name, self.run.stages[made].artifact) for name, made in stage.inputs.items())
        return {name: ref for name, ref in found if ref is not None}

    def _refuse(self, command: Start, evidence: str) -> None:
        failure = Failure(kind=FailureKind.DATA, evidence=evidence, pool=command.pool)
        self._commit(AttemptFailed(command.stage, command.number, failure))

    # --- reuse ---------------------------------------------------------------------------------

    def _recall(self, command: Start) -> StageReused | None:
        if command.number > 1:
            return None
        found = self._bench.kept.get(command.stage)
        if found is None:
            key = self._bench.reuse_key(self.run, entering(self.run, command))
            found = self._world.store.recall(key) if key else None
            if found is None:
                return None
        result, run = found
        damaged = result.artifact is not None and not self._intact(result.artifact)
        return None if damaged else standing_for(command, result, run)

    def _intact(self, ref: ArtifactRef) -> bool:
        try:
            return self._world.artifacts.verify(ref.uri).digest == ref.digest
        except ArtifactError:
            return False

    def _remember(self, name: str, result: Succeeded) -> None:
        key = self._bench.reuse_key(self.run, self.run.stages[name])
        if key:
            result = credit(result, self.run.stages[name])
            self._world.store.remember(key, result, self.run.header.run)

    def _port(self, name: str) -> Cluster | Serving:
        stage = self.run.stages[name].planned.stage
        return self._world.cluster if stage.endpoint is None else self._world.serving

    def _key(self, stage: str, number: int) -> str:
        return f"{self.run.header.run}/{stage}/{number}"

    def _abandon(self) -> None:
        """Give back what the run holds when the controller itself breaks."""
        for attempt in self.run.active:
            self._port(attempt.stage).cancel(self._key(attempt.stage, attempt.number))
        for stage, _ in self._standing_by:
            self._world.cluster.release(self.run.header.run, stage)
