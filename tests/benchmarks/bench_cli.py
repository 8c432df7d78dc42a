"""How long the command takes to answer, against a Python that does nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.benchmarks.table import Row, compare, seconds

COMMANDS = (
    (("--help",), "orchestrator --help", "ours < 0.3 s"),
    (("plan", "pipeline=r2"), "orchestrator plan pipeline=r2", "ours < 1.5 s"),
    (("status",), "orchestrator status", ""),
)


def rows() -> list[Row]:
    """Time each command in a folder of its own, as a user's shell starts it."""
    with tempfile.TemporaryDirectory() as folder:
        bare = seconds(lambda: _start(("-c", "pass"), folder))
        return [
            compare(f"{name}, against python -c pass", _seconds(args, folder), bare, goal=goal)
            for args, name, goal in COMMANDS
        ]


def _seconds(args: tuple[str, ...], folder: str) -> float:
    return seconds(lambda: _start(("-m", "orchestrator", *args), folder))


def _start(args: tuple[str, ...], folder: str) -> None:
    known = {**os.environ, "ORCHESTRATOR_HOME": f"{folder}/home"}  # noqa: TID251 - a command's
    subprocess.run(
        [sys.executable, *args], cwd=folder, env=known, capture_output=True, check=True, timeout=60
    )
