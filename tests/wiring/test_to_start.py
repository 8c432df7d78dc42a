"""What is said to be started is what is neither up, nor somebody else's, nor unused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import wiring
from tests.conftest import CONFIGURED


@pytest.mark.parametrize(
    ("overrides", "environment", "started"),
    [
        ((), {}, ["cluster", "MLflow"]),
        (("cluster=local",), {}, ["MLflow"]),
        (("tracking=none",), {}, ["cluster"]),
        (("cluster=local", "tracking=none"), {}, []),
        (("cluster.address=far:6379",), {}, ["MLflow"]),
        (("tracking.uri=http://far:5000",), {}, ["cluster"]),
        ((), {"RAY_ADDRESS": "far:6379", "MLFLOW_TRACKING_URI": "http://far:5000"}, []),
    ],
)
def test_only_what_is_missing_and_ours_is_started(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    environment: dict[str, str],
    started: list[str],
) -> None:
    for name in CONFIGURED:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = wiring.settings(["pipeline=noop", *overrides])
    assert wiring.to_start(found, tmp_path) == started
