"""The figures of a run that the orchestrator itself knows: time, devices, money, lost steps."""

from __future__ import annotations

from orchestrator.adapters.mlflow_tracker.experiment import MetricPoint
from orchestrator.core.runs.run import Run

PREFIX = "orchestrator/"


def heartbeat(now: float) -> list[MetricPoint]:
    """Return the sign of life of a controller; stuck runs are those whose last one is old."""
    return [MetricPoint(f"{PREFIX}heartbeat", now, 0, round(now * 1000))]


def totals(run: Run, now: float) -> list[MetricPoint]:
    """Return what the run has used up to `now` (seconds, epoch).

    The cost stands there only where the price of every pool that was used is known.
    """
    values = {
        "duration_seconds": run.seconds(now),
        "device_hours": sum(stage.device_hours(now) for stage in run.stages.values()),
        "failovers": float(run.failovers),
        "lost_steps": float(run.lost_steps),
    }
    spent = run.spent(now)
    if spent is not None:
        values["cost_usd"] = spent
    at = round(now * 1000)
    return [MetricPoint(f"{PREFIX}{key}", round(value, 6), 0, at) for key, value in values.items()]
