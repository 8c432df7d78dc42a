"""Keeps the registry as the database tells: versions of a run's models, and their aliases.

Like the tree of runs it is compared and mended, so a pass that broke off is simply done again.
What the registry refuses is reported and left out: the runs are shown all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from orchestrator.adapters.mlflow_tracker import fields
from orchestrator.adapters.mlflow_tracker.experiment import MlflowRun
from orchestrator.adapters.mlflow_tracker.mlflow_errors import RefusedError
from orchestrator.adapters.mlflow_tracker.model_registry import Models, clean
from orchestrator.core.runs.run import Run
from orchestrator.core.spec.hardware import Role
from orchestrator.core.trust.model_versions import (
    CANDIDATE,
    FIGURES,
    PARITY,
    Entry,
    ModelVersion,
    Parity,
    candidate,
    entries,
    with_figures,
    with_verdict,
)
from orchestrator.core.trust.qualification import Verdict, verdict_of
from orchestrator.output_reader import OutputReader
from orchestrator.ports import EndpointLog, MetricPoints, Verdicts

logger = logging.getLogger(__name__)


class Registrar:
    """The registry's part of a projection. For one thread."""

    def __init__(
        self,
        models: Models,
        points: MetricPoints,
        verdicts: Verdicts,
        endpoints: EndpointLog | None,
        output: OutputReader,
    ) -> None:
        """Know of no version yet; `output` is what the attempts write."""
        self._models, self._points, self._verdicts = models, points, verdicts
        self._endpoints, self._output = endpoints, output
        self._done: dict[str, ModelVersion] = {}
        self._followed: dict[str, int] = {}

    def sync(self, run: Run, mlflow_runs: Mapping[str, MlflowRun], experiment: str) -> None:
        """Bring the versions of `run` up to date, and the champions of its endpoints.

        Raises:
            AwayError: MLflow is away; a later call does what is missing.
        """
        for entry in entries(run):
            try:
                self._keep(entry, run, mlflow_runs, experiment)
                self._follow(entry.name)
            except RefusedError as error:
                logger.warning("MLflow's registry left something out: %s", error)

    def forget(self) -> None:
        """Look at the server again: a request may have gone through."""
        self._done.clear()
        self._followed.clear()

    def close(self) -> None:
        """Leave the server."""
        self._models.close()

    def _figures(self, entry: Entry, run: str) -> Mapping[str, float]:
        """Return the figures of a comparison that failed: it made no result, but told points."""
        figures: dict[str, float] = {}
        after = 0
        while points := self._points.points(run, after):
            after = points[-1].id
            ours = (point for point in points if (point.stage, point.attempt) == entry.guard)
            figures |= {point.key: point.value for point in ours if point.key.startswith(FIGURES)}
        return figures

    def _keep(
        self, entry: Entry, run: Run, mlflow_runs: Mapping[str, MlflowRun], experiment: str
    ) -> None:
        version = self._done.get(entry.key) or self._registered(entry)
        if entry.tags[PARITY] == Parity.FAILED and not (version and _says(version, entry)):
            entry = with_figures(entry, self._figures(entry, run.header.run))
        new = version is None
        if version is None:
            entry = with_verdict(entry, self._verdict(entry, run))
            version = self._models.create(
                entry, experiment, _run_id(run, entry.exporter, mlflow_runs)
            )
        self._done[entry.key] = version
        news = _news(entry)
        if news and (new or not _says(version, entry)):
            version = self._models.tag(version, news)
            self._models.describe(version, entry)
            self._compared(version, entry, _run_id(run, entry.guard, mlflow_runs))
            self._candidate(entry.name)
            self._done[entry.key] = version

    def _verdict(self, entry: Entry, run: Run) -> Verdict | None:
        pool, at = run.plan.pools[entry.tags["pool"]], run.header.created
        return verdict_of(pool, Role.SERVE, self._verdicts.verdicts(), at)

    def _registered(self, entry: Entry) -> ModelVersion | None:
        versions = (
            version for version in self._models.versions(entry.name) if version.key == entry.key
        )
        return min(versions, key=lambda version: version.number, default=None)

    def _candidate(self, name: str) -> None:
        best = candidate(self._models.versions(name))
        if best is not None and CANDIDATE not in best.aliases:
            self._models.alias(best, CANDIDATE)

    def _compared(self, version: ModelVersion, entry: Entry, run: str) -> None:
        """Tie the figures of a comparison, and what it reports, to the model."""
        if entry.guard is None or not version.model_id:
            return
        self._models.measure(version, run, entry.figures)
        stage, number = entry.guard
        for name, text in self._output.reports(stage, number).items():
            self._models.attach(version, name, text)

    def _follow(self, name: str) -> None:
        if self._endpoints is None:
            return
        life = self._endpoints.endpoint(name)
        if self._followed.get(name) != life.seq:
            self._models.follow(life)
            self._followed[name] = life.seq


def _says(version: ModelVersion, entry: Entry) -> bool:
    """Whether a version says all that is known of its comparison."""
    return all(version.tags.get(key) == value for key, value in _news(entry).items())


def _news(entry: Entry) -> dict[str, str]:
    """Return what a comparison says; the lineage of a version stays that of its first run."""
    if entry.tags[PARITY] == Parity.PENDING:
        return {}
    return clean({k: v for k, v in entry.tags.items() if k.startswith(PARITY)})


def _run_id(run: Run, place: tuple[str, int] | None, mlflow_runs: Mapping[str, MlflowRun]) -> str:
    """Return the MLflow run of an attempt; that of the whole run where it made none."""
    key = fields.attempt_key(run.header.run, *place) if place else run.header.run
    return mlflow_runs[key].id
