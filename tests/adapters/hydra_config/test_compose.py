"""Composition: what a user gets, and who wins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters import hydra_config
from orchestrator.core.errors import ConfigError
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Needs

Compose = Callable[..., Settings]
Write = Callable[[str, str], Path]


def test_stages_and_pools_are_named_by_their_keys_in_the_order_of_the_file(
    compose: Compose,
) -> None:
    settings = compose()
    assert [stage.name for stage in settings.pipeline.stages] == ["prepare", "learn"]
    assert settings.fleet.pools["ascend"].name == "ascend"
    assert settings.fleet.pools["ascend"].accelerator.device == "npu"
    assert settings.fleet.pools["ascend"].emulated


def test_one_plain_override_moves_a_role_to_another_pool(compose: Compose) -> None:
    assert compose().bindings.roles[Role.TRAIN] == "nvidia"
    assert compose("roles.train=ascend").bindings.roles[Role.TRAIN] == "ascend"
    assert compose("fleet=r2", "roles.train=a100").bindings.roles[Role.TRAIN] == "a100"


def test_a_field_that_no_file_mentions_is_set_without_a_plus(compose: Compose) -> None:
    settings = compose("pipeline.stages.learn.limits.timeout=30", "tags.team=core")
    assert settings.pipeline.stages[1].limits.timeout == 30
    assert settings.tags == {"team": "core"}


@pytest.mark.parametrize(
    ("set_to", "seconds"),
    [
        ([], 900.0),
        (["gateway.limits.request_seconds=60"], 60.0),
        (["gateway.limits.request_seconds=60", "pipeline.stages.serve.endpoint.drain=7"], 7.0),
    ],
)
def test_a_revision_drains_as_long_as_the_gateway_lets_an_answer_take(
    compose: Compose, set_to: list[str], seconds: float
) -> None:
    stages = {stage.name: stage for stage in compose("pipeline=smoke", *set_to).pipeline.stages}
    endpoint = stages["serve"].endpoint
    assert endpoint is not None
    assert endpoint.drain_seconds == seconds


def test_a_new_stage_is_added_with_a_plus(compose: Compose) -> None:
    settings = compose("+pipeline.stages.more={job: acme.work.learn, role: train}")
    assert [stage.name for stage in settings.pipeline.stages] == ["prepare", "learn", "more"]


def test_a_stage_is_removed_with_a_tilde(compose: Compose) -> None:
    settings = compose("~pipeline.stages.learn")
    assert [stage.name for stage in settings.pipeline.stages] == ["prepare"]


def test_numbers_and_truth_values_are_text_where_text_is_meant(compose: Compose) -> None:
    settings = compose(
        "tags={a: 1, b: true}",
        "fleet.pools.nvidia.labels.rack=7",
        "fleet.pools.nvidia.env.N=1",
        "pipeline.stages.learn.env.M=2",
    )
    assert settings.tags == {"a": "1", "b": "true"}
    assert settings.fleet.pools["nvidia"].labels == {"rack": "7"}
    assert settings.fleet.pools["nvidia"].env == {"N": "1"}
    assert settings.pipeline.stages[1].env == {"M": "2"}


def test_the_chip_of_a_pool_is_one_override(compose: Compose) -> None:
    settings = compose("accelerator@fleet.pools.nvidia.accelerator=h20")
    assert settings.fleet.pools["nvidia"].accelerator.memory_gb == 96


def test_a_file_of_the_user_wins_over_the_shipped_one_of_its_name(
    compose: Compose, write: Write
) -> None:
    write("tracking/mlflow.yaml", "experiment: mine\n")
    assert compose().tracking.experiment == "mine"


def test_a_preset_comes_after_the_groups_and_before_the_command_line(
    compose: Compose, write: Write
) -> None:
    write("experiment/swap.yaml", "# @package _global_\nroles: {train: ascend}\nseed: 5\n")
    settings = compose("experiment=swap", "seed=6")
    assert settings.bindings.roles[Role.TRAIN] == "ascend"
    assert settings.seed == 6


def test_a_fleet_says_where_its_cluster_its_artifacts_and_its_gateway_are(
    compose: Compose, write: Write
) -> None:
    where = "cluster: {address: head:6379}\nstorage: {uri: s3://all}\ngateway: {host: 0.0.0.0}\n"
    tracked = "tracking: {uri: http://head:5000}\n"
    write("fleet/ours.yaml", f"# @package _global_\ndefaults: [local, _self_]\n{where}{tracked}")
    settings = compose("fleet=ours", "gateway.host=127.0.0.1")
    assert settings.cluster.address == "head:6379"
    assert settings.storage.uri == "s3://all"
    assert settings.tracking.uri == "http://head:5000"
    assert settings.gateway.host == "127.0.0.1"


def test_the_root_config_may_have_another_name(folder: Path, write: Write) -> None:
    write("mine.yaml", "defaults: [config, _self_]\nseed: 9\n")
    settings = hydra_config.compose(["pipeline=tiny"], config_dir=folder, config_name="mine")
    assert settings.seed == 9


def test_a_further_folder_is_searched_last(compose: Compose, tmp_path: Path) -> None:
    (tmp_path / "more" / "storage").mkdir(parents=True)
    (tmp_path / "more" / "storage" / "there.yaml").write_text("uri: file:///there\n")
    settings = compose(f"hydra.searchpath=[file://{tmp_path}/more]", "storage=there")
    assert settings.storage.uri == "file:///there"


def test_folders_of_code_become_absolute(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = compose("jobs.code=[src]", "jobs.packages=[jobs,acme]")
    assert settings.jobs.code == (str(tmp_path / "src"),)
    assert settings.jobs.packages == ("jobs", "acme")


def test_what_was_composed_is_kept_and_parses_again_to_the_same(compose: Compose) -> None:
    settings = compose("pipeline.name=again", "roles.train=ascend")
    assert settings.overrides == ("pipeline=tiny", "pipeline.name=again", "roles.train=ascend")
    again = hydra_config.parse(settings.resolved)
    assert again.pipeline == settings.pipeline
    assert again.bindings == settings.bindings
    assert again.fleet == settings.fleet


def test_a_folder_of_configs_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere' is not a folder"):
        hydra_config.compose([], config_dir=tmp_path / "nowhere")


def test_a_stage_is_on_a_pool_what_differs_there_and_else_what_it_is(
    compose: Compose, write: Write
) -> None:
    write(
        "pipeline/wide.yaml",
        """
name: wide
stages:
  learn:
    job: acme.work.learn
    role: train
    needs: {workers: {min: 2, max: 8}, memory_gb: 60}
    params: {batch: 8, words: {on: true}}
    watch: {patience: 5}
    on:
      ascend: {needs: {workers: 3}, params: {batch: 4}, watch: {hang: 3600}}
      nvidia: {needs: {workers: {min: 1, max: 2}}}
""",
    )
    batch = "pipeline.stages.learn.on.ascend.params.batch=2"
    (stage,) = compose("pipeline=wide", batch).pipeline.stages
    there = stage.on_pool("ascend")
    assert there.needs == Needs(workers=3, memory_gb=60)
    assert there.params == {"batch": 2, "words": {"on": True}}
    assert there.watch == Watch(hang=3600, patience=5)
    assert stage.on_pool("nvidia").needs == Needs(workers=2, min_workers=1, memory_gb=60)
    assert stage.on_pool("nvidia").watch == stage.watch


def test_what_a_stage_can_not_be_on_a_pool_is_refused_with_its_path(compose: Compose) -> None:
    where = r"learn\.on\.ascend\.needs"
    with pytest.raises(ConfigError, match=rf"{where}\.worker: unknown key 'worker'"):
        compose("pipeline.stages.learn.on={ascend: {needs: {worker: 1}}}")
    with pytest.raises(ConfigError, match=rf"{where}\.devices: -1 is out of bounds"):
        compose("pipeline.stages.learn.on={ascend: {needs: {devices: -1}}}")
