"""Drive a run to its end: poll, apply, record, decide, execute.

Every event is committed to the database before anything is done about it, so that whoever
reads the store knows at least as much as this controller. A controller that finds its next
number taken stops at once and touches nothing: the run has another one.

Three rings keep what is paid for. Recording (`recording.py`) is tried again while a database is
away. Effects that follow a commit (`effects.py`) are tried again while a pool or a store raises.
What only tells (`BestEffort`) is counted where it fails, and never ends a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from orchestrator.controller.attempt_requests import (
    AttemptDefaults,
    attempt_request,
    deployment,
    lacking_secrets,
)
from orchestrator.controller.better_places import PlaceWatcher
from orchestrator.controller.controller_ports import ControllerPorts
from orchestrator.controller.effects import Effects
from orchestrator.controller.lease_keeper import LeaseKeeper
from orchestrator.controller.message_handling import LastSteps, event_of
from orchestrator.controller.monotonic import MonotonicClock
from orchestrator.controller.occupation import Occupation
from orchestrator.controller.outlook import OutlookWatcher
from orchestrator.controller.quarantine import quarantine_node
from orchestrator.controller.recording import EventRecorder, PointsBuffer
from orchestrator.controller.result_cache import ReusableResults
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.artifact_paths import leaving
from orchestrator.core.errors import StaleControllerError, TransitionError, UnstorableError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.decide import (
    Cancel,
    Command,
    Expire,
    Leave,
    Record,
    Start,
    decide,
    standby,
)
from orchestrator.core.runs.fold import apply, fold
from orchestrator.core.runs.recovery import QUIET
from orchestrator.core.runs.run import Attempt, Run, RunHeader
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptFailed,
    AttemptStarted,
    CancelRequested,
    Event,
    RunStarted,
    RunState,
)
from orchestrator.error_boundary import outcome, reason
from orchestrator.messages import AttemptRequest, Lease, Message, Points, Succeeded, Untold
from orchestrator.ports import Cluster, Serving

SHORTEST_WAIT = 0.005
LONGEST_WAIT = 0.2
SECONDS_BETWEEN_CANCEL_CHECKS = 0.5
SECONDS_BETWEEN_NOTES = 10.0  # on what could not be told
Observer: TypeAlias = Callable[[str, int, Message], None]  # of a stage and an attempt


def ignore(stage: str, attempt: int, message: Message) -> None:
    """Observe nothing."""


class Controller:
    """Drives one run. `run` is the fold of what it has committed so far."""

    def __init__(
        self,
        header: RunHeader,
        ports: ControllerPorts,
        defaults: AttemptDefaults,
        observer: Observer = ignore,
    ) -> None:
        """Read what is there of the run; `drive` takes it over."""
        self._ports = ports
        self._defaults = defaults
        self._observer = observer
        self._cancel_reason: str | None = None
        self._next_cancel_check = 0.0
        places = PlaceWatcher(ports.clock, ports.cluster.pools, defaults.waits.grow)
        self._watcher = OutlookWatcher(ports.store, ports.gates, ports.clock, places)
        self._outlook = QUIET
        self._steps = LastSteps()
        self._mute: dict[str, float] = {}
        self._standing_by: set[tuple[str, str]] = set()
        self._header = header
        self._recorder = EventRecorder(ports.store, header.run, ports.clock, ports.patience)
        self._points = PointsBuffer(ports.store, header.run, ports.clock, ports.best_effort)
        self._results = ReusableResults(ports, defaults, self._recorder)
        self._effects = Effects(ports.clock, ports.best_effort, defaults.waits.retry)
        self._last = header.created
        self._noted: tuple[Untold, ...] = ()
        self._next_note = 0.0
        self.lease = LeaseKeeper(ports.store, ports.clock, ports.holder, ports.best_effort)
        self.run = self._stored()
        now = self._recorder.patiently(ports.store.now)
        self._clock = MonotonicClock(ports.clock, max(now, self._last))
        self._occupation = Occupation(ports.store, header.run, self._clock)

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
        self._effects.settle()
        self._points.flush(last=True)
        self._note_untold(last=True)
        self._tell("places in queues were not given back", lambda: self._watcher.leave(self.run))
        return self.run

    def _take_over(self) -> None:
        """Begin an epoch, with a lease on it; what the last controller commits first is read."""
        last, name, ports = self.run.epoch, self.run.header.run, self._ports
        lease = self._recorder.patiently(lambda: ports.store.lease(name))
        seen = abs(lease.at) if lease else None
        while not self.run.done:
            try:
                mine = Lease(run=name, epoch=last + 1, at=self._clock.now(), holder=ports.holder)
                self._commit(RunStarted(last + 1, seen, ports.by), mine)
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
                self._ports.clock.sleep(wait)
                wait = min(wait * 1.5, LONGEST_WAIT)

    def _turn(self) -> bool:
        """Poll, then decide and execute; return whether anything moved."""
        before = self.run.seq
        self.lease.turn(self.run)
        self._ports.leave()
        self._effects.again()
        self._notice_cancel()
        for attempt in self.run.active:
            self._poll(attempt)
        self._tell("looks at pools, gates and queues were not answered", self._refresh_outlook)
        for command in decide(self.run, self._clock.now(), self._outlook):
            self._execute(command)
        self._note_untold()
        self._occupation.note(self.run.active)
        if self.run.seq != before:
            self._keep_standby()
        return self.run.seq != before

    def _refresh_outlook(self) -> None:
        self._outlook = replace(self._outlook, opened={})  # a gate is opened once
        self._outlook = self._watcher.refresh(self.run, self._clock.now())

    def _stored(self) -> Run:
        stored = self._recorder.events()
        self._last = max([self._last, *(item.at for item in stored)])
        return fold(self._header, ((item.at, item.event) for item in stored))

    def _note_untold(self, *, last: bool = False) -> None:
        """Note what could not be told, for those who ask the store; this may fail in silence."""
        now, untold = self._ports.clock.monotonic(), self._ports.best_effort.untold
        if untold != self._noted and (last or now >= self._next_note):
            self._next_note = now + SECONDS_BETWEEN_NOTES
            note = partial(self._ports.store.note_untold, self._header.run, untold)
            if outcome(note).error is None:
                self._noted = untold

    def _tell(self, what: str, call: Callable[[], object]) -> bool:
        return self._ports.best_effort.tell(what, call)

    # --- record --------------------------------------------------------------------------------

    def _commit(self, event: Event, lease: Lease | None = None) -> None:
        now = self._clock.now()
        following = apply(self.run, event, now)
        self._recorder.append(following.seq, event, now, lease)
        self.run = following
        self._notify()

    def _notify(self) -> None:
        self._tell("notices were not taken", self._ports.tracker.notify)

    def _notice_cancel(self) -> None:
        if self.run.state is not RunState.RUNNING:
            return
        now = self._ports.clock.monotonic()
        if self._cancel_reason is None and now >= self._next_cancel_check:
            self._next_cancel_check = now + SECONDS_BETWEEN_CANCEL_CHECKS
            self._tell("questions for requests to cancel were not answered", self._ask_for_cancel)
        if self._cancel_reason is not None:
            self._commit(CancelRequested(self._cancel_reason))

    def _ask_for_cancel(self) -> None:
        if self._ports.store.cancel_requested(self.run.header.run):
            self._cancel_reason = "cancelled by request"

    # --- poll ----------------------------------------------------------------------------------

    def _poll(self, attempt: Attempt) -> None:
        key = self._key(attempt.stage, attempt.number)
        polled = outcome(lambda: self._port(attempt.stage).poll(key))
        if polled.error is not None:
            self._mute_port(attempt, polled.error)
            return
        self._mute.pop(key, None)
        messages = polled.value or ()
        points = [message for message in messages if isinstance(message, Points)]
        self._points.add(attempt.stage, attempt.number, points)
        if self._points.flush():
            self._notify()
        for message in messages:
            self._tell("messages were not shown", partial(self._observe, attempt, message))
            self._occupation.hear(attempt, message)
            self._hear(attempt, message)

    def _observe(self, attempt: Attempt, message: Message) -> None:
        self._observer(attempt.stage, attempt.number, message)

    def _hear(self, attempt: Attempt, message: Message) -> None:
        """Record what a message comes to; one that can't be is the attempt's own failure."""
        heard = outcome(lambda: event_of(attempt, self._steps.heard(attempt, message)))
        event, error = heard.value, heard.error
        mine, active = (attempt.stage, attempt.number), self.run.active
        if event is not None and mine in {(other.stage, other.number) for other in active}:
            try:
                self._commit(event)
            except TransitionError as misfit:
                self._ports.best_effort.failed("messages did not fit their attempts", misfit)
                return
            except UnstorableError as refused:
                error = refused
        if error is not None:
            evidence = f"what it says can't be recorded: {reason(error)}"
            self._give_up(attempt, FailureKind.USER_CODE, evidence)
        elif event is not None and isinstance(message, Succeeded):
            self._results.keep(self.run, attempt.stage, message)
        elif isinstance(event, AttemptFailed):
            note = partial(quarantine_node, self._ports.store, self.run, event, self._defaults)
            self._tell("broken nodes were not put in quarantine", note)

    def _mute_port(self, attempt: Attempt, error: Exception) -> None:
        """Ask again at the next turn, until the attempt must be taken for lost."""
        now = self._ports.clock.monotonic()
        since = self._mute.setdefault(self._key(attempt.stage, attempt.number), now)
        self._ports.best_effort.failed("questions to attempts were not answered", error)
        if now - since > self._defaults.waits.unanswered:
            evidence = f"can't be asked any more: {type(error).__name__}: {reason(error)}"
            self._give_up(attempt, FailureKind.UNKNOWN, evidence)

    def _give_up(self, attempt: Attempt, kind: FailureKind, evidence: str) -> None:
        failure = Failure(kind=kind, evidence=evidence, pool=attempt.pool)
        located = self._steps.located(attempt.stage, attempt.number, failure)
        self._commit(AttemptFailed(attempt.stage, attempt.number, located))
        self._end(attempt)

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
            self._commit(command.event)
            self._ask_to_leave(command)
        else:
            self._commit(AttemptCancelled(command.stage, command.number))
            self._end(command)

    def _ask_to_leave(self, command: Leave) -> None:
        name = leaving(self.run.header.run, command.stage, command.number)
        mark = partial(self._ports.artifacts.mark, name, command.reason)
        self._effects.do(name, mark, patience=self._defaults.waits.storage)

    # --- standby -------------------------------------------------------------------------------

    def _keep_standby(self) -> None:
        """Have a gang stand by on the next pool of each stage that wants one and runs."""
        wanted = dict(standby(self.run))
        for stage, command in wanted.items():
            if (stage, command.pool) not in self._standing_by and self._tell(
                "gangs were not prepared to stand by", partial(self._prepare, command)
            ):
                self._standing_by.add((stage, command.pool))
        for stage, pool in list(self._standing_by):
            if self.run.stages[stage].done:
                self._standing_by.discard((stage, pool))
                release = partial(self._ports.cluster.release, self.run.header.run, stage)
                self._effects.do(f"release {stage} {pool}", release)

    def _prepare(self, command: Start) -> None:
        self._ports.cluster.prepare(self._request(command))

    def _request(self, command: Start) -> AttemptRequest:
        inputs = self._inputs(command)
        return attempt_request(self.run, self._defaults, command, inputs, self._outlook)

    def _end(self, ended: Expire | Cancel | Attempt) -> None:
        key, port = self._key(ended.stage, ended.number), self._port(ended.stage)
        self._effects.drop(f"start {key}")
        self._effects.do(f"end {key}", lambda: port.cancel(key))

    def _start(self, command: Start) -> None:
        reused = self._results.recall(self.run, command)
        if reused is not None:
            self._commit(reused)
            return
        self._commit(AttemptStarted(command.stage, command.number, command.pool))
        stage = self.run.stages[command.stage].planned.stage
        inputs = self._inputs(command)
        lacking = next((name for name in stage.inputs if name not in inputs), None)
        if lacking is not None:
            source = stage.inputs[lacking]
            evidence = f"input {lacking!r}: stage {source!r} made no artifact"
            self._refuse(command, FailureKind.DATA, evidence)
        elif secrets := lacking_secrets(self.run, self._defaults, command):
            evidence = f"secrets without a value on the controller's host: {secrets}"
            self._refuse(command, FailureKind.SET_UP, evidence)
        elif stage.endpoint is None:
            self._ask(command, partial(self._ports.cluster.start, self._request(command)))
        else:
            model = inputs[stage.endpoint.model]
            wanted = deployment(self.run, self._defaults, command, model)
            self._ask(command, partial(self._ports.serving.start, wanted))

    def _ask(self, command: Start, start: Callable[[], object]) -> None:
        """Ask the pool for the attempt, until it is asked for or must be given up."""

        def give_up(error: Exception) -> None:
            attempt = self.run.stages[command.stage].attempts[-1]
            evidence = f"can't be asked for: {type(error).__name__}: {reason(error)}"
            self._give_up(attempt, FailureKind.UNKNOWN, evidence)

        key = self._key(command.stage, command.number)
        self._effects.do(f"start {key}", start, give_up)

    def _inputs(self, command: Start) -> Mapping[str, ArtifactRef]:
        """Return the artifacts that the stage reads, by input; those that were made."""
        stage = self.run.stages[command.stage].planned.stage
        artifacts = (
            (name, self.run.stages[source].artifact) for name, source in stage.inputs.items()
        )
        return {name: ref for name, ref in artifacts if ref is not None}

    def _refuse(self, command: Start, kind: FailureKind, evidence: str) -> None:
        failure = Failure(kind=kind, evidence=evidence, pool=command.pool)
        self._commit(AttemptFailed(command.stage, command.number, failure))

    def _port(self, name: str) -> Cluster | Serving:
        stage = self.run.stages[name].planned.stage
        return self._ports.cluster if stage.endpoint is None else self._ports.serving

    def _key(self, stage: str, number: int) -> str:
        return f"{self.run.header.run}/{stage}/{number}"

    def _abandon(self) -> None:
        """Give back what the run holds when the controller itself breaks."""
        for attempt in self.run.active:
            key, port = self._key(attempt.stage, attempt.number), self._port(attempt.stage)
            self._tell("attempts were not ended", partial(port.cancel, key))
        for stage, _ in self._standing_by:
            release = partial(self._ports.cluster.release, self.run.header.run, stage)
            self._tell("gangs that stood by were not sent away", release)
