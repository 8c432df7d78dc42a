"""A config that is stored with a run of an earlier version is read under the names of today."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters import hydra_config
from orchestrator.adapters.hydra_config import moved
from orchestrator.core.spec.stages import Json

PORT = "cluster.serve_port is gateway.port now"


def test_a_stored_port_of_the_gateway_is_found_at_its_new_place() -> None:
    resolved = dict(hydra_config.compose(["pipeline=noop"]).resolved)
    cluster = resolved["cluster"]
    assert isinstance(cluster, dict)
    del resolved["gateway"]
    earlier = {**resolved, "cluster": {**cluster, "serve_port": 8123}}
    settings = hydra_config.parse(earlier)
    assert (settings.gateway.port, settings.renamed) == (8123, (PORT,))


def test_what_has_its_name_of_today_stays_as_it_is() -> None:
    config = {"cluster": {"kind": "ray"}, "gateway": {"port": 1}}
    assert moved.with_settings(config) == (config, ())


@pytest.mark.parametrize("word", ["cluster.serve_port=8123", "+cluster.serve_port=8123"])
def test_an_override_by_an_old_name_is_taken_with_a_line_that_says_the_new_one(word: str) -> None:
    settings = hydra_config.compose(["pipeline=noop", word])
    assert settings.gateway.port == 8123
    assert settings.renamed == (PORT,)
    assert hydra_config.parse(settings.resolved).renamed == ()


def test_so_is_a_file_of_a_user_unless_an_override_sets_the_new_name(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    old = "# @package _global_\ndefaults: [local, _self_]\ncluster: {serve_port: 8123}\n"
    (tmp_path / "fleet/old.yaml").write_text(old)
    words = ["pipeline=noop", "fleet=old"]
    settings = hydra_config.compose(words, config_dir=tmp_path)
    assert (settings.gateway.port, settings.renamed) == (8123, (PORT,))
    chosen = hydra_config.compose([*words, "gateway.port=8200"], config_dir=tmp_path)
    assert (chosen.gateway.port, chosen.renamed) == (8200, (PORT,))
    both = hydra_config.compose([*words, "cluster.serve_port=8300"], config_dir=tmp_path)
    assert (both.gateway.port, both.renamed) == (8300, (PORT,))


BEFORE = "jobs.qualification.gang.qualify_gang"
TODAY = "jobs.qualification.all_chips.qualify_gang"
LINE = f"pipeline.stages.noop.job: '{BEFORE}' is {TODAY} now"


def test_a_job_that_moved_is_taken_under_its_name_of_today_with_a_line_that_says_so() -> None:
    settings = hydra_config.compose(["pipeline=noop", f"pipeline.stages.noop.job={BEFORE}"])
    assert settings.pipeline.by_name["noop"].job == TODAY
    assert settings.renamed == (LINE,)
    again = hydra_config.parse(settings.resolved)
    assert (again.pipeline, again.renamed) == (settings.pipeline, ())


@pytest.mark.parametrize(
    "pipeline", [None, "noop", {"stages": ["noop"]}, {"stages": {"a": BEFORE}}]
)
def test_what_is_no_pipeline_is_left_to_the_parser(pipeline: Json) -> None:
    config = {"pipeline": pipeline}
    assert moved.with_jobs(config) == (config, ())
