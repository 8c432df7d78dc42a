"""A run of an earlier version goes on, though what it names has another name by now."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.cli import main
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.settings import Settings
from orchestrator.service import runs
from orchestrator.service.reopening import Again, resume

BEFORE, TODAY = "jobs.evaluation.dataset.evaluate", "jobs.evaluation.held_out.evaluate"
LINE = f"pipeline.stages.noop.job: '{BEFORE}' is {TODAY} now"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.delenv("ORCHESTRATOR_DATABASE", raising=False)
    return wiring.settings(["pipeline=noop", "cluster=local", "tracking=none"])


@pytest.fixture
def earlier(settings: Settings) -> str:
    """A run of an earlier version that nobody has begun to drive."""
    planned = wiring.plan(settings)
    stage = replace(planned["noop"], stage=replace(planned["noop"].stage, job=BEFORE))
    section = settings.resolved["pipeline"]
    assert isinstance(section, dict)
    noop = {**section["stages"]["noop"], "job": BEFORE}
    config = {**settings.resolved, "pipeline": {**section, "stages": {"noop": noop}}}
    header = RunHeader(run="old-1", plan=replace(planned, stages=(stage,)), config=config)
    wiring.database(wiring.home()).create(header, at=1.0)
    return header.run


def test_a_run_whose_job_has_moved_is_resumed(earlier: str) -> None:
    resumption = resume(runs.find(earlier), Again())
    assert resumption is not None
    request = resumption.request
    assert request.header.plan["noop"].stage.job == TODAY
    assert resumption.run.plan["noop"].stage.job == TODAY
    assert request.settings.pipeline.by_name["noop"].job == TODAY
    assert request.settings.renamed == (LINE,)


def test_who_resumes_it_reads_in_a_line_what_the_job_is_called_today(
    earlier: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", earlier, "--dry-run"]) == 0
    assert LINE in " ".join(capsys.readouterr().out.split())


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("verb", ["launch", "plan"])
def test_so_does_who_launches_a_config_with_the_old_name(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "pipeline=noop",
        "cluster=local",
        "tracking=none",
        f"pipeline.stages.noop.job={BEFORE}",
    ]
    dry = ["--dry-run"] if verb == "launch" else []
    assert main([verb, *dry, *words]) == 0
    assert LINE in " ".join(capsys.readouterr().out.split())
