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

from orchestrator.core.spec import Json

REVIEW, FAILURES, CURVES = "Review", "Failures", "Curves"
PREFIX = "mlflow.sharedViewState."
_MAX_METRICS = 10
_MAX_CURVES = 24
_MAX_TAG = 20_000
_RUNS = "tags.level = 'run'"
_OWN = "orchestrator/"
_REVIEW_COLUMNS = (
    *("attributes.`Created`", "attributes.`Duration`", "attributes.`Description`"),
    *("tags.`state`", "tags.`pools`", "tags.`failure.kind`", "tags.`failure.stage`"),
)
_REVIEW_METRICS = ("failovers", "device_hours", "cost_usd")
_FAILURES_COLUMNS = (
    "attributes.`Created`",
    *("tags.`run.id`", "tags.`stage`", "tags.`attempt`", "tags.`pool`", "tags.`accelerator`"),
    *("tags.`failure.kind`", "tags.`failure.evidence`", "tags.`decision`"),
    *("tags.`failure.step`", "tags.`failure.rank`", "tags.`node`"),
)
_WIDTHS = {
    "attributes.`Description`": 420,
    "tags.`failure.evidence`": 420,
    "tags.`decision`": 300,
    "tags.`pools`": 260,
    "tags.`run.id`": 220,
}


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
    own = [f"metrics.`{_OWN}{name}`" for name in _REVIEW_METRICS]
    metrics = [f"metrics.`{name}`" for name in headlines]
    return _table(_RUNS, (*_REVIEW_COLUMNS, *metrics, *own))


def _failures() -> dict[str, Json]:
    return _table("tags.level = 'attempt' AND attributes.status = 'FAILED'", _FAILURES_COLUMNS)


def _curves(curves: Sequence[str], headlines: Sequence[str]) -> dict[str, Json]:
    """Return lines of every curve first, then bars of what the runs ended with."""
    bars = [name for name in headlines if name not in curves]
    names = {"Training": curves, "Results": bars, "Runs": [f"{_OWN}{n}" for n in _OWN_BARS]}
    state = _table(_RUNS, _REVIEW_COLUMNS)
    state["compareRunSections"] = [_section(name) for name, metrics in names.items() if metrics]
    state["compareRunCharts"] = [
        _chart("LINE" if name == "Training" else "BAR", name, metric)
        for name, metrics in names.items()
        for metric in metrics
    ]
    state["isAccordionReordered"] = True
    return state


_OWN_BARS = ("duration_seconds", "device_hours", "failovers")


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


def _table(where: str, columns: Sequence[str]) -> dict[str, Json]:
    return {
        "searchFilter": where,
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(columns),
        "columnOrder": [],
        "columnWidths": {column: _WIDTHS[column] for column in columns if column in _WIDTHS},
        "groupBy": None,
    }


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
