"""The command from end to end, in one process and without a tracker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import assert_refused

NOBODY = "http://127.0.0.1:9"
ELSEWHERE, SHARED = "cluster.address=127.0.0.1:9", "storage.shared=true"
NOOP = ("launch", "pipeline=noop")
HERE = ("cluster=local", "tracking=none", "pipeline=noop")


def test_a_launch_runs_the_pipeline_and_status_tells_it(orchestrator, within, tmp_path):
    done = orchestrator("launch", *HERE)
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout
    assert "Useful commands" in done.stdout
    assert "Starting" not in done.stdout, "it needs no service"
    listed = json.loads(within("status", "--json").stdout)
    assert [run["state"] for run in listed] == ["succeeded"]
    one = orchestrator("status", listed[0]["run"])
    assert one.returncode == 0
    assert "#FAILOVERS" in one.stdout
    assert [path.name for path in tmp_path.iterdir()] == [".orchestrator"]


def test_a_finished_stage_is_reused_unless_the_user_refuses(orchestrator):
    orchestrator("launch", *HERE)
    again = orchestrator("launch", *HERE)
    assert "reused from" in again.stdout
    assert "reused from" not in orchestrator("launch", "--no-cache", *HERE).stdout


def test_a_sweep_makes_one_run_for_each_pool(orchestrator, within):
    done = orchestrator("launch", "-m", *HERE, "roles.prepare=nvidia,ascend")
    assert done.returncode == 0, done.stderr
    runs = json.loads(within("status", "--json").stdout)
    assert sorted(run["stages"][0]["pool"] for run in runs) == ["ascend", "nvidia"]


def test_a_sweep_with_one_bad_pool_starts_nothing(orchestrator, within):
    done = orchestrator("launch", "-m", *HERE, "roles.prepare=nvidia,nowhere")
    assert done.returncode == 2
    assert "'nowhere' is not a pool" in done.stderr
    assert json.loads(within("status", "--json").stdout) == []


def test_a_job_that_fails_gives_the_exit_code_of_a_failed_run(orchestrator, within, tmp_path):
    (tmp_path / "mine.py").write_text("def fail(ctx):\n    raise ValueError('no such corpus')\n")
    own = ("jobs.packages=[mine]", "jobs.code=[.]", "pipeline.stages.noop.job=mine.fail")
    done = orchestrator("launch", *HERE, *own)
    assert done.returncode == 100, done.stdout + done.stderr
    assert "ValueError: no such corpus" in done.stderr
    assert "Traceback" not in done.stderr
    run = json.loads(within("status", "--json").stdout)[0]["run"]
    assert "no such corpus" in orchestrator("logs", run).stdout
    assert orchestrator("status", run).returncode == 100


def test_what_an_exception_says_is_shown_and_not_obeyed(orchestrator, tmp_path):
    said = r"\x1b[31mred\x07 over\rwritten"
    (tmp_path / "mine.py").write_text(f'def fail(ctx):\n    raise ValueError("{said}")\n')
    own = ("jobs.packages=[mine]", "jobs.code=[.]", "pipeline.stages.noop.job=mine.fail")
    done = orchestrator("launch", *HERE, *own)
    assert r"\x1b[31mred" in done.stderr
    run = json.loads(orchestrator("status", "--json").stdout)[0]["run"]
    told = orchestrator("status", run).stdout
    assert r"\x1b[31mred" in told
    assert set("\x1b\x07\r").isdisjoint(done.stdout + done.stderr + told)
    assert "\x1b[31mred" in orchestrator("logs", run).stdout, "logs are what a stage wrote"


def test_a_run_to_continue_is_looked_for_before_anything_is_said_or_started(within):
    done = within("launch", *HERE, "--continue", "nope")
    assert (done.returncode, done.stdout) == (102, "")
    assert "'nope'" in done.stderr


def test_a_stage_that_cannot_go_on_from_the_run_to_continue_is_said(orchestrator, within):
    orchestrator("launch", *HERE)
    run = json.loads(within("status", "--json").stdout)[0]["run"]
    again = ("launch", *HERE, "--continue", run[:-2], "--dry-run")
    other = within(*again, "seed=7")
    assert f"stage 'noop' begins anew: its seed differs from that in run {run}\n" in other.stdout
    assert "anew" not in within(*again).stdout


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("status", "nothing"), 102, "'nothing'"),
        (("launch", "cluster=local", "pipeline=smoke"), 2, "set cluster=ray"),
        ((*NOOP, "cluster=local", f"tracking.uri={NOBODY}"), 1, NOBODY),
        ((*NOOP, "tracking=none", ELSEWHERE, SHARED), 1, "no Ray head node answers"),
        ((*NOOP, "tracking=none", ELSEWHERE), 2, "storage.uri: '' is a folder of this host"),
        ((*NOOP, "tracking=none", "fleet=r2"), 1, "set cluster.address or RAY_ADDRESS"),
    ],
)
def test_a_mistake_gets_one_line_and_an_exit_code(orchestrator, within, words, code, line):
    assert_refused(orchestrator(*words), code, line)
    assert json.loads(within("status", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "code", "lines"),
    [
        (("logs", "nothing"), 102, ["'nothing'"]),
        (("cancel", "nothing"), 102, ["'nothing'"]),
        (("ask", "2 + 2?"), 102, ["no endpoint"]),
        (("plan", "roles.train=ascnd"), 2, ["pools of this fleet: ascend, nvidia"]),
        (("plan", "pipeline=nothing"), 2, ["'nothing'"]),
        (("plan", "seed=soon", "cost_limit=much"), 2, ["cost_limit", "seed"]),
        (
            ("plan", "attempt_limit=0", "roles.serve=ascnd"),
            2,
            ["attempt_limit: 0 is out", "roles.serve: 'ascnd' is not a pool"],
        ),
    ],
)
def test_what_is_asked_wrongly_is_told_in_lines(within, words, code, lines):
    done = within(*words)
    for line in lines:
        assert_refused(done, code, line)
    assert json.loads(within("status", "--json").stdout) == []


def test_help_and_version_need_nothing(orchestrator):
    assert "launch" in orchestrator("--help").stdout
    assert orchestrator("--version").stdout.strip() == "0.2.0"


def test_the_home_can_be_a_file_and_that_is_said(orchestrator, tmp_path: Path):
    (tmp_path / ".orchestrator").write_text("not a folder")
    done = orchestrator("launch", *HERE)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ".orchestrator" in done.stderr
