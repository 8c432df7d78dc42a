"""Who must pass before an endpoint serves, and by which engine it asks."""

from __future__ import annotations

from orchestrator.core.hardware import Role
from orchestrator.core.parity import guards, with_engines
from orchestrator.core.spec import Endpoint, Stage
from tests import build

ENDPOINT = Endpoint(name="chat", engine="jobs.engines.Mine", engine_options={"slots": 4})


def serving(*after: str) -> Stage:
    return build.stage(
        "serve", *after, role=Role.SERVE, job=None, endpoint=ENDPOINT, inputs={"model": "export"}
    )


def comparing(name: str = "parity", **changes: object) -> Stage:
    facts = {
        "role": Role.SERVE,
        "inputs": {"model": "export", "reference": "ask"},
        "params": {"engine": "auto", "limits": {}},
        **changes,
    }
    return build.stage(name, **facts)


def test_a_guard_reads_the_model_on_the_serving_role_and_comes_before() -> None:
    guard = comparing()
    others = (
        comparing("elsewhere", role=Role.TRAIN),
        comparing("later"),
        comparing("another", inputs={"model": "other"}),
    )
    stages = (guard, *others, serving("parity", "elsewhere", "another"))
    assert guards(stages, stages[-1]) == (guard,)
    assert guards(stages, guard) == ()


def test_auto_means_the_engine_of_the_endpoint_with_its_options() -> None:
    found = with_engines(build.pipeline(comparing(), serving("parity")))
    expected = {"engine": "jobs.engines.Mine", "options": {"slots": 4}, "limits": {}}
    assert dict(found.stages[0].params) == expected


def test_what_a_config_says_itself_stays() -> None:
    own = comparing(params={"engine": "auto", "options": {"slots": 1}})
    named = comparing("named", params={"engine": "mine.Engine"})
    alone = comparing("alone")
    found = with_engines(build.pipeline(own, named, alone, serving("parity", "named")))
    assert [dict(stage.params) for stage in found.stages[:3]] == [
        {"engine": "jobs.engines.Mine", "options": {"slots": 1}},
        {"engine": "mine.Engine"},
        {"engine": "auto", "limits": {}},
    ]
