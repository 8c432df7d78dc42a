"""What is to be written to each MLflow run, gathered so that one request carries it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.adapters.mlflow_tracker.experiment import (
    MetricPoint,
    MlflowExperiment,
    MlflowRun,
)


@dataclass(slots=True)
class _Parcel:
    points: list[MetricPoint] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Outbox:
    """Gathers for `flush`; leaves out tags and params that the server is known to have."""

    def __init__(self, server: MlflowExperiment) -> None:
        """Start empty."""
        self._server = server
        self._parcels: dict[str, _Parcel] = {}

    def post(self, mlflow_run: MlflowRun, point: MetricPoint) -> None:
        """Take one point in for the MLflow run `mlflow_run`."""
        self._parcels.setdefault(mlflow_run.id, _Parcel()).points.append(point)

    def add(
        self,
        mlflow_run: MlflowRun,
        *,
        points: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Take these in for the MLflow run `mlflow_run`."""
        parcel = self._parcels.setdefault(mlflow_run.id, _Parcel())
        parcel.points.extend(points)
        new_params = {k: v for k, v in (params or {}).items() if k not in mlflow_run.params}
        new_tags = {k: v for k, v in (tags or {}).items() if mlflow_run.tags.get(k) != v}
        parcel.params |= new_params
        parcel.tags |= new_tags
        mlflow_run.params |= frozenset(new_params)
        mlflow_run.tags |= new_tags

    def flush(self) -> None:
        """Write all of it. Raises `AwayError`: look at the server again before the next pass."""
        while self._parcels:
            run_id, parcel = self._parcels.popitem()
            self._server.log(run_id, metrics=parcel.points, params=parcel.params, tags=parcel.tags)

    def clear(self) -> None:
        """Forget all of it."""
        self._parcels.clear()
