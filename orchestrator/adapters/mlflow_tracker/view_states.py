"""The states of the ready-made views, as MLflow's page of runs keeps them.

A saved view is an experiment tag that holds the state of that page. Nobody documents the format:
MLflow is pinned, a browser test opens the views, and a view that a later MLflow doesn't understand
falls back to its default table. Pure functions.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence

from orchestrator.core.spec.stages import Json

REVIEW, FAILURES, CURVES = "Review", "Failures", "Curves"
PREFIX = "mlflow.sharedViewState."
_MAX_METRICS = 10
_MAX_CURVES = 24
_MAX_TAG = 20_000
_RUNS = "tags.level = 'run'"
_OWN = "orchestrator/"
_REVIEW_BEFORE = (
    *("tags.`state`", "tags.`summary`", "tags.`pools`"),
    *("tags.`failure.kind`", "tags.`failure.stage`"),
)
_REVIEW_AFTER = (
    "tags.`emulated`",
    *(
        f"metrics.`{_OWN}{name}`"
        for name in ("failovers", "lost_steps", "device_hours", "cost_usd")
    ),
    "attributes.`User`",
)
_FAILURES_COLUMNS = (
    *("tags.`failure.kind`", "tags.`failure.pool`", "tags.`failure.step`", "tags.`decision`"),
    *("tags.`failure.evidence`", "tags.`stage`", "tags.`attempt`", "tags.`accelerator`"),
    *("tags.`failure.node`", "tags.`failure.rank`", "tags.`failure.at`", "tags.`run.id`"),
)
_BARS = tuple(
    f"{_OWN}{name}" for name in ("duration_seconds", "device_hours", "failovers", "lost_steps")
)
_WIDTHS = {
    "attributes.`Run Name`": 215,
    "duration": 80,
    "runDateAndNestInfo": 145,
    "tags.`accelerator`": 130,
    "tags.`decision`": 300,
    "tags.`failure.at`": 150,
    "tags.`failure.evidence`": 330,
    "tags.`failure.kind`": 150,
    "tags.`failure.node`": 120,
    "tags.`pools`": 235,
    "tags.`run.id`": 220,
    "tags.`summary`": 420,
}
_WIDTH = 100
_METRIC_WIDTH = 135


def changes(
    tags: Mapping[str, str], headlines: Sequence[str] = (), curves: Sequence[str] = ()
) -> dict[str, str]:
    """Return the experiment tags to set, given those that stand and the metrics of a run."""
    shown = _merged(_headlines_of(tags.get(PREFIX + REVIEW, "")), headlines, _MAX_METRICS)
    drawn = _merged(_curves_of(tags.get(PREFIX + CURVES, "")), curves, _MAX_CURVES)
    wanted = {REVIEW: _review(shown), FAILURES: _failures(), CURVES: _curves(drawn, shown)}
    new = {PREFIX + name: _tag(name, state) for name, state in wanted.items()}
    fitting = {key: value for key, value in new.items() if len(value) <= _MAX_TAG}
    return {key: value for key, value in fitting.items() if tags.get(key) != value}


def decode(tag: str) -> Mapping[str, Json]:
    """Return the state in the value of a view's tag; empty when it is none."""
    try:
        packed = json.loads(tag)["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
    except (ValueError, TypeError, KeyError, AttributeError, zlib.error):
        return {}
    return state if isinstance(state, dict) else {}


def _review(headlines: Sequence[str]) -> dict[str, Json]:
    metrics = [f"metrics.`{name}`" for name in headlines]
    columns = (*_REVIEW_BEFORE, *metrics, *_REVIEW_AFTER)
    return _table(_RUNS, columns, by="attributes.start_time")


def _failures() -> dict[str, Json]:
    """Order by a tag: by start time, MLflow would fold the attempts into their runs."""
    where = "tags.level = 'attempt' AND attributes.status = 'FAILED'"
    return _table(where, _FAILURES_COLUMNS, by="tags.`failure.at`")


def _curves(curves: Sequence[str], headlines: Sequence[str]) -> dict[str, Json]:
    """Return lines of every curve first, then bars of what the runs ended with."""
    bars = [name for name in headlines if name not in curves]
    sections = {"Training": curves, "Results": bars, "Runs": _BARS}
    state = _review(headlines)
    state["compareRunSections"] = [_section(name) for name, keys in sections.items() if keys]
    state["compareRunCharts"] = [
        _chart("LINE" if name == "Training" else "BAR", name, key)
        for name, keys in sections.items()
        for key in keys
    ]
    state["isAccordionReordered"] = True
    return state


def _section(name: str) -> dict[str, Json]:
    return {"uuid": name, "name": name, "display": True, "isReordered": True}


def _chart(kind: str, section: str, metric: str) -> dict[str, Json]:
    chart: dict[str, Json] = {
        "type": kind,
        "uuid": f"{section}-{metric}",
        "metricSectionId": section,
        "metricKey": metric,
        "displayName": metric,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 20,
    }
    if kind == "LINE":
        chart |= {"selectedMetricKeys": [metric], "xAxisKey": "step", "scaleType": "linear"}
        chart |= {"lineSmoothness": 0, "useGlobalLineSmoothing": True, "useGlobalXaxisKey": True}
    return chart


def _table(where: str, columns: Sequence[str], *, by: str) -> dict[str, Json]:
    order = ["attributes.`Run Name`", "runDateAndNestInfo", "duration", *columns]
    widths = {column: _WIDTHS.get(column) or _width(column) for column in order}
    return {
        "searchFilter": where,
        "orderByKey": by,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": order,
        "columnWidths": widths,
        "groupBy": None,
    }


def _width(column: str) -> int:
    return _METRIC_WIDTH if column.startswith("metrics.") else _WIDTH


def _tag(name: str, state: Mapping[str, Json]) -> str:
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return json.dumps(view)


def _headlines_of(tag: str) -> list[str]:
    columns = decode(tag).get("selectedColumns")
    names = [str(column) for column in columns] if isinstance(columns, list) else []
    metrics = [name[len("metrics.`") : -1] for name in names if name.startswith("metrics.`")]
    return [metric for metric in metrics if not metric.startswith(_OWN)]


def _curves_of(tag: str) -> list[str]:
    charts = decode(tag).get("compareRunCharts")
    drawn = charts if isinstance(charts, list) else []
    return [str(c["metricKey"]) for c in drawn if c.get("metricSectionId") == "Training"]


def _merged(before: Sequence[str], new: Sequence[str], limit: int) -> list[str]:
    """Return the newest names first, each once: what a run shows must not be crowded out."""
    return list(dict.fromkeys((*new, *before)))[:limit]
