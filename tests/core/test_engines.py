"""Engine servers as data: what starts one, over which chips it spreads, what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.core.checks import spread_problems
from orchestrator.core.emulation import Emulation
from orchestrator.core.engines import (
    EngineSpec,
    Maker,
    Parallel,
    Split,
    UpdateStep,
    argv_of,
    environment_of,
    filled,
    flags,
    indivisible,
    is_server,
    problems_of_spec,
    split_of,
)
from orchestrator.core.hardware import Pool
from orchestrator.core.spec import Endpoint, Needs
from tests.build import accelerator, stage

SPEC = EngineSpec(
    name="fast",
    command=("{python}", "-m", "fast", "--port={port}", "{model}", "--as", "{name}"),
    environment={"OFFLINE": "1", "CHIPS": "{devices}"},
    options={"log": "no", "eager": True},
    parallel=Parallel(tensor="tp", pipeline="pp", data="dp"),
    concurrency="max-seqs",
    at_once=64,
    makers={
        "nvidia": Maker(),
        "cpu": Maker(formats=("bf16",), environment={"THREADS": "2"}, options={"log": "yes"}),
    },
)
CHIPS = Pool(
    name="h800",
    accelerator=accelerator(name="h800", vendor="nvidia", device="cuda", formats=("fp8",)),
)
HOST = Pool(name="host", accelerator=accelerator(name="h800"), emulation=Emulation(device="cpu"))
SINGLE = "Single '{' encountered in format string"  # as Python says it
PLACES = {
    "python": "/py",
    "host": "::1",
    "port": "7",
    "model": "/m",
    "name": "chat",
    "devices": "4",
    "files": "/f",
}


def split(options: dict[str, Any], devices: int) -> Split:
    return split_of(SPEC, SPEC.given(CHIPS, options), devices)


def test_a_name_with_dots_is_a_class_and_one_without_a_server() -> None:
    assert is_server("vllm")
    assert not is_server("jobs.engines.embedded.EmbeddedEngine")


def test_all_chips_of_a_replica_hold_the_tensors_unless_options_say_otherwise() -> None:
    assert split({}, 4) == Split(tensor=4)
    assert split({}, 0) == Split()
    assert split({"dp": 2}, 4) == Split(tensor=2, data=2)
    assert split({"pp": 2, "tp": 2}, 4) == Split(tensor=2, pipeline=2)
    assert split({"--d_p": 2, "dp": 4}, 4) == Split(data=4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tp": 2}, r"'fast' uses 2 \(2 x 1 x 1: tensor, pipeline, data\) of the 4 chips"),
        ({"dp": 3}, r"uses 3 \(1 x 1 x 3"),
        ({"tp": "two"}, "tp='two' is no number of chips"),
        ({"pp": 0}, "pp=0 is no number of chips"),
    ],
)
def test_chips_that_would_idle_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        split(options, 4)


def test_an_engine_that_knows_no_parallelism_uses_one_chip() -> None:
    alone = replace(SPEC, parallel=Parallel())
    assert split_of(alone, {}, 1) == Split()
    with pytest.raises(ValueError, match="uses 1"):
        split_of(alone, {}, 2)


def test_the_command_has_its_places_filled_in_and_a_users_options_go_over_all_others() -> None:
    assert argv_of(SPEC, HOST, {"eager": False, "max_len": 9}, PLACES) == [
        "/py", "-m", "fast", "--port=7", "/m", "--as", "chat",
        "--log", "yes", "--max-len", "9", "--tp", "4",
    ]  # fmt: skip
    assert environment_of(SPEC, HOST, PLACES) == {"OFFLINE": "1", "CHIPS": "4", "THREADS": "2"}


def test_options_are_written_as_flags() -> None:
    given = {"a": 1, "b": True, "c": False, "d": None, "e": [1, 2], "f": {"g": "h"}}
    assert flags(given) == ["--a", "1", "--b", "--e", "1", "2", "--f", '{"g": "h"}']


def test_the_host_s_cores_are_a_maker_of_their_own_and_a_stand_in_is_none() -> None:
    assert SPEC.on(CHIPS) == Maker()
    assert SPEC.on(HOST) == SPEC.makers["cpu"]
    stand_in = replace(CHIPS, emulation=Emulation(device="own"))
    assert SPEC.on(stand_in) is None
    assert SPEC.reads("fp8", CHIPS)
    assert SPEC.reads("bf16", HOST)
    assert not SPEC.reads("fp8", HOST)


def test_how_many_requests_at_once_is_the_engine_s_own_word() -> None:
    assert SPEC.requests_at_once({}) == 64
    assert SPEC.requests_at_once({"max_seqs": 8}) == 8
    assert SPEC.requests_at_once({"max-seqs": "many"}) == 64


def test_texts_of_an_update_are_filled_in_at_any_depth() -> None:
    body = {"rpc": "load", "kwargs": {"path": "{folder}"}, "names": ["{version}"], "n": 1}
    assert filled(body, {"folder": "/w", "version": "v2"}) == {
        "rpc": "load",
        "kwargs": {"path": "/w"},
        "names": ["v2"],
        "n": 1,
    }


@pytest.mark.parametrize(
    ("config", "spread", "said"),
    [
        ({"num_attention_heads": 6}, Split(tensor=4), "6 attention heads"),
        ({"num_attention_heads": 8, "num_key_value_heads": 3}, Split(tensor=4), "3 key-value"),
        ({"num_hidden_layers": 2}, Split(pipeline=4), "2 layers"),
        ({"text_config": {"num_attention_heads": 6}}, Split(tensor=4), "6 attention heads"),
        (
            {
                "intermediate_size": 384,
                "quantization_config": {"weight_block_size": [128, 128]},
            },
            Split(tensor=2),
            "layers of 384 can't be spread over 2 chips in blocks of 128",
        ),
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
    bare = replace(SPEC, command=(), makers={"x": Maker(command=("a",))})
    paths = [problem.path for problem in problems_of_spec("e", bare)]
    assert paths == ["e.command", "e.makers.x.command", "e.makers.x.command"]
