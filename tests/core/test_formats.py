"""The format in which a model is written follows from the pools that shall serve it."""

from __future__ import annotations

import pytest

from orchestrator.core.errors import PlanError
from orchestrator.core.spec.engines import EngineSpec, Maker
from orchestrator.core.spec.formats import serves, with_formats
from orchestrator.core.spec.hardware import Format, Pool, Role
from orchestrator.core.spec.plan import Plan, make_plan
from orchestrator.core.spec.stages import Bindings, Endpoint, Needs, Stage
from tests.build import accelerator, fleet, pipeline, plan, pool, stage

OFFERED: tuple[Format, ...] = ("bf16", "fp8_ue8m0", "fp8", "mxfp8", "int8")
POOLS = {
    "train": ("bf16",),
    "ascend": ("bf16", "int8"),
    "hopper": ("fp8", "bf16"),
    "moore": ("fp8",),
    "new": ("mxfp8", "hif8"),
    "odd": ("hif8",),
}


def pools(**more: tuple[Format, ...]) -> list[Pool]:
    known = {**POOLS, **more}
    return [pool(name, chip=accelerator(formats=able)) for name, able in known.items()]


def export(form: str = "auto", name: str = "export") -> Stage:
    return stage(name, params={"format": form, "max_tokens": 8}, role=Role.PREPARE)


def serving(name: str = "serve", *, reads: str = "export", **changes: object) -> Stage:
    facts = {"name": name, "engine": "jobs.engines.e", "formats": OFFERED, **changes}
    endpoint = Endpoint(**facts)  # type: ignore[arg-type]
    return stage(name, role=Role.SERVE, job=None, endpoint=endpoint, inputs={"model": reads})


def planned(*stages: Stage, on: tuple[str, ...]) -> Plan:
    first, *fallbacks = on
    bound = Bindings(
        roles={Role.PREPARE: "train", Role.TRAIN: "train", Role.SERVE: first},
        fallbacks={Role.SERVE: tuple(fallbacks)},
    )
    return make_plan(pipeline(*stages), fleet(*pools()), bound)


@pytest.mark.parametrize(
    ("first", "form"),
    [("ascend", "bf16"), ("hopper", "bf16"), ("moore", "fp8_ue8m0"), ("new", "mxfp8")],
)
def test_a_model_is_made_in_the_first_format_that_the_bound_pool_serves(
    first: str, form: str
) -> None:
    made = planned(export(), serving(), on=(first,))
    assert made["export"].stage.params == {"format": form, "max_tokens": 8}
    assert made["serve"].formats == (form,)


def test_a_format_that_the_fallbacks_serve_too_goes_first() -> None:
    made = planned(export(), serving(), on=("hopper", "moore"))
    assert made["serve"].formats == ("fp8_ue8m0", "fp8_ue8m0")
    assert made["serve"].left_out == ()


def test_a_fallback_that_can_not_serve_what_is_made_is_left_out() -> None:
    made = planned(export(), serving(), on=("moore", "ascend", "hopper"))
    assert made["serve"].pools == ("moore", "hopper")
    assert made["serve"].formats == ("fp8_ue8m0", "fp8_ue8m0")
    assert made["serve"].left_out == ("ascend",)


def test_a_pool_without_any_of_the_formats_is_refused_by_name() -> None:
    with pytest.raises(PlanError) as refused:
        planned(export(), serving(), on=("odd",))
    assert [str(problem) for problem in refused.value.problems] == [
        (
            "pipeline.stages.serve: pool 'odd' can't serve 'bf16, fp8_ue8m0, fp8, mxfp8, int8'; "
            "formats that it serves: hif8"
        )
    ]


def test_a_format_that_the_user_names_stays_and_is_checked() -> None:
    made = planned(export("int8"), serving(), on=("ascend", "hopper"))
    assert (made["serve"].formats, made["serve"].left_out) == (("int8",), ("hopper",))
    with pytest.raises(PlanError, match="pool 'moore' can't serve 'int8'"):
        planned(export("int8"), serving(), on=("moore",))


def test_two_endpoints_of_one_model_need_a_format_for_both() -> None:
    both = (serving("chat"), serving("batch", formats=("int8", "fp8")))
    assert planned(export(), *both, on=("hopper",))["export"].stage.params["format"] == "fp8"
    with pytest.raises(PlanError, match="pool 'new' can't serve"):
        planned(export(), *both, on=("new",))


def test_what_nobody_serves_is_made_in_the_usual_format() -> None:
    made = planned(export(), export(name="other"), serving(), on=("new",))
    assert made["other"].stage.params["format"] == "bf16"


@pytest.mark.parametrize("params", [{}, {"format": "parquet"}, {"format": 8}])
def test_a_maker_that_says_nothing_of_a_format_leaves_each_pool_its_own(
    params: dict[str, object],
) -> None:
    maker = stage("export", params=params, role=Role.PREPARE)
    made = planned(maker, serving(), on=("moore", "ascend"))
    assert made["export"].stage.params == params
    assert made["serve"].formats == ("fp8_ue8m0", "bf16")


def test_a_pool_that_is_unknown_is_told_by_the_plan_and_decides_nothing() -> None:
    bound = Bindings(roles={Role.SERVE: "gone"})
    (first, _) = with_formats(pipeline(export(), serving()), fleet(*pools()), bound).stages
    assert first.params["format"] == "bf16"
    (first, _) = with_formats(
        pipeline(export(), serving()), fleet(*pools()), Bindings(roles={})
    ).stages
    assert first.params["format"] == "bf16"


def test_who_reads_any_scales_reads_powers_of_two() -> None:
    known = fleet(*pools(blackwell=("fp8_ue8m0",))).pools
    assert serves(known["moore"], "fp8_ue8m0")
    assert not serves(known["blackwell"], "fp8")


# --- dialects -----------------------------------------------------------------------------------

FAST = EngineSpec(
    name="fast",
    command=("{model}", "{port}"),
    makers={
        "one": Maker(formats=("bf16", "mxfp8", "int8"), dialects={"mxfp8": "ascend-modelslim"}),
        "two": Maker(formats=("bf16", "mxfp8", "int8")),
    },
)


def with_dialect(form: str, dialect: str, *on: str) -> Plan:
    able: tuple[Format, ...] = ("mxfp8", "int8", "bf16")
    chips = [
        pool(f"{vendor}-pool", chip=accelerator(formats=able, vendor=vendor, device="npu"))
        for vendor in ("one", "two")
    ]
    maker = stage("export", params={"format": form, "dialect": dialect}, role=Role.PREPARE)
    endpoint = serving(engine="fast", server=FAST, formats=("mxfp8", "bf16"))
    first, *fallbacks = on
    bound = Bindings(
        roles={Role.PREPARE: first, Role.TRAIN: first, Role.SERVE: first},
        fallbacks={Role.SERVE: tuple(fallbacks)},
    )
    return make_plan(pipeline(maker, endpoint), fleet(*chips), bound)


@pytest.mark.parametrize(
    ("first", "form", "dialect"),
    [
        ("one-pool", "auto", "ascend-modelslim"),
        ("two-pool", "auto", "vllm"),
        ("one-pool", "int8", "vllm"),
    ],
)
def test_a_model_is_written_as_the_reader_on_the_bound_pool_wants_it(
    first: str, form: str, dialect: str
) -> None:
    made = with_dialect(form, "auto", first)
    assert made["export"].stage.params["dialect"] == dialect


def test_a_fallback_that_reads_another_dialect_is_left_out() -> None:
    made = with_dialect("mxfp8", "auto", "one-pool", "two-pool")
    assert made["serve"].left_out == ("two-pool",)
    assert with_dialect("bf16", "auto", "one-pool", "two-pool")["serve"].left_out == ()


def test_a_dialect_that_is_not_read_is_refused_in_the_name_of_the_reader() -> None:
    with pytest.raises(PlanError) as refused:
        with_dialect("mxfp8", "sglang", "one-pool")
    assert [str(problem) for problem in refused.value.problems] == [
        (
            "pipeline.stages.serve: pool 'one-pool' can't serve 'mxfp8' as it is written, in "
            "dialect 'sglang'; fast reads it there in dialect 'ascend-modelslim'"
        )
    ]


def test_what_nobody_serves_is_written_in_the_usual_dialect() -> None:
    maker = stage("export", params={"format": "auto", "dialect": "auto"}, role=Role.PREPARE)
    (made,) = with_formats(pipeline(maker), fleet(*pools()), Bindings(roles={})).stages
    assert made.params == {"format": "bf16", "dialect": "vllm"}
    (made, _) = with_formats(
        pipeline(maker, serving()), fleet(*pools()), Bindings(roles={})
    ).stages
    assert made.params["dialect"] == "vllm"


@pytest.mark.parametrize(
    ("params", "inputs", "workers", "words"),
    [
        ({"format": "bf16"}, {"data": "data"}, 1, "calibrates int8 or fp8, not 'bf16'"),
        ({"format": "int8"}, {}, 1, "a recipe has no rows to calibrate with"),
        ({"format": "fp8"}, {"data": "data"}, 4, "a recipe runs in one worker, not in 4"),
        ({"format": "fp8", "recipe": {"rows": 8}}, {"data": "data"}, 1, "names no Python"),
    ],
)
def test_a_recipe_that_can_not_be_followed_is_refused_by_the_plan(
    params: dict[str, object], inputs: dict[str, str], workers: int, words: str
) -> None:
    made = stage(
        "export",
        inputs=inputs,
        params={"recipe": {"python": "/opt/python"}, **params},
        needs=Needs(workers=workers),
    )
    with pytest.raises(PlanError, match=words):
        plan(stage("data"), made)


def test_a_recipe_that_can_be_followed_is_planned_and_another_jobs_word_is_its_own() -> None:
    params = {"format": "int8", "recipe": {"python": "/opt/python"}}
    plan(stage("data"), stage("export", inputs={"data": "data"}, params=params))
    plan(stage("cook", params={"recipe": {"salt": 1}}))
    plan(stage("cook", params={"recipe": {}, "format": "bf16"}))
