"""Runs from Python: launched, followed, ended and gone on with, as from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import orchestrator as o
from orchestrator.core.errors import ConfigError, HeldError, NotFoundError
from orchestrator.supervisor.record import wait
from tests.conftest import CONFIGURED

HERE = ("cluster=local", "tracking=none", "pipeline=noop")
OWN = (*HERE, "jobs.packages=[resting]", "jobs.code=[.]", "pipeline.stages.noop.job=resting.rest")
GATED = "+pipeline.stages.noop.gate={kind: approval, target: the labels}"
JOB = """
import time
from pathlib import Path

GO = Path("HERE/go")  # not beside the code, which travels

def rest(ctx):
    ctx.log("it rests")
    if GO.exists():
        return {"rested": 1.0}
    if GO.with_name("fail").exists():
        raise ValueError("no such corpus")
    while True:
        time.sleep(0.05)
        ctx.log("it rests")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder of this process, with a job of its own."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "resting.py").write_text(JOB.replace("HERE", str(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in CONFIGURED:
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="module")
def launched(home: Path) -> o.LiveRun:
    """A run that a thread has launched which is not the first of this process."""
    with ThreadPoolExecutor(1) as server:
        return server.submit(o.launch, *HERE).result()


def test_a_run_is_launched_by_any_thread(launched: o.LiveRun) -> None:
    assert launched.wait(0.0).state is o.RunState.SUCCEEDED
    (attempt,) = launched.stages["noop"].attempts
    assert (attempt.state, attempt.failure) == (o.AttemptState.SUCCEEDED, None)
    assert launched.cost == 0.0
    assert o.run(launched.name[:-2]).name == launched.name
    assert launched.name in [run.name for run in o.runs()]
    with pytest.raises(NotFoundError, match="'nothing'"):
        o.run("nothing")


def test_a_notebook_shows_a_run_a_plan_and_pools_as_tables(launched: o.LiveRun) -> None:
    plan = o.plan(*HERE)
    for shown, words in ((launched, "succeeded"), (plan, "prepare"), (o.pools(), "ascend")):
        bundle = shown._repr_mimebundle_([], [])
        assert bundle["text/html"].startswith("<pre")
        assert words in bundle["text/html"]
        assert words in bundle["text/plain"]
        assert words in repr(shown)
        assert "\x1b" not in repr(shown)
    head, columns, row = repr(launched).splitlines()
    assert head == f"Run {launched.name} succeeded"
    assert columns.split()[:3] == ["STAGE", "ROLE", "POOL"]
    assert row.split()[:2] == ["noop", "prepare"]


def test_a_stage_runs_again_and_what_has_succeeded_is_not_resumed(launched: o.LiveRun) -> None:
    assert launched.resume() is launched
    assert len(launched.stages["noop"].attempts) == 1
    assert launched.rerun("noop").state is o.RunState.SUCCEEDED
    assert len(launched.stages["noop"].attempts) == 2
    with pytest.raises(NotFoundError, match="'nothing'"):
        launched.rerun("nothing")
    with pytest.raises(ConfigError, match="takes other limits, and nothing else"):
        launched.resume("seed=3", since="noop")


def test_a_plan_says_what_follows_a_failure(home: Path) -> None:
    forecast = o.plan(*HERE).forecasts["noop"]
    assert forecast[o.FailureKind.SET_UP].startswith("gives up")


def test_a_run_that_failed_goes_on_when_what_was_wrong_is_mended(home: Path) -> None:
    (home / "fail").touch()
    run = o.launch(*OWN)
    assert (run.state, "no such corpus" in run.reason) == (o.RunState.FAILED, True)
    assert run.stages["noop"].attempts[-1].failure.kind is o.FailureKind.USER_CODE
    assert "no such corpus" in repr(run), "attempts are shown where one has failed"
    assert any("no such corpus" in line for line in run.logs("noop"))
    assert list(run.logs("noop", since=3600.0)) == list(run.logs("noop"))
    assert list(run.logs("noop", since=0.0)) == []
    (home / "fail").unlink()
    (home / "go").touch()
    assert run.resume().state is o.RunState.SUCCEEDED
    (home / "go").unlink()
    assert run.stages["noop"].metrics == {"rested": 1.0}


def test_a_run_is_approved_followed_and_ended_from_another_thread(home: Path) -> None:
    before = {run.name for run in o.runs()}
    with ThreadPoolExecutor(1) as server:
        final = server.submit(o.launch, *OWN, GATED)
        assert wait(lambda: len(o.runs()) > len(before), 60.0)
        (run,) = (run for run in o.runs() if run.name not in before)
        with pytest.raises(NotFoundError):
            run.approve("nothing")
        run.approve("noop")
        lines = run.logs(follow=True)
        assert "it rests" in next(line for line in lines if "rests" in line)
        with pytest.raises(HeldError, match="has a controller since"):
            run.resume()
        with pytest.raises(TimeoutError, match="is running after 0 s"):
            run.wait(0.0)
        assert run.cancel().state is o.RunState.CANCELLED
        assert final.result().name == run.name
    assert not [line for line in lines if "rests" not in line and "noop" not in line]
