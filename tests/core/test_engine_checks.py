"""What is wrong with an engine server, its options, or a model that it is to spread over chips."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.spec.checks import problems_of, spread_problems
from orchestrator.core.spec.engine_checks import indivisible, problems_of_spec, refused_options
from orchestrator.core.spec.engines import Maker, Nodes, Split, UpdateStep
from orchestrator.core.spec.hardware import Format, Role
from orchestrator.core.spec.model_shapes import RECORDS, unreadable, unreadable_experts
from orchestrator.core.spec.stages import Bindings, Endpoint, Needs
from tests.build import accelerator, fleet, pipeline, pool, stage
from tests.core.engine_values import CHIPS, SPEC

SINGLE = "Single '{' encountered in format string"  # as Python says it


@pytest.mark.parametrize(
    ("config", "spread", "said"),
    [
        ({"num_attention_heads": 6}, Split(tensor=4), "6 attention heads"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, Split(tensor=4), "3 key-value"),
        ({"num_hidden_layers": 2}, Split(pipeline=4), "2 layers"),
        ({"text_config": {"num_attention_heads": 6}}, Split(tensor=4), "6 attention heads"),
    ],
)
def test_a_model_that_can_not_be_spread_so_is_named(
    config: dict[str, Any], spread: Split, said: str
) -> None:
    (why,) = indivisible(config, spread)
    assert said in why


def test_the_plan_refuses_a_model_that_is_there_and_can_not_be_spread_over_a_replica() -> None:
    endpoint = Endpoint(name="chat", engine="fast", server=SPEC)
    serve = stage("s", job=None, endpoint=endpoint, needs=Needs(devices=4))
    (problem,) = spread_problems(serve, CHIPS, {"num_attention_heads": 6})
    assert str(problem) == (
        "pipeline.stages.s.needs.devices: its 6 attention heads can't be spread over 4 chips; "
        "set needs.devices to a number that divides it"
    )
    assert list(spread_problems(serve, CHIPS, {"num_attention_heads": 8})) == []
    assert list(spread_problems(serve, CHIPS, {})) == []
    own = replace(endpoint, engine="jobs.engines.Mine", server=None)
    alone = replace(serve, endpoint=own)
    assert list(spread_problems(alone, CHIPS, {"num_attention_heads": 6})) == []


BLOCKS = {"quantization_config": {"weight_block_size": [128, 128]}}
DEEPSEEK_V3 = {
    "num_attention_heads": 128,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    **BLOCKS,
}
QWEN3_30B = {
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    **BLOCKS,
}
SMOLLM2 = {
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "hidden_size": 576,
    "intermediate_size": 1536,
    **BLOCKS,
}


@pytest.mark.parametrize(
    ("config", "chips", "width"),
    [
        (DEEPSEEK_V3, 16, None),
        (DEEPSEEK_V3, 32, 18432),
        (QWEN3_30B, 1, None),
        (QWEN3_30B, 2, None),
        (QWEN3_30B, 4, 768),
        (SMOLLM2, 1, 576),
        ({**SMOLLM2, "quantization_config": {"weight_block_size": [1, 32]}}, 1, None),
    ],
)
def test_blocks_have_to_be_whole_on_every_chip_in_all_layers_that_are_fused_or_spread(
    config: dict[str, Any], chips: int, width: int | None
) -> None:
    told = list(unreadable(config, chips))
    assert [f"of {width} can't" in one for one in told] == [True] * (width is not None)


GROUPS = {"quantization_config": RECORDS["mxfp8"]}
CODES = {"quantization_config": RECORDS["int8"]}
MOE = {"num_attention_heads": 32, "head_dim": 128, "moe_intermediate_size": 768}
ODD = {"num_attention_heads": 4, "head_dim": 20, "intermediate_size": 100}


@pytest.mark.parametrize(
    ("config", "chips", "multiples", "said"),
    [
        ({**MOE, **GROUPS}, 8, {}, ""),
        ({**MOE, **GROUPS}, 16, {}, "768 inputs can't be spread over 16 chips in groups of 32"),
        ({**MOE, **BLOCKS}, 4, {}, "768 can't be spread over 4 chips in blocks of 128"),
        ({**ODD, **GROUPS}, 1, {}, ""),  # an export leaves those layers as they are
        ({**ODD, **GROUPS}, 2, {}, ""),
        ({**MOE, **CODES}, 64, {}, ""),
        ({**MOE, **CODES}, 64, {"int8": (8, 16)}, "768 outputs on 64 chips are no multiples of 8"),
        ({**ODD, **CODES}, 1, {"int8": (4, 16)}, "100 inputs on a chip are no multiples of 16"),
        ({**MOE, **GROUPS}, 8, {"int8": (8, 16)}, ""),
    ],
)
def test_shapes_that_a_reader_refuses_are_named(
    config: dict[str, Any], chips: int, multiples: dict[Format, tuple[int, int]], said: str
) -> None:
    told = list(unreadable(config, chips, multiples))
    assert [one[: one.index(" layers") + 7] for one in told[:1]] == ["its layers"] * bool(said)
    assert said in "".join(told[:1])


@pytest.mark.parametrize("field", ["num_experts", "n_routed_experts", "num_local_experts"])
def test_experts_in_a_format_that_a_reader_has_for_dense_layers_alone_are_refused(
    field: str,
) -> None:
    experts = {**MOE, field: 8}
    told = list(unreadable_experts({**experts, **CODES}, ("int8",)))
    assert told == ["it has no kernel of experts in 'int8'"]
    assert list(unreadable_experts({**experts, **GROUPS}, ("int8",))) == []
    assert list(unreadable_experts({**experts, **CODES}, ())) == []
    assert list(unreadable_experts({**MOE, **CODES}, ("int8",))) == []


def test_the_plan_refuses_shapes_by_the_name_of_their_reader() -> None:
    train = stage("train", params={"model": MOE})
    maker = Maker(multiples={"int8": (8, 16)})
    endpoint = Endpoint(name="chat", engine="fast", server=replace(SPEC, makers={"nvidia": maker}))
    chip = accelerator(name="b", vendor="nvidia", device="cuda", formats=("mxfp8", "int8"))
    bound = Bindings(roles=dict.fromkeys(Role, "b"))
    said = {}
    for form, devices in (("mxfp8", 16), ("int8", 64)):
        export = stage("export", params={"format": form}, inputs={"model": "train"})
        served = replace(endpoint, formats=(form,))
        needs, inputs = Needs(devices=devices), {"model": "export"}
        serve = stage(
            "serve", role=Role.SERVE, job=None, endpoint=served, inputs=inputs, needs=needs
        )
        where = fleet(pool("b", chip=chip, devices_per_node=64))
        problems = problems_of(pipeline(train, export, serve), where, bound)
        said[form] = [problem.what for problem in problems]
    begins = "engine 'fast' can't read it: its layers of 768 "
    assert said["mxfp8"] == [f"{begins}inputs can't be spread over 16 chips in groups of 32"]
    assert f"{begins}outputs on 64 chips are no multiples of 8" in said["int8"]


def test_key_value_heads_are_copied_where_there_are_fewer_than_chips() -> None:
    config = {"num_attention_heads": 8, "num_key_value_heads": 2, "num_hidden_layers": 4}
    assert list(indivisible(config, Split(tensor=8))) == []
    assert list(indivisible({}, Split(tensor=8))) == []


def test_a_whole_engine_has_no_problem_and_a_broken_one_all_of_its_own() -> None:
    assert list(problems_of_spec("engines.fast", SPEC)) == []
    broken = replace(
        SPEC,
        command=("run", "{prot}"),
        environment={"A B": "{key}"},
        files={"../x": "{key} {"},
        health="health",
        update=(UpdateStep(path="reload", body={"to": ["{folder}", "{port}"]}),),
        makers={},
    )
    told = [f"{p.path}: {p.what}" for p in problems_of_spec("engines.fast", broken)]
    assert told == [
        "engines.fast.makers: names no maker",
        "engines.fast.command: '{prot}' names 'prot'",
        "engines.fast.command: says '{model}' nowhere",
        "engines.fast.command: says '{port}' nowhere",
        "engines.fast.environment.A B: '{key}' names 'key'",
        "engines.fast.environment: 'A B' is no variable",
        f"engines.fast.files.../x: '{{key}} {{' is no template: {SINGLE}",
        "engines.fast.files: '../x' is no name of a file",
        "engines.fast.update.0.body: '{port}' names 'port'",
        "engines.fast.health: 'health' is no path",
        "engines.fast.update.0.path: 'reload' is no path",
    ]
    no_json = {"f": "{model} {port}"}
    unfit = replace(SPEC, files=no_json, options_file="f", command=("run",))
    assert [str(one) for one in problems_of_spec("e", unfit)] == [
        "e.files.f: is no JSON: Extra data: line 1 column 3 (char 2); mend it"
    ]
    (missing,) = problems_of_spec("e", replace(SPEC, options_file="g"))
    assert missing.path == "e.options_file"
    bare = replace(SPEC, command=(), makers={"x": Maker(command=("a",))})
    paths = [problem.path for problem in problems_of_spec("e", bare)]
    assert paths == ["e.command", "e.makers.x.command", "e.makers.x.command"]


def test_what_is_wrong_with_how_an_engine_runs_over_nodes_is_told() -> None:
    nodes = Nodes(
        options={"a": "{leder}"}, environment={"B C": "{rank}"}, follower=("{x}",), following={}
    )
    told = [f"{p.path}: {p.what}" for p in problems_of_spec("e", replace(SPEC, nodes=nodes))]
    assert told == [
        "e.nodes.follower: '{x}' names 'x'",
        "e.nodes.options: '{leder}' names 'leder'",
        "e.nodes.environment: 'B C' is no variable",
        "e.nodes: says '{leader}' nowhere",
    ]
    by = replace(nodes, options={"a": "{leader}"}, environment={}, follower=())
    assert list(problems_of_spec("e", replace(SPEC, nodes=by))) == []
    alone = replace(SPEC, makers={"cpu": Maker(follower=("{port}",)), "x": Maker()})
    assert [str(problem) for problem in problems_of_spec("e", alone)] == [
        "e.makers.cpu.follower: follows nobody; say under e.nodes how it runs over several"
    ]
    assert dict(refused_options(replace(SPEC, nodes=by), {"a": 1})) == {"a": "the replica sets it"}


def test_options_that_the_replica_sets_and_that_would_break_it_are_refused() -> None:
    spec = replace(SPEC, refuses={"api-key": "all would see it"})
    given = {"port": 1, "--as": "x", "api_key": "k", "max-len": 2}
    assert dict(refused_options(spec, given)) == {
        "port": "the replica sets it",
        "--as": "the replica sets it",
        "api_key": "all would see it",
    }


@pytest.mark.parametrize(
    ("devices", "form", "width"), [(4, "fp8", 768), (2, "fp8", None), (4, "bf16", None)]
)
def test_the_plan_refuses_blocks_that_are_not_whole_of_a_model_that_it_trains(
    devices: int, form: str, width: int | None
) -> None:
    shape = {name: value for name, value in QWEN3_30B.items() if name != "quantization_config"}
    train = stage("train", params={"model": shape})
    export = stage("export", params={"format": form}, inputs={"model": "train"})
    endpoint = Endpoint(name="chat", engine="fast", server=SPEC, formats=("fp8", "bf16"))
    serve = stage(
        "serve",
        role=Role.SERVE,
        job=None,
        endpoint=endpoint,
        inputs={"model": "export"},
        needs=Needs(devices=devices),
    )
    chip = accelerator(name="h800", vendor="nvidia", device="cuda", formats=("fp8", "bf16"))
    bound = Bindings(roles=dict.fromkeys(Role, "h800"))
    problems = problems_of(pipeline(train, export, serve), fleet(pool("h800", chip=chip)), bound)
    assert [str(problem) for problem in problems] == [
        (
            f"pipeline.stages.serve.needs.devices: engine 'fast' can't read it: its layers of "
            f"{width} can't be spread over 4 chips in blocks of 128; set needs.devices to a "
            f"number that divides it, or choose another format"
        )
    ] * (width is not None)


@pytest.mark.parametrize(
    ("kind", "form"), [("mamba", "int8"), ("mamba", "bf16"), ("llama", "int8")]
)
def test_the_plan_refuses_a_type_that_the_engine_reads_in_plain_weights_alone(
    kind: str, form: str
) -> None:
    train = stage("train", params={"architecture": kind})
    export = stage("export", params={"format": form}, inputs={"model": "train"})
    endpoint = Endpoint(
        name="chat",
        engine="fast",
        server=replace(SPEC, plain=("mamba",)),
        formats=("int8", "bf16"),
    )
    reads = {"model": "export"}
    serve = stage("serve", role=Role.SERVE, job=None, endpoint=endpoint, inputs=reads)
    chip = accelerator(name="h800", vendor="nvidia", device="cuda", formats=("int8", "bf16"))
    bound = Bindings(roles=dict.fromkeys(Role, "h800"))
    problems = problems_of(pipeline(train, export, serve), fleet(pool("h800", chip=chip)), bound)
    said = (
        "pipeline.stages.export.params.format: engine 'fast' reads a model of type 'mamba' in no "
        "'int8'; set it to bf16"
    )
    assert [str(problem) for problem in problems] == [said] * ((kind, form) == ("mamba", "int8"))
