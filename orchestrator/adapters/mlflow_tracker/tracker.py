"""The thread that writes to MLflow: the port `Tracker`.

It never raises into the pipeline and never blocks it. MLflow away means wait and try again, longer
each time; the database keeps what is missing. Whatever else a pass raises is said once, and the
next pass begins anew. What fails for good, time after time, is given up with one line: nobody
waits for it at the end.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.adapters.mlflow_tracker import figures
from orchestrator.adapters.mlflow_tracker.experiment import MlflowExperiment
from orchestrator.adapters.mlflow_tracker.load import Sampler
from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError
from orchestrator.adapters.mlflow_tracker.model_registry import Models
from orchestrator.adapters.mlflow_tracker.projection import Projection, TrackedRuns
from orchestrator.adapters.mlflow_tracker.registrar import Registrar
from orchestrator.adapters.mlflow_tracker.rest import ServerAccess
from orchestrator.core.errors import OrchestratorError, StoreError
from orchestrator.core.settings import TrackingSettings
from orchestrator.error_boundary import outcome, reason
from orchestrator.output_reader import OutputReader
from orchestrator.ports import Clock, EndpointLog

logger = logging.getLogger(__name__)
# What may go through later. All else, so many times in a row, is given up.
PASSING = (AwayError, StoreError)
MOST_FAILURES, MOST_AT_THE_END = 20, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often to write, in seconds: starts of passes, heartbeats, waits when MLflow is away."""

    between: float = 0.5
    heartbeat: float = 10.0
    retry: float = 1.0
    longest_retry: float = 5.0  # short: MLflow may be back for a moment only


class MlflowTracker:
    """Projects one run of the database into MLflow, from a thread of its own."""

    def __init__(  # noqa: PLR0913 - the composition root hands over all a tracker needs
        self,
        store: TrackedRuns,
        run: str,
        *,
        uri: str,
        settings: TrackingSettings,
        clock: Clock,
        output: OutputReader,
        access: ServerAccess | None = None,
        pools: Mapping[str, int] | None = None,
        pace: Pace | None = None,
        upto: Callable[[], int] = lambda: sys.maxsize,
        endpoints: EndpointLog | None = None,
    ) -> None:
        """Start the thread.

        `output` is what the attempts write. `pools` has, for pools whose processes run on
        this machine, the id of the process whose descendants they are: their load is measured.
        `upto` returns the number of the last event that is to be shown. `endpoints` tells which
        model is the champion of each.
        """
        server = MlflowExperiment(uri, settings.experiment, access)
        registrar = Registrar(Models(uri, access), store, store, endpoints, output)
        self._projection = Projection(store, run, server, output, upto, registrar)
        self._clock, self._pace = clock, pace or Pace()
        self._sampler = Sampler(clock, settings.system_seconds, pools or {})
        self._last_heartbeat = float("-inf")
        self._failing_since: float | None = None
        self._lasting = 0
        self._sure = False
        self._news, self._closing = threading.Event(), threading.Event()
        self._abandoned, self._complete = threading.Event(), threading.Event()
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-tracker", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Say that there is something new in the store."""
        self._news.set()

    def close(self, timeout: float) -> bool:
        """Write what is left, at most for `timeout` seconds; return whether all is written."""
        self._sampler.stop()
        self._closing.set()
        self._news.set()
        self._thread.join(timeout)
        self._abandoned.set()
        return self._complete.is_set()

    @property
    def given_up(self) -> bool:
        """Whether MLflow will not get what is left: it is refused for good."""
        return self._given_up.is_set()

    # --- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._until_complete()
        finally:
            self._projection.close()

    def _until_complete(self) -> None:
        retry = self._pace.retry
        while not self._abandoned.is_set():
            last = self._closing.is_set()
            self._news.clear()
            began = self._clock.monotonic()
            went_through = self._pass()
            if went_through and last and self._sure:
                self._complete.set()
                return
            if self._lasting >= (MOST_AT_THE_END if last else MOST_FAILURES):
                self._given_up.set()
                logger.error("MLflow gets no more of this run; status and logs have all of it")
                return
            if went_through and not last:
                retry = self._pace.retry
                spent = self._clock.monotonic() - began
                self._closing.wait(self._pace.between - spent)  # a long pass is followed at once
                self._news.wait(self._pace.heartbeat)
            else:
                self._rest(retry)
                retry = min(2 * retry, self._pace.longest_retry)

    def _pass(self) -> bool:
        """Write what is new; return whether that went through."""
        error = outcome(self._write, but=()).error
        tick = self._clock.monotonic()
        if error is None:
            if self._failing_since is not None:
                logger.info("MLflow gets this run again, after %.0f s", tick - self._failing_since)
            self._failing_since, self._lasting = None, 0
            return True
        if self._failing_since is None:
            self._failing_since = tick
            kind = "" if isinstance(error, OrchestratorError) else f"{type(error).__name__}: "
            logger.warning("MLflow does not get this run at present: %s%s", kind, reason(error))
        self._lasting = 0 if isinstance(error, PASSING) else self._lasting + 1
        return False

    def _write(self) -> None:
        now = self._clock.now()
        self._sure = self._projection.sync(now)
        self._extras(now)

    def _extras(self, now: float) -> None:
        """Write a heartbeat when it is time, and the load of the machine."""
        points, tick = self._sampler.take(), self._clock.monotonic()
        run = self._projection.run
        beat = not run.done and tick - self._last_heartbeat >= self._pace.heartbeat
        try:
            extra = [*figures.heartbeat(now), *figures.totals(run, now)] if beat else []
            self._projection.record([*points, *extra])
        except OrchestratorError:
            self._sampler.put_back(points)
            raise
        if beat:
            self._last_heartbeat = tick

    def _rest(self, seconds: float) -> None:
        """Wait after a failure: for less where the pipeline is waiting for the end."""
        if not self._closing.wait(seconds):
            return
        self._abandoned.wait(self._pace.retry)
