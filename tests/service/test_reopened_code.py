"""A run that goes on runs the code that is here now, and says so; elsewhere it has its own."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    RunFailed,
    RunStarted,
    StageFailed,
)
from orchestrator.service import driving, runs
from orchestrator.service.reopening import OTHER_CODE, Again, Resumption, resume
from tests.build import failure

OWN = ("jobs.packages=[mine]", "jobs.code=[code]", "pipeline.stages.noop.job=mine.work")


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The code of a run that waits to go on."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path / "home"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text("def work(ctx): ...")
    return tmp_path / "code"


def launched() -> Run:
    """Return a run that was launched and has no controller."""
    words = ("fleet=local", "pipeline=noop", "tracking=none", *OWN)
    settings, home = wiring.settings(words), wiring.home()
    header = driving.new_header(settings, wiring.plan(settings), home=home)
    header = replace(header, code=wiring.ship(settings, home, header.run))
    wiring.database(home).create(header, 1.0)
    wiring.database(home).append(header.run, 1, (RunStarted(1),), 1.0)
    return runs.find(header.run)


def failed(run: Run) -> Run:
    place = ("noop", 1)
    broke = (
        AttemptStarted(*place, run.stages["noop"].pool),
        AttemptPlaced(*place, ("n",)),
        AttemptFailed(*place, failure()),
        StageFailed("noop", "its own code"),
        RunFailed("noop failed"),
    )
    wiring.database(wiring.home()).append(run.header.run, run.seq + 1, broke, 2.0)
    return runs.find(run.header.run)


def resumed(run: Run) -> Resumption:
    found = resume(run, Again(), take_over=True)
    assert found is not None
    return found


def test_a_run_goes_on_with_the_code_as_it_is_now(code: Path) -> None:
    run = failed(launched())
    same = resumed(run)
    assert not same.other_code
    assert OTHER_CODE not in list(same.reopened())

    (code / "mine.py").write_text("def work(ctx): return {}")
    other = resumed(run)
    assert list(other.reopened()) == [OTHER_CODE, "begin stage noop again"]
    other.reopen()
    after = runs.find(run.header.run)
    assert after.header.code != run.header.code
    assert after.header.code == wiring.ship(other.request.settings, other.request.home, "run")
    assert not resumed(after).other_code, "that is the code of the run now"


def test_a_run_that_was_lost_does_too_and_elsewhere_it_has_its_own(code: Path) -> None:
    run = launched()
    (code / "mine.py").write_text("def work(ctx): return {}")
    lost = resumed(run)
    assert list(lost.reopened()) == [OTHER_CODE]
    code.rename(code.parent / "elsewhere")
    assert not resumed(run).other_code
    (code.parent / "elsewhere").rename(code)
    lost.reopen()
    after = runs.find(run.header.run)
    assert (after.state, after.header.code != run.header.code) == (run.state, True)


def test_a_folder_of_that_name_that_has_none_of_its_packages_is_not_its_code(code: Path) -> None:
    run = launched()
    (code / "mine.py").rename(code / "another.py")
    assert not resumed(run).other_code, "another host may have such a folder"
