"""Which points of a curve stand for it on the run."""

from __future__ import annotations

import itertools

from orchestrator.adapters.mlflow_tracker.curves import _ALL, _AttemptCurve
from orchestrator.ports import Point


def _chosen(count: int) -> list[int]:
    curve = _AttemptCurve()
    points = (
        Point(id=i, run="r", stage="s", attempt=1, key="loss", value=0.0, step=10 * i + 1, at=0.0)
        for i in range(count)
    )
    return [point.step for point in points if curve.add(point)]


def test_a_short_curve_is_shown_whole() -> None:
    assert len(_chosen(_ALL)) == _ALL


def test_a_long_curve_is_thinned_evenly_and_the_same_each_time() -> None:
    chosen = _chosen(100_000)
    assert len(chosen) < 10 * _ALL
    assert chosen == _chosen(100_000)
    assert max(b - a for a, b in itertools.pairwise(chosen)) < 10 * 1024
