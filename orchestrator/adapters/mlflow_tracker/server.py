"""The only file that talks to MLflow: a few verbs, whose errors are two.

Rules: never the fluent API; short timeouts and no retries of MLflow's own, because the tracker's
thread has a back-off; every verb may be repeated, and the second time changes nothing. MLflow is
imported by `connect`, in the thread that calls it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from orchestrator.adapters.mlflow_tracker import view_states
from orchestrator.adapters.mlflow_tracker.errors import AwayError, RefusedError
from orchestrator.adapters.mlflow_tracker.fields import KEY

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_METRICS, _FIELDS = 900, 50  # of 1,000 entities and 1 MB that MLflow takes in one request
_PAGE = 1000
_FOR_EVER = frozenset({400, 404, 409, 413})
_SWITCHES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """A value of a metric at a step; `at` is milliseconds since the epoch."""

    key: str
    value: float
    step: int
    at: int


@dataclass(slots=True)
class Shown:
    """An MLflow run as it stands on the server: what need not be written again."""

    id: str
    tags: dict[str, str] = field(default_factory=dict)
    params: frozenset[str] = frozenset()
    ended: bool = False


class Server:
    """One experiment of an MLflow server. Not for use by two threads at once."""

    def __init__(self, uri: str, experiment: str) -> None:
        """Remember where; nothing is imported or asked yet."""
        self._uri, self._name = uri, experiment
        self._client: MlflowClient | None = None
        self.experiment_id = ""

    @property
    def connected(self) -> bool:
        """Whether `connect` succeeded."""
        return bool(self.experiment_id)

    def connect(self) -> None:
        """Find or create the experiment."""
        for key, value in _SWITCHES.items():
            os.environ.setdefault(key, value)  # noqa: TID251 - MLflow takes these from nowhere else
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self._uri)
        self.experiment_id = _ask(self._find_or_create)

    def shown(self, run: str) -> dict[str, Shown]:
        """Return the MLflow runs of `run` by their keys."""
        where = f"tags.`run.id` = '{run}'"
        found: dict[str, Shown] = {}
        token: str | None = None
        while token is None or token:
            page = _ask(
                self._mlflow.search_runs,
                [self.experiment_id],
                where,
                max_results=_PAGE,
                order_by=["attributes.start_time DESC"],
                page_token=token or None,
            )
            for item in page:
                done = item.info.status in {"FINISHED", "FAILED", "KILLED"}
                tags = dict(item.data.tags)
                shown = Shown(item.info.run_id, tags, frozenset(item.data.params), done)
                found[tags.get(KEY, "")] = shown
            token = page.token or ""
        return found

    def create(self, name: str, tags: Mapping[str, str], start: float) -> Shown:
        """Create an MLflow run that began at `start` (seconds, epoch)."""
        made = _ask(
            self._mlflow.create_run,
            self.experiment_id,
            start_time=round(start * 1000),
            tags=dict(tags),
            run_name=name,
        )
        return Shown(made.info.run_id, dict(tags))

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
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(p.key, p.value, p.at, p.step) for p in metrics]
        pairs = [Param(key, value) for key, value in (params or {}).items()]
        marks = [RunTag(key, value) for key, value in (tags or {}).items()]
        for part in _parts(points, pairs, marks):
            self._try(self._mlflow.log_batch, run_id, *part)

    def end(self, run_id: str, status: str, at: float) -> None:
        """Set the final status, with the time `at` (seconds, epoch)."""
        self._try(self._mlflow.set_terminated, run_id, status, round(at * 1000))

    def text(self, run_id: str, path: str, text: str) -> None:
        """Write a text artifact."""
        self._try(self._mlflow.log_text, run_id, text, path)

    def show_views(self, headlines: Sequence[str] = (), curves: Sequence[str] = ()) -> None:
        """Write the ready-made views, with columns and charts for these metrics too."""
        experiment = _ask(self._mlflow.get_experiment, self.experiment_id)
        for key, value in view_states.changes(experiment.tags, headlines, curves).items():
            self._try(self._mlflow.set_experiment_tag, self.experiment_id, key, value)

    @property
    def _mlflow(self) -> MlflowClient:
        if self._client is None:
            raise AwayError(f"MLflow at {self._uri!r} is not connected yet")
        return self._client

    def _find_or_create(self) -> str:
        from mlflow.exceptions import MlflowException

        found = self._mlflow.get_experiment_by_name(self._name)
        if found is None:
            try:
                return str(self._mlflow.create_experiment(self._name))
            except MlflowException:  # another controller may have been faster
                found = self._mlflow.get_experiment_by_name(self._name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._mlflow.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _try(self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            _ask(call, *args, **kwargs)
        except RefusedError as error:
            logger.warning("MLflow left something out: %s", error)


def _ask(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call MLflow; the one place where its errors are translated."""
    from mlflow.exceptions import MlflowException

    try:
        return call(*args, **kwargs)
    except MlflowException as error:
        line = " ".join(str(error).split())[:500]
        if error.get_http_status_code() in _FOR_EVER:
            raise RefusedError(line) from error
        raise AwayError(line) from error
    except OSError as error:  # `requests` raises these, for artifacts too
        raise AwayError(" ".join(str(error).split())[:500]) from error


def _parts(
    metrics: Sequence[T], params: Sequence[T], tags: Sequence[T]
) -> Iterator[tuple[Sequence[T], Sequence[T], Sequence[T]]]:
    sizes = ((len(metrics), _METRICS), (len(params), _FIELDS), (len(tags), _FIELDS))
    for i in range(max(-(-count // size) for count, size in sizes)):
        yield (
            metrics[i * _METRICS : (i + 1) * _METRICS],
            params[i * _FIELDS : (i + 1) * _FIELDS],
            tags[i * _FIELDS : (i + 1) * _FIELDS],
        )
