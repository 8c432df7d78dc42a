"""What stands where in MLflow: the run, its attempts, their points, brought up to date.

`sync` compares what the database says with what the server was last seen to show, and writes
the difference. So a pass that broke off is simply done again, a new controller takes over by
looking at the server, and nothing is written twice. Points are the one thing with a cursor.

A server that hung does what it was asked meanwhile when it wakes up, perhaps after what it is
asked then. So after an answer that was lost one pass is not enough: the next looks once more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from orchestrator.adapters.mlflow_tracker import fields, figures
from orchestrator.adapters.mlflow_tracker.curves import Curves
from orchestrator.adapters.mlflow_tracker.experiment import (
    RUNNING,
    MetricPoint,
    MlflowExperiment,
    MlflowRun,
)
from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError
from orchestrator.adapters.mlflow_tracker.orphaned_runs import ORPHANED
from orchestrator.adapters.mlflow_tracker.outbox import Outbox
from orchestrator.adapters.mlflow_tracker.registrar import Registrar
from orchestrator.adapters.mlflow_tracker.texts import RunTexts
from orchestrator.adapters.mlflow_tracker.tracked_run import TrackedRun
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.run import Attempt, Run
from orchestrator.core.runs.states import AttemptState, RunState
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.stages import Json
from orchestrator.output_reader import OutputReader
from orchestrator.ports import EventLog, MetricPoints, Verdicts

_ATTEMPT_STATUS = {
    AttemptState.SUCCEEDED: "FINISHED",
    AttemptState.FAILED: "FAILED",
    AttemptState.CANCELLED: "KILLED",
}
_RUN_STATUS = {
    RunState.SUCCEEDED: "FINISHED",
    RunState.FAILED: "FAILED",
    RunState.PAUSED: "KILLED",  # MLflow has no word for it; reopened when the run goes on
    RunState.CANCELLED: "KILLED",
}


class TrackedRuns(EventLog, MetricPoints, Verdicts, Protocol):
    """What is shown of runs: their events and points, and how their pools were judged."""


class Projection:
    """One run of the database on one MLflow server. For one thread."""

    def __init__(
        self,
        store: TrackedRuns,
        run: str,
        server: MlflowExperiment,
        output: OutputReader,
        upto: Callable[[], int] = lambda: sys.maxsize,
        registrar: Registrar | None = None,
    ) -> None:
        """Read the header of `run`; `output` is what its attempts write.

        `upto` returns the number of the last event that is ours to show: what follows it was
        committed by a controller that took over, whose own tracker shows it.
        """
        header = store.header(run)
        self._store, self._upto = store, upto
        self._key = header.run
        self._server = server
        self._tracked = TrackedRun(begin(header))
        self._outbox = Outbox(server)
        self._curves = Curves(store, header)
        self._texts = RunTexts(server, output)
        self._registrar = registrar
        self._mlflow_runs: dict[str, MlflowRun] | None = None
        self._summed: dict[str, float] = {}
        self._in_views: list[str] | None = None
        self._in_doubt = False
        self._new = True

    @property
    def run(self) -> Run:
        """The run as of the last `sync`."""
        return self._tracked.run

    def sync(self, now: float) -> bool:
        """Bring MLflow up to date, as of `now` (seconds, epoch); return whether that is sure.

        Raises:
            AwayError: MLflow is away; what is missing is written by a later call.
            StoreError: The database can't be read.
        """
        last = self._upto()
        for stored in self._store.events(self._key, self.run.seq):
            if stored.seq <= last:
                self._tracked.tell(stored)
        try:
            self._write(now)
        except BaseException as error:
            self._forget()
            self._in_doubt |= isinstance(error, AwayError)
            raise
        if self._in_doubt:
            self._in_doubt = False
            self._forget()
            return False
        return True

    def record(self, points: Sequence[MetricPoint]) -> None:
        """Add points to the run that the database doesn't have: heartbeats, load of hosts.

        Raises:
            AwayError: MLflow is away.
        """
        parent = (self._mlflow_runs or {}).get(self._key)
        if parent is not None and points:
            self._server.log(parent.id, metrics=points)

    def close(self) -> None:
        """Leave the server."""
        self._server.close()
        if self._registrar is not None:
            self._registrar.close()

    def _write(self, now: float) -> None:
        if not self._server.connected:
            self._server.connect()
        if self._mlflow_runs is None:
            self._mlflow_runs = self._server.shown(self._key)
            if self._mlflow_runs and self._new:  # what another tracker sent may arrive only now
                self._in_doubt = True
            self._new = False
        parent = self._show_run(self._mlflow_runs, now)
        attempts = {
            (attempt.stage, attempt.number): self._show_attempt(self._mlflow_runs, attempt, parent)
            for attempt in self._tracked.attempts
        }
        self._curves.draw(self.run, parent, attempts, self._outbox)
        self._sum_up(parent, attempts, now)
        self._outbox.flush()
        self._end(parent, attempts)
        self._show_views()
        self._texts.of_run(self.run.header, parent)
        self._texts.read_ends()
        for attempt in self._tracked.attempts:
            self._texts.of_attempt(self._tracked, attempt, attempts[attempt.stage, attempt.number])
        if self._registrar is not None:
            self._registrar.sync(self.run, self._mlflow_runs, self._server.experiment_id)

    def _forget(self) -> None:
        """Look at the server again before the next pass: a request may have gone through."""
        self._mlflow_runs = None
        self._outbox.clear()
        self._curves.forget()
        self._summed.clear()
        if self._registrar is not None:
            self._registrar.forget()

    # --- what is shown ------------------------------------------------------------------------

    def _show_run(self, mlflow_runs: dict[str, MlflowRun], now: float) -> MlflowRun:
        header = self.run.header
        tags = fields.run_tags(self._tracked, now)
        if self._key not in mlflow_runs:
            start = header.created or now
            mlflow_runs[self._key] = self._server.create(self._key, tags, start)
        parent = mlflow_runs[self._key]
        self._outbox.add(parent, params=fields.run_params(header.config), tags=tags)
        return parent

    def _show_attempt(
        self, mlflow_runs: dict[str, MlflowRun], attempt: Attempt, parent: MlflowRun
    ) -> MlflowRun:
        key = fields.attempt_key(self._key, attempt.stage, attempt.number)
        tags = fields.attempt_tags(self._tracked, attempt) | {fields.PARENT: parent.id}
        if key not in mlflow_runs:
            title = f"{attempt.stage} {attempt.number} on {attempt.pool}"
            mlflow_runs[key] = self._server.create(title, tags, attempt.started)
        self._outbox.add(mlflow_runs[key], params=fields.params(self._params(attempt)), tags=tags)
        return mlflow_runs[key]

    def _params(self, attempt: Attempt) -> Mapping[str, Json]:
        stage = self.run.plan[attempt.stage].stage.on_pool(attempt.pool)
        return stage.params or (stage.endpoint.engine_options if stage.endpoint else {})

    # --- what it came to ----------------------------------------------------------------------

    def _sum_up(
        self, parent: MlflowRun, attempts: Mapping[tuple[str, int], MlflowRun], now: float
    ) -> None:
        """Write the metrics that stages ended with, to their attempts and to the run."""
        for name, at in self._tracked.finished.items():
            if self._summed.get(name) == at:
                continue
            stage = self.run.stages[name]
            self._outbox.add(parent, points=self._curves.headline(name, stage.metrics, at))
            if stage.attempts:
                last = stage.attempts[-1]
                points = self._curves.headline(name, last.metrics, at, last.number)
                self._outbox.add(attempts[name, last.number], points=points)
            self._summed[name] = at
        if self.run.done and parent.status == RUNNING:
            self._outbox.add(parent, points=figures.totals(self.run, self.run.ended or now))

    def _end(self, parent: MlflowRun, attempts: Mapping[tuple[str, int], MlflowRun]) -> None:
        for attempt in self._tracked.attempts:
            shown = attempts[attempt.stage, attempt.number]
            status = _ATTEMPT_STATUS.get(attempt.state, RUNNING)
            self._set_status(shown, status, attempt.ended or attempt.started)
        status = _RUN_STATUS.get(self.run.state, RUNNING)
        self._set_status(parent, status, self.run.ended or self.run.header.created)

    def _set_status(self, mlflow_run: MlflowRun, status: str, ended: float) -> None:
        """Write the true status, also over what somebody else made of it meanwhile."""
        if ORPHANED in mlflow_run.tags:
            self._server.untag(mlflow_run.id, ORPHANED)
            del mlflow_run.tags[ORPHANED]
        if mlflow_run.status == status:
            return
        if status == RUNNING:
            self._server.reopen(mlflow_run.id)
        else:
            self._server.end(mlflow_run.id, status, ended)
        mlflow_run.status = status

    def _show_views(self) -> None:
        """Write the views when the run begins, and again when its metrics are known."""
        if self._in_views is None or (self.run.done and self._in_views != self._headlines()):
            headlines = self._headlines()
            self._server.show_views(headlines, self._curves.names)
            self._in_views = headlines

    def _headlines(self) -> list[str]:
        """Return the names of the results: of stages that train or serve, the last ones first."""
        stages = reversed(list(self.run.stages.values()))
        results = (stage for stage in stages if stage.planned.stage.role is not Role.PREPARE)
        return [fields.name(f"{stage.name}/{key}") for stage in results for key in stage.metrics]
