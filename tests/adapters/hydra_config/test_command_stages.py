"""A stage that is a command is written by keys of its own, also for one pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.commands.stage import run
from orchestrator import wiring
from orchestrator.adapters.hydra_config.command_stages import JOB, KEYS
from orchestrator.core.errors import ConfigError
from orchestrator.core.settings import Settings

PIPELINE = """
name: own
stages:
  train:
    command: [python, train.py, "{output}"]
    processes: 2
    needs: {devices: 2}
    checkpoints: {layout: dcp}
    on: {ascend: {processes: 1, needs: {devices: 1}}}
"""


def settings(folder: Path, *words: str) -> Settings:
    (folder / "pipeline").mkdir(exist_ok=True)
    (folder / "pipeline" / "own.yaml").write_text(PIPELINE)
    return wiring.settings(["pipeline=own", *words], config_dir=folder)


def test_its_keys_are_those_of_the_job_that_runs_it() -> None:
    assert f"{run.__module__}.{run.__qualname__}" == JOB
    assert set(run.__kwdefaults__ or {}) | {"command"} == set(KEYS)


def test_it_is_a_stage_of_that_job_that_trains(tmp_path: Path) -> None:
    stage = settings(tmp_path).pipeline.by_name["train"]
    assert (stage.job, stage.role) == (JOB, "train")
    assert stage.params == {
        "command": ["python", "train.py", "{output}"],
        "processes": 2,
        "checkpoints": {"layout": "dcp"},
    }
    assert stage.on["ascend"].params == {"processes": 1}


def test_its_keys_are_overridden_as_any_other(tmp_path: Path) -> None:
    stage = settings(tmp_path, "pipeline.stages.train.processes=4").pipeline.by_name["train"]
    assert stage.params["processes"] == 4


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("+pipeline.stages.train.job=jobs.noop.noop", "job: stands beside a command; leave one"),
        ("+pipeline.stages.train.params.steps=3", "params: stands beside a command; leave one"),
        ("+pipeline.stages.train.proceses=3", "unknown key 'proceses'; did you mean 'processes'?"),
    ],
)
def test_what_stands_against_it_is_a_line(tmp_path: Path, word: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, word)
    assert line in str(refused.value)
