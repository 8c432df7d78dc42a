"""What all tests share: the command as a user runs it, and one MLflow server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SECONDS = 180
CONFIGURED = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "ORCHESTRATOR_HOME", "ORCHESTRATOR_DATABASE")


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """The environment without what would lead a command to somebody's cluster."""
    kept = {name: value for name, value in os.environ.items() if name not in CONFIGURED}  # noqa: TID251 - a test's own
    root = str(Path(__file__).parent.parent)
    return {**kept, "PYTHONPATH": root, "PYTHONWARNINGS": "ignore"}


@pytest.fixture
def orchestrator(tmp_path: Path, environment: dict[str, str]) -> Command:
    """The command `orchestrator`, in an empty working folder, with its home there."""

    def run(*words: str, seconds: float = SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    return run


@pytest.fixture(scope="session")
def mlflow_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a home whose managed MLflow server runs; tests take experiments of their own."""
    from orchestrator.adapters import mlflow_server

    home = tmp_path_factory.mktemp("mlflow")
    mlflow_server.up(home)
    yield home
    mlflow_server.down(home)
