"""What a worker does is read from outside: of one that computes, and of what it has started."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.adapters.raycluster import stacks
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.errors import ClusterError
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine
from orchestrator.ports import Worker
from tests.clusters import begin, request
from tests.workers import worker

CHILD = """
import subprocess, threading
def waits_beside_a_child():
    subprocess.Popen(["true"])
    threading.Event().wait(0.5)
    print(flush=True)
    threading.Event().wait(60)
waits_beside_a_child()
"""
SPY = "#!/bin/sh\nprintf '%s\\n' {lines} >&2\nexit 1\n"


@pytest.fixture
def run() -> Worker:
    return worker


@pytest.mark.ray
def test_a_worker_of_a_gang_shows_where_it_is_and_what_it_has_started(
    cluster: RayCluster, tmp_path: Path
) -> None:
    until = str(tmp_path / "until")
    asked = request("compute_with_a_child", "stacks", needs=Needs(workers=2), until=until)
    attempt = begin(cluster, asked)
    attempt.until(lambda: len(attempt.of(LogLine)) == 2)
    for rank in (0, 1):
        text = cluster.stacks(asked.key, rank).decode()
        assert "_computes (" in text
        assert "waits_in_the_child (<string>" in text
    recorded = json.loads(cluster.stacks(asked.key, 1, seconds=1.0, form="speedscope"))
    assert {"_computes"} <= {frame["name"] for frame in recorded["shared"]["frames"]}
    assert cluster.stacks(asked.key, 0, seconds=1.0, form="flamegraph").startswith(b"<?xml")
    (tmp_path / "until").touch()
    attempt.finish()
    with pytest.raises(
        ClusterError, match=r"worker 0 of attempt '\S+' has not begun, or has ended"
    ):
        cluster.stacks(asked.key, 0)


def test_a_child_that_has_ended_hides_no_stack() -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        text, problem = stacks.spied(process.pid, None, ["dump"])
        process.kill()
    assert problem == ""
    assert b"waits_beside_a_child (<string>" in text


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["Error: Permission Denied", "Stack backtrace:"], "py-spy: Error: Permission Denied"),
        ([], "py-spy: ended with 1"),
    ],
)
def test_what_is_in_the_way_of_py_spy_is_its_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Sequence[str], problem: str
) -> None:
    spy = tmp_path / "py-spy"
    quoted = " ".join(f"'{line}'" for line in lines)
    spy.write_text(SPY.format(lines=quoted) if lines else "#!/bin/sh\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert stacks.spied(1, None, ["dump"]) == (b"", problem)


def test_a_process_that_took_the_number_of_a_worker_is_not_looked_at() -> None:
    assert stacks.spied(1, "another birth", ["dump"]) == (b"", "its process has ended")
