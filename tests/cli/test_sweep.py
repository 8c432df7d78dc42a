"""A sweep: one run after the other, each with an id of its own, until somebody interrupts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.service import driving
from orchestrator.service.driving import request
from orchestrator.supervisor.record import wait
from tests.conftest import Command, Workplace

SLOW = """
import time

def rest(ctx, seconds=60):
    for _ in range(seconds * 10):
        time.sleep(0.1)
        ctx.log("resting")
"""
HERE = ("cluster=local", "tracking=none", "pipeline=noop")
OWN = ("jobs.packages=[mine]", "jobs.code=[.]", "pipeline.stages.noop.job=mine.rest")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_run_of_a_sweep_and_starts_no_other(
    tmp_path: Path, environment: dict[str, str], number: signal.Signals
) -> None:
    (tmp_path / "mine.py").write_text(SLOW)
    place = Workplace(tmp_path, environment)
    words = [sys.executable, "-m", "orchestrator", "launch", "-m", "seed=1,2,3", *HERE, *OWN]
    with subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=-1, stderr=-1, text=True
    ) as sweep:
        try:
            assert wait(lambda: "resting" in place.logs(), 40.0)
            sweep.send_signal(number)
            _, said = sweep.communicate(timeout=40)
        finally:
            sweep.kill()
    assert sweep.returncode == 103, said
    assert "2 more of the sweep were not started." in said
    listed = json.loads(place.run("status", "--json").stdout)
    assert [run["state"] for run in listed] == ["cancelled"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("cluster.kind=local,ray",), "cluster.kind: the runs of a sweep share it, but it is"),
        (
            ("tracking.uri='http://a:1','http://b:2'",),
            "tracking.uri: the runs of a sweep share it",
        ),
        (("gateway.port=8001,8002",), "but it is 8001 and 8002; launch them one by one"),
    ],
)
def test_a_sweep_over_what_its_runs_share_is_refused(
    within: Command, tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    done = within("launch", "-m", "pipeline=noop", *words)
    assert done.returncode == 2
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".orchestrator").exists()


def test_no_two_runs_have_one_id(
    within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, planned = wiring.planned(["pipeline=noop"])
    wiring.home_id(tmp_path)  # draws one, too
    tokens = iter(["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(request.secrets, "token_hex", lambda _: next(tokens))
    monkeypatch.setattr(request.time, "strftime", lambda *_: "20260101-000000")
    store = wiring.database(tmp_path)
    ids = []
    for _ in range(2):
        header = driving.new_header(found, planned, home=tmp_path)
        store.create(header, 1.0)
        ids.append(header.run)
    assert ids == ["noop-20260101-000000-aaaaaaaa", "noop-20260101-000000-bbbbbbbb"]
