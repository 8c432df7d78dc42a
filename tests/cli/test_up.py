"""`orchestrator up --block`: up until it is told to leave, and nothing left after."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import Workplace


@pytest.mark.services
def test_what_is_up_for_as_long_as_the_command_goes_with_it(workplace: Workplace) -> None:
    words = ("up", "--block", "cluster=local", "pipeline=noop")
    services = workplace.folder / ".orchestrator/services"
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=workplace.folder,
        env=workplace.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        try:
            assert up.stdout.readline() == "Cluster: in this process\n"
            assert up.stdout.readline().startswith("MLflow:  http://127.0.0.1:")
            assert any("To stop all" in line for line in iter(up.stdout.readline, ""))
            assert {path.stem for path in services.glob("*.json")} == {"mlflow", "reaper"}
        finally:
            up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    assert list(services.glob("*.json")) == []
