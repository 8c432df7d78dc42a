"""Who must pass before an endpoint serves, and by which engine it asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.parity import (
    guards,
    moved_weights,
    text_problems,
    texts_of,
    with_engines,
)
from orchestrator.core.spec.stages import Endpoint, Stage
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


def asking(questions: object) -> tuple[Stage, ...]:
    allowances = {"bf16": {"greedy": 0.1}, "int8": {"greedy": 0.3}}
    guard = comparing(params={"confidence": 0.95, "allowances": allowances})
    export = build.stage("export", params={"format": "bf16"})
    return (guard, export, build.stage("ask", params={"questions": questions}))


def test_a_guard_says_how_many_texts_it_takes_to_be_as_sure_as_it_asks() -> None:
    stages = {one.name: one for one in asking(128)}
    found = texts_of(stages, stages["parity"])
    assert found is not None
    assert (found.source, found.questions, found.fewest) == (
        "ask",
        128,
        29,
    )  # 0.9**29 is below 5 %
    assert "29 answers alike are the fewest that make bf16 95% sure" in found.line
    assert [*text_problems(build.pipeline(*stages.values()))] == []


def test_too_few_questions_are_refused_before_anything_runs() -> None:
    (problem,) = text_problems(build.pipeline(*asking(28)))
    assert problem.path == "pipeline.stages.ask.params.questions"
    assert "28 questions are too few for stage 'parity'" in str(problem)
    assert "ask 29 at least" in str(problem)


def test_a_guard_whose_parameters_say_nothing_of_texts_is_left_alone() -> None:
    assert [*text_problems(build.pipeline(*asking("many")))] == []
    plain = comparing()
    assert texts_of({"parity": plain}, plain) is None
    (_, export, ask) = asking(1)
    foreign = comparing(params={"confidence": 0.95, "allowances": {"fp8": {"greedy": 0.1}}})
    assert [*text_problems(build.pipeline(foreign, export, ask))] == []


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (1, "; of 128 places at most kl_tail is judged at quantile 0.95 or below"),
        (4, "; of 512 places at most kl_tail is judged at quantile 0.99 or below"),
        (64, "; of 8,192 places at most kl_tail is judged at quantile 0.999 or below"),
        ("many", "95% sure"),
    ],
)
def test_a_plan_says_by_which_quantile_the_tail_is_judged(places: object, said: str) -> None:
    guard, export, ask = asking(128)
    ask = replace(ask, params={**ask.params, "places": places})
    stages = {one.name: one for one in (guard, export, ask)}
    found = texts_of(stages, guard)
    assert found is not None
    assert found.line.endswith(said)


def smooth(limit: float, *modifiers: str) -> tuple[Stage, Stage]:
    limits = {"int8": {"weights": limit, "unquantized_sums": limit, "groups": 64.0, "flips": 0.1}}
    recipe = {"python": "p", "modifiers": {name: {} for name in modifiers}}
    export = build.stage("export", params={"format": "int8", "recipe": recipe})
    return comparing(params={"limits": limits}), export


def test_a_plan_says_that_a_recipe_moves_weights_which_the_gate_takes_for_others() -> None:
    guard, export = smooth(0.05, "SmoothQuantModifier", "GPTQModifier")
    (line,) = moved_weights({"parity": guard, "export": export}, guard)
    assert line == (
        "SmoothQuantModifier in the recipe of export moves scales from layer to layer: parity "
        "refuses such weights, unless limits.int8 of weights, unquantized_sums are 1000"
    )
    for others in (smooth(0.05, "GPTQModifier"), smooth(1000.0, "SmoothQuantModifier")):
        guard, export = others
        assert not [*moved_weights({"parity": guard, "export": export}, guard)]
