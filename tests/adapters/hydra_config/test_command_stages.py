"""A stage that is a command is written by keys of its own, also for one pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.commands.stage import run
from orchestrator import wiring
from orchestrator.adapters.hydra_config.command_keys import TO_LEAVE, USUAL_GRACE
from orchestrator.core.errors import ConfigError
from orchestrator.core.settings import Settings
from orchestrator.core.spec.command_stages import JOB, KEYS, LAYOUTS
from orchestrator.core.spec.stages import Pipeline, Stage
from orchestrator.wiring import ConfigSource

PIPELINE = """
name: own
stages:
  train:
    command: [python, train.py, "{output}", "{checkpoints}"]
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
        "command": ["python", "train.py", "{output}", "{checkpoints}"],
        "processes": 2,
        "checkpoints": LAYOUTS["dcp"],
    }
    assert stage.on["ascend"].params == {"processes": 1}


def test_its_keys_are_overridden_as_any_other(tmp_path: Path) -> None:
    stage = settings(tmp_path, "pipeline.stages.train.processes=4").pipeline.by_name["train"]
    assert stage.params["processes"] == 4


def test_a_layout_is_spelled_out_also_where_it_was_built_in_python(tmp_path: Path) -> None:
    params = {"command": "train {checkpoints}", "checkpoints": {"layout": "verl", "reshard": True}}
    stage = Stage(name="train", role="train", job=JOB, params=params)
    built = ConfigSource(pipeline=Pipeline(name="own", stages=(stage,)))
    parsed = built.settings().pipeline.by_name["train"]
    assert parsed.params["checkpoints"] == {**LAYOUTS["verl"], "reshard": True}


@pytest.mark.parametrize(
    ("words", "grace", "kill_after"),
    [
        ((), None, USUAL_GRACE + TO_LEAVE),
        (("+pipeline.stages.train.grace=60",), 60, 60 + TO_LEAVE),
        (("+pipeline.stages.train.limits={kill_after: 20}",), 20 - TO_LEAVE, 20),
        (("+pipeline.stages.train.on.ascend.grace=90",), None, 90 + TO_LEAVE),
    ],
)
def test_a_worker_lives_as_long_as_its_command_has_to_leave(
    tmp_path: Path, words: tuple[str, ...], grace: float | None, kill_after: float
) -> None:
    stage = settings(tmp_path, *words).pipeline.by_name["train"]
    assert stage.params.get("grace") == grace
    assert stage.limits.kill_after == kill_after
    assert (run.__kwdefaults__ or {})["grace"] == USUAL_GRACE


def test_what_a_plan_says_of_it_names_the_keys_as_they_are_written(tmp_path: Path) -> None:
    words = ("pipeline.stages.train.processes=two", "pipeline.stages.train.checkpoints.layout=dpc")
    more = ("+pipeline.stages.train.workdir=nowhere", "+pipeline.stages.train.mlflow=true")
    pool = "pipeline.stages.train.on.ascend.processes=[]"
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "own.yaml").write_text(PIPELINE)
    with pytest.raises(ConfigError) as refused:
        wiring.planned(["pipeline=own", "tracking=none", *words, *more, pool], tmp_path)
    told = str(refused.value).replace("pipeline.stages.train.", "").splitlines()
    assert [line.partition(";")[0] for line in sorted(told)] == [
        "checkpoints.layout: 'dpc' is no layout that is known",
        "mlflow: there is no MLflow to write to",
        "on.ascend.processes: [] is not of type int | None",
        "processes: 'two' is not of type int | None",
        "workdir: 'nowhere' is no folder of jobs.code (none)",
    ]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("+pipeline.stages.train.job=jobs.noop.noop", "job: stands beside a command; leave one"),
        ("+pipeline.stages.train.params.steps=3", "params: stands beside a command; leave one"),
        (
            "~pipeline.stages.train.command",
            "train.processes: is a key of a stage with a command, and this one has none; write",
        ),
        ("+pipeline.stages.train.proceses=3", "unknown key 'proceses'; did you mean 'processes'?"),
    ],
)
def test_what_stands_against_it_is_a_line(tmp_path: Path, word: str, line: str) -> None:
    with pytest.raises(ConfigError) as refused:
        settings(tmp_path, word)
    assert line in str(refused.value)
