"""What people write of a switch in short, and what that sets."""

from __future__ import annotations

import pytest

from orchestrator.adapters.hydra_config import changed
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.run import Run
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.stages import Endpoint, Stage
from orchestrator.service.switch_overrides import in_full
from tests.build import header, plan, stage


def serving(name: str, **more: object) -> Stage:
    endpoint = Endpoint(name=name, engine="jobs.engines.e")
    places = {"role": Role.SERVE, "inputs": {"model": "train"}, **more}
    return stage(name, job=None, endpoint=endpoint, **places)


def run_of(*stages: Stage) -> Run:
    return begin(header(plan(stage("train"), *stages)))


BOTH = run_of(
    serving("chat", pool="b"), serving("code", pool="b"), stage("check", pool="b", role=Role.SERVE)
)


@pytest.mark.parametrize(
    ("run", "endpoint"), [(run_of(serving("chat")), ""), (BOTH, "chat")], ids=["alone", "of two"]
)
def test_a_rule_of_the_rollout_is_that_of_the_endpoint_and_the_number_that_is_written(
    run: Run, endpoint: str
) -> None:
    config = {"pipeline": {"stages": {"chat": {"endpoint": {}}}}}
    made = changed(config, in_full(["error_rate=1e-3", "steps=[100]"], run, endpoint))
    rules = {"rollout": {"error_rate": 0.001, "steps": [100]}}
    assert made["pipeline"]["stages"]["chat"]["endpoint"] == rules  # type: ignore[index]


def test_a_rule_that_may_be_of_several_endpoints_and_any_other_word_stay_as_they_are() -> None:
    for word in ("error_rate=1e-3", "seed=3", "pool", "pipeline.stages.chat.endpoint.idle=1"):
        assert in_full([word], BOTH) == (word,)


def test_a_pool_is_for_the_endpoint_and_what_checks_it_there() -> None:
    words = {"roles.serve=c", "pipeline.stages.chat.pool=c", "pipeline.stages.check.pool=c"}
    assert {*in_full(["pool=c"], BOTH, "chat")} == words
    assert len(in_full(["pool=c"], BOTH)) == 4
    assert in_full(["pool=c"], run_of(serving("chat")), "chat") == ("roles.serve=c",)
