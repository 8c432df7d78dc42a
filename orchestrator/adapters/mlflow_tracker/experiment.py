"""The verbs of the tracker on an MLflow server, whose errors are two.

Rules: every verb may be repeated, and the second time changes nothing, but for `create`: look at
what is `shown` first. MLflow itself is not imported.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.adapters.mlflow_tracker import foreign_artifacts, view_states
from orchestrator.adapters.mlflow_tracker.fields import KEY
from orchestrator.adapters.mlflow_tracker.mlflow_errors import RefusedError
from orchestrator.adapters.mlflow_tracker.rest import Rest, ServerAccess

logger = logging.getLogger(__name__)

_METRICS, _FIELDS = 900, 50  # of 1,000 entities and 1 MB that MLflow takes in one request
_PAGE = 1000
_PROXIED = "mlflow-artifacts:/"
RUNNING = "RUNNING"
Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """A value of a metric at a step; `milliseconds` is milliseconds since the epoch."""

    key: str
    value: float
    step: int
    milliseconds: int


@dataclass(slots=True)
class MlflowRun:
    """An MLflow run as it stands on the server: what need not be written again.

    `artifacts` is the URI of the folder of its artifacts, `metrics` has the last step of each
    metric, as the server said when it was asked.
    """

    id: str
    tags: dict[str, str] = field(default_factory=dict)
    params: frozenset[str] = frozenset()
    status: str = RUNNING
    artifacts: str = ""
    metrics: Mapping[str, int] = field(default_factory=dict)

    def reached(self, metric: str) -> float:
        """Return the last step at which the server was seen to have a value of `metric`."""
        return self.metrics.get(metric, -math.inf)


class MlflowExperiment:
    """One experiment of an MLflow server. Not for use by two threads at once."""

    def __init__(self, uri: str, experiment: str, access: ServerAccess | None = None) -> None:
        """Remember where; nothing is asked yet."""
        self._uri, self._name = uri, experiment
        self._rest = Rest(uri, access or ServerAccess())
        self.experiment_id = ""

    @property
    def connected(self) -> bool:
        """Whether `connect` succeeded."""
        return bool(self.experiment_id)

    def connect(self, *, create: bool = True) -> None:
        """Find the experiment, or create it. Raises `RefusedError` where it may not."""
        try:
            experiment = self._find()
        except RefusedError:
            if not create:
                raise
            experiment = self._create()
        if create and experiment["lifecycle_stage"] == "deleted":
            self._rest.post("experiments/restore", {"experiment_id": experiment["experiment_id"]})
        self.experiment_id = str(experiment["experiment_id"])

    def close(self) -> None:
        """Leave the server."""
        self._rest.close()

    # --- runs ---------------------------------------------------------------------------------

    def shown(self, run: str) -> dict[str, MlflowRun]:
        """Return the MLflow runs of `run` by their keys.

        A key that stands there twice, because the answer to `create` was lost in a server that
        hung, is mended: the one with less written to it is deleted.
        """
        runs: dict[str, MlflowRun] = {}
        for key, shown in self.all_of(run):
            twin = runs.get(key)
            runs[key] = shown if twin is None else self._only(twin, shown)
        return runs

    def all_of(self, run: str) -> Sequence[tuple[str, MlflowRun]]:
        """Return every MLflow run of `run` with its key."""
        return list(self._search(f"tags.`run.id` = '{run}'"))

    def delete(self, run_id: str) -> None:
        """Have a run be shown no more."""
        self._try("runs/delete", {"run_id": run_id})

    def create(self, name: str, tags: Mapping[str, str], start: float) -> MlflowRun:
        """Create an MLflow run that began at `start` (seconds, epoch)."""
        answer = self._rest.post(
            "runs/create",
            {
                "experiment_id": self.experiment_id,
                "start_time": _milliseconds(start),
                "run_name": name,
                "tags": _pairs(tags),
            },
        )
        return _shown(answer["run"])[1]

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[MetricPoint] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Write points, params and tags, in as few requests as MLflow allows.

        What MLflow refuses is reported in the log and left out.
        """
        points: list[Fields] = [
            {"key": p.key, "value": _number(p.value), "timestamp": p.milliseconds, "step": p.step}
            for p in metrics
        ]
        for part in _parts(points, _pairs(params or {}), _pairs(tags or {})):
            self._try("runs/log-batch", {"run_id": run_id, **part})

    def end(self, run_id: str, status: str, at: float) -> None:
        """Set the final status, with the time `at` (seconds, epoch)."""
        fields = {"run_id": run_id, "status": status, "end_time": _milliseconds(at)}
        self._try("runs/update", fields)

    def reopen(self, run_id: str) -> None:
        """Say that a run goes on that had ended."""
        self._try("runs/update", {"run_id": run_id, "status": RUNNING})

    def untag(self, run_id: str, key: str) -> None:
        """Take a tag away."""
        self._try("runs/delete-tag", {"run_id": run_id, "key": key})

    def text(self, mlflow_run: MlflowRun, path: str, text: str) -> None:
        """Write a text artifact."""
        try:
            if (
                mlflow_run.artifacts.startswith(_PROXIED)
                and mlflow_run.artifacts[len(_PROXIED)] != "/"
            ):
                folder = mlflow_run.artifacts.removeprefix(_PROXIED)
                self._rest.put_artifact(f"{folder}/{path}", text.encode())
            else:
                foreign_artifacts.write(self._uri, mlflow_run.id, path, text)
        except RefusedError as error:
            _report(error)

    # --- the experiment -----------------------------------------------------------------------

    def show_views(self, headlines: Sequence[str] = (), curves: Sequence[str] = ()) -> None:
        """Write the ready-made views, with columns and charts for these metrics too."""
        answer = self._rest.get("experiments/get", experiment_id=self.experiment_id)
        tags = {tag["key"]: tag["value"] for tag in answer["experiment"].get("tags", ())}
        for key, value in view_states.changes(tags, headlines, curves).items():
            fields = {"experiment_id": self.experiment_id, "key": key, "value": value}
            self._try("experiments/set-experiment-tag", fields)

    def _find(self) -> Mapping[str, Any]:
        answer = self._rest.get("experiments/get-by-name", experiment_name=self._name)
        return dict(answer["experiment"])

    def _create(self) -> Mapping[str, Any]:
        """Create the experiment, unless another controller is faster."""
        try:
            self._rest.post("experiments/create", {"name": self._name})
        except RefusedError:
            return self._find()
        return self._find()

    # --- requests -----------------------------------------------------------------------------

    def _search(self, where: str) -> Iterator[tuple[str, MlflowRun]]:
        fields: Fields = {
            "experiment_ids": [self.experiment_id],
            "filter": where,
            "max_results": _PAGE,
            "order_by": ["attributes.start_time DESC"],
        }
        while True:
            page = self._rest.post("runs/search", fields)
            yield from map(_shown, page.get("runs", ()))
            if not page.get("next_page_token"):
                return
            fields["page_token"] = page["next_page_token"]

    def _only(self, twin: MlflowRun, other: MlflowRun) -> MlflowRun:
        kept, spare = sorted((twin, other), key=lambda s: (-len(s.metrics), -len(s.params), s.id))
        self.delete(spare.id)
        return kept

    def _try(self, path: str, fields: Mapping[str, object]) -> None:
        try:
            self._rest.post(path, fields)
        except RefusedError as error:
            _report(error)


def _report(error: RefusedError) -> None:
    logger.warning("MLflow left something out: %s", error)


def _shown(run: Mapping[str, Any]) -> tuple[str, MlflowRun]:
    """Return the key of a run as the server tells it, and the run."""
    info, data = run["info"], run.get("data", {})
    tags = {tag["key"]: tag["value"] for tag in data.get("tags", ())}
    shown = MlflowRun(
        info["run_id"],
        tags,
        frozenset(param["key"] for param in data.get("params", ())),
        info["status"],
        info.get("artifact_uri", ""),
        {metric["key"]: int(metric.get("step", 0)) for metric in data.get("metrics", ())},
    )
    return tags.get(KEY, ""), shown


def _pairs(texts: Mapping[str, str]) -> list[Fields]:
    return [{"key": key, "value": value} for key, value in texts.items()]


def _number(value: float) -> float | str:
    """Return a number as MLflow reads it: JSON has none for infinity."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _milliseconds(at: float) -> int:
    return round(at * 1000)


def _parts(
    metrics: Sequence[Fields], params: Sequence[Fields], tags: Sequence[Fields]
) -> Iterator[Mapping[str, Sequence[Fields]]]:
    sizes = ((len(metrics), _METRICS), (len(params), _FIELDS), (len(tags), _FIELDS))
    for i in range(max(-(-count // size) for count, size in sizes)):
        yield {
            "metrics": metrics[i * _METRICS : (i + 1) * _METRICS],
            "params": params[i * _FIELDS : (i + 1) * _FIELDS],
            "tags": tags[i * _FIELDS : (i + 1) * _FIELDS],
        }
