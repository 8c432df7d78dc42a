"""A config that is stored with a run of an earlier version is read under the names of today."""

from __future__ import annotations

import pytest

from orchestrator.adapters import hydra_config
from orchestrator.adapters.hydra_config import moved
from orchestrator.core.spec.stages import Json


def test_a_stored_port_of_the_gateway_is_found_at_its_new_place() -> None:
    resolved = dict(hydra_config.compose(["pipeline=noop"]).resolved)
    cluster = resolved["cluster"]
    assert isinstance(cluster, dict)
    del resolved["gateway"]
    earlier = {**resolved, "cluster": {**cluster, "serve_port": 8123}}
    assert hydra_config.parse(earlier).gateway.port == 8123


def test_what_has_its_name_of_today_stays_as_it_is() -> None:
    config = {"cluster": {"kind": "ray"}, "gateway": {"port": 1}}
    assert moved.forward(config) == config


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
