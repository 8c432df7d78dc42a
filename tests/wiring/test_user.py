"""A command runs for a user without a name, and where git is not there."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from orchestrator import wiring
from tests.conftest import Command, Workplace

LOCAL = ("pipeline=noop", "cluster.kind=local", "tracking.enabled=false")
UNKNOWN = ("unshare", "--user", "--map-user=54321", "--")
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def _namespaces() -> bool:
    if shutil.which(UNKNOWN[0]) is None:
        return False
    asked = subprocess.run([*UNKNOWN, "id", "-u"], capture_output=True, text=True, check=False)
    return asked.stdout.strip() == "54321"


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54_321)
    assert wiring.user() == "uid-54321"


def test_machines_of_one_name_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node")
    own = wiring.machine()
    assert own.startswith("node/")
    for name, target in (("_BOOT", "boot"), ("_NETWORK", "net")):
        with monkeypatch.context() as other:
            file = tmp_path / target
            file.write_text("other") if target == "boot" else file.symlink_to("net:[7]")
            other.setattr(import_module("orchestrator.wiring.user"), name, file)
            assert wiring.machine() != own
    assert wiring.machine() == own


def test_there_is_no_commit_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert wiring.commit() == ""
    (tmp_path / "git").write_text("this is no program")
    assert wiring.commit() == ""
    (tmp_path / "git").chmod(0o755)
    assert wiring.commit() == ""


def test_a_pipeline_runs_without_git_and_without_a_home(
    orchestrator: Command, environment: dict[str, str], tmp_path: Path
) -> None:
    workplace = orchestrator.__self__  # type: ignore[attr-defined]
    kept = {"PYTHONPATH": environment["PYTHONPATH"], "PATH": str(tmp_path / "empty")}
    workplace.environment = kept
    done = workplace.run("launch", *LOCAL)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not _namespaces(), reason="only in a user namespace is somebody nobody")
def test_a_pipeline_runs_for_a_user_whom_the_machine_does_not_know(
    environment: dict[str, str], tmp_path: Path
) -> None:
    asks = "import getpass, pathlib; print(getpass.getuser(), pathlib.Path.home().exists())"
    (tmp_path / "mine.py").write_text(f"def ask(ctx):\n    {asks}\n")
    job = ("jobs.packages=[mine]", "jobs.code=[.]", "pipeline.stages.noop.job=mine.ask")
    words = [sys.executable, "-m", "orchestrator", "launch", *LOCAL, *job]
    kept = {"PYTHONPATH": environment["PYTHONPATH"], "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*UNKNOWN, *words], cwd=tmp_path, env=kept, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert Workplace(tmp_path, environment).logs() == "[0] uid-54321 True\n"
