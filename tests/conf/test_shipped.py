"""Every shipped config composes, parses and plans."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml

from orchestrator.adapters import hydra_config, user_code
from orchestrator.adapters.hydra_config.composer import packaged
from orchestrator.adapters.user_code import job_forecasts
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.plan import Plan, make_plan

CONF = Path(__file__).parents[2] / "conf"

# Where a pipeline is too large for the fleet that every command starts from.
FLEETS = dict.fromkeys(
    ("deepseek_r1", "deepseek_v3", "megatron", "mindspeed", "torchtitan_npu", "verl"), "r2"
)
# Commands of a maker's own: on its pool.
MAKERS = {"mindspeed": "ascend-910c", "torchtitan_npu": "ascend-910c"}


def names(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def planned(*overrides: str) -> tuple[Settings, Plan]:
    settings = hydra_config.compose(overrides)
    assert user_code.check(settings.pipeline, settings.jobs) == ()
    plan = make_plan(settings.pipeline, settings.fleet, settings.bindings, seed=settings.seed)
    return settings, plan


def test_the_package_ships_this_folder() -> None:
    assert packaged() == CONF.resolve()


@pytest.mark.parametrize("pipeline", names("pipeline"))
def test_every_pipeline_plans_on_its_fleet(pipeline: str) -> None:
    where = [f"fleet={FLEETS.get(pipeline, 'local')}"]
    where += [f"roles.train={MAKERS[pipeline]}"] if pipeline in MAKERS else []
    planned(f"pipeline={pipeline}", *where)


@pytest.mark.parametrize("pipeline", ["r2", "smoke", "smollm2"])
def test_no_small_pipeline_has_torch_imported_to_be_planned(
    monkeypatch: pytest.MonkeyPatch, pipeline: str
) -> None:
    monkeypatch.setattr(job_forecasts, "_ask", lambda *_: pytest.fail("a job is asked"))
    settings, plan = planned(f"pipeline={pipeline}")
    importable = user_code.Importable(settings.jobs.code)
    assert user_code.forecasts(plan, settings.jobs, importable) == ((), ())


@pytest.mark.parametrize("experiment", names("experiment"))
def test_every_experiment_plans(experiment: str) -> None:
    planned(f"experiment={experiment}")


@pytest.mark.parametrize("fleet", names("fleet"))
def test_every_fleet_takes_the_main_pipeline_and_binds_every_role(fleet: str) -> None:
    settings, _ = planned("pipeline=r2", f"fleet={fleet}")
    assert set(settings.bindings.roles) == set(Role)


@pytest.mark.parametrize(
    "choice",
    [f"{group}={name}" for group in ("tracking", "storage", "cluster") for name in names(group)],
)
def test_every_option_of_the_smaller_groups_composes(choice: str) -> None:
    settings = hydra_config.compose(["pipeline=deepseek_r1", choice])
    group, name = choice.split("=")
    said = yaml.safe_load((packaged() / group / f"{name}.yaml").read_text(encoding="utf-8")) or {}
    held = dataclasses.asdict(getattr(settings, group))
    plain = {key: value for key, value in said.items() if "${" not in str(value)}
    assert plain.items() <= held.items(), "what the file says is what is used"


@pytest.mark.parametrize("job", names("job"))
def test_every_job_can_be_the_stage_of_a_pipeline(job: str, tmp_path: Path) -> None:
    (tmp_path / "pipeline").mkdir()
    text = f"defaults: [/job@stages.it: {job}, _self_]\nname: one\nstages: {{it: {{}}}}\n"
    (tmp_path / "pipeline" / "one.yaml").write_text(text)
    settings = hydra_config.compose(["pipeline=one"], config_dir=tmp_path)
    assert user_code.check(settings.pipeline, settings.jobs) == ()


def test_the_demo_trains_on_one_makers_pool_and_serves_on_the_others() -> None:
    settings, plan = planned()
    assert settings.pipeline.name == "r2"
    assert [stage.stage.name for stage in plan.stages][:2] == ["data", "pretrain"]
    assert plan["pretrain"].stage.needs.workers == 2
    assert plan["pretrain"].pools == ("nvidia", "ascend")
    assert plan["serve"].pools == ("ascend", "nvidia")
    assert plan.emulated


def test_a_role_of_any_fleet_moves_by_one_override_and_sweeps() -> None:
    _, plan = planned("roles.train=ascend")
    assert plan["pretrain"].pools[0] == "ascend"
    serving = [
        planned(*overrides)[1]["serve"].pools[0]
        for overrides in hydra_config.sweep(["pipeline=r2", "roles.serve=nvidia,ascend"])
    ]
    assert serving == ["nvidia", "ascend"]
