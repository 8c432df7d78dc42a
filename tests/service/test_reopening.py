"""A run of an earlier version goes on, though what it names has another name by now."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.cli import main
from orchestrator.client.running import LiveRun
from orchestrator.core.errors import ClusterError, DamagedError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    RunFailed,
    RunStarted,
    RunState,
    StageFailed,
    StageReused,
)
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


@pytest.mark.parametrize("far", [True, False])
@pytest.mark.parametrize("verb", [("resume",), ("rerun", "noop")])
def test_a_run_that_can_not_be_handed_over_stays_as_it_ended(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...], *, far: bool
) -> None:
    config = {**settings.resolved, "cluster": {"kind": "ray", "address": "h0:6379"}}
    header = RunHeader(run="f-1", plan=wiring.plan(settings), config=config)
    store = wiring.database(wiring.home())
    store.create(header, at=1.0)
    store.append("f-1", 1, (RunStarted(1), StageFailed("noop", "broke"), RunFailed("broke")), 1.0)

    def refuses(_settings: Settings) -> str:
        raise ClusterError("its server of jobs does not answer")

    monkeypatch.setattr(wiring, "hands_far", lambda _settings: far)
    monkeypatch.setattr(wiring, "check_handing_over", refuses)
    monkeypatch.setattr(wiring, "job_server", refuses)
    services = import_module("orchestrator.service.driving.services")
    monkeypatch.setattr(services, "services", lambda *_, **__: nullcontext())
    with pytest.raises(ClusterError):
        LiveRun("f-1").resume()
    assert main([verb[0], "f-1", *verb[1:], "--detach"]) != 0
    assert runs.find("f-1").state is RunState.FAILED
    assert len(store.events("f-1")) == 3


@pytest.fixture
def chain(settings: Settings) -> RunHeader:
    """A run whose stage `read` reads what its stage `noop` makes."""
    planned = wiring.plan(settings)
    noop = planned["noop"]
    read = replace(noop, stage=replace(noop.stage, name="read", inputs={"model": "noop"}))
    header = RunHeader(
        run="c-1", plan=replace(planned, stages=(noop, read)), config=settings.resolved
    )
    wiring.database(wiring.home()).create(header, at=1.0)
    return header


def test_a_run_goes_on_from_the_stage_whose_result_was_found_damaged(
    settings: Settings, chain: RunHeader
) -> None:
    store = wiring.artifact_store(wiring.storage_uri(settings, wiring.home()))
    folder = store.scratch("c-1/noop/1")
    (folder / "weights").write_bytes(b"weights")
    ref = store.commit(folder, "c-1/noop/1", {})
    events = (
        RunStarted(1),
        StageReused("noop", ref, {}, "earlier"),
        StageFailed("read", "data: damaged"),
        RunFailed("stage 'read' failed"),
    )
    wiring.database(wiring.home()).append(chain.run, 1, events, 1.0)
    assert stages_of(chain.run) == ("read",)
    (store.fetch(ref) / "weights").write_bytes(b"damaged")
    with pytest.raises(DamagedError):
        store.fetch(ref)
    assert stages_of(chain.run) == ("noop", "read")


def stages_of(run: str) -> tuple[str, ...]:
    """Return the stages that begin again when `run` goes on."""
    resumption = resume(runs.find(run), Again())
    assert resumption is not None
    assert resumption.event is not None
    return resumption.event.stages
