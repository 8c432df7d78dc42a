"""What is said of an endpoint must hold on every pool that may serve it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.spec.checks import problems_of
from orchestrator.core.spec.engines import EngineSpec, Maker, Nodes, Parallel
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.plan import make_plan
from orchestrator.core.spec.stages import Endpoint, Needs, Scale
from tests.build import accelerator, bindings, fleet, pipeline, pool, stage

CHAT = Endpoint(name="chat", engine="jobs.engines.e", formats=("fp8", "hif8"))


def lines(endpoint: Endpoint, on: Fleet, devices: int = 1) -> list[str]:
    needs = Needs(devices=devices)
    serve = stage("s", job=None, endpoint=endpoint, inputs={"model": "t"}, needs=needs)
    return [str(problem) for problem in problems_of(pipeline(stage("t"), serve), on, bindings())]


def test_a_pool_that_serves_no_offered_format_says_which_it_serves() -> None:
    chip = accelerator(formats=("bf16", "int8"))
    assert lines(CHAT, fleet(pool("a", chip=chip))) == [
        "pipeline.stages.s: pool 'a' can't serve 'fp8, hif8'; formats that it serves: bf16, int8"
    ]


def test_bounds_of_replicas_are_checked_on_each_pool() -> None:
    chip = accelerator(formats=("fp8",))
    scale = {
        "a": Scale(replicas=9),
        "b": Scale(max_replicas=1),
        "c": Scale(replicas=0),
        "x": Scale(),
    }
    scaled = replace(CHAT, replicas=2, max_replicas=4, scale=scale)
    where = "pipeline.stages.s"
    few = "replicas that there are at least; raise it, or lower replicas"
    on_three = fleet(pool("a", chip=chip), pool("b", chip=chip), pool("c", chip=chip))
    assert lines(scaled, on_three) == [
        f"{where}.endpoint.scale.c.replicas: 0 is too small; set 1 or more",
        f"{where}.needs: needs 9 devices, 'a' has 8; ask for fewer, or bind a larger pool",
        f"{where}.endpoint.scale.a.max_replicas: 4 is less than the 9 {few}",
        f"{where}.endpoint.scale.b.max_replicas: 1 is less than the 2 {few}",
        f"{where}.endpoint.scale: 'x' is not a pool of fleet 'test'; pools of this fleet: a, b, c",
    ]


def test_a_pool_that_is_to_help_an_endpoint_must_be_able_to() -> None:
    able = accelerator(formats=("fp8",))
    fleet_of_4 = fleet(
        pool("a", chip=able),
        pool("b", chip=accelerator(formats=("int8",))),
        pool("c", chip=able, available=False),
        pool("d", chip=able),
    )
    helped = replace(CHAT, overflow=("x", "a", "b", "c", "d"))
    where = "pipeline.stages.s"
    four, able_to = "pools of this fleet: a, b, c, d", "formats that it serves: int8"
    assert lines(helped, fleet_of_4) == [
        f"{where}.endpoint.overflow: 'x' is not a pool of fleet 'test'; {four}",
        f"{where}.endpoint.overflow: pool 'b' can't serve any of: fp8, hif8; {able_to}",
    ]


SERVER = EngineSpec(
    name="fast",
    command=("x",),
    parallel=Parallel(tensor="tp", data="dp"),
    makers={"maker": Maker(formats=("fp8",)), "cpu": Maker(formats=("bf16",))},
)
FAST = replace(CHAT, engine="fast", server=SERVER)


def test_an_engine_class_is_refused_more_chips_than_it_uses() -> None:
    chip = accelerator(formats=("fp8",))
    told = lines(CHAT, fleet(pool("a", chip=chip), pool("b", chip=chip)), devices=4)
    assert told == [
        (
            f"pipeline.stages.s.needs.devices: engine {CHAT.engine!r} uses one device of 4; "
            "ask for one, or choose an engine server: endpoint.engine=vllm"
        )
    ]


def test_an_engine_server_uses_all_chips_of_a_replica() -> None:
    chip = accelerator(formats=("fp8",), device="cuda")
    pools = fleet(pool("a", chip=chip))
    assert lines(FAST, pools, devices=4) == []
    odd = replace(FAST, engine_options={"dp": 3})
    assert lines(odd, pools, devices=4) == [
        (
            "pipeline.stages.s.endpoint.engine_options: engine 'fast' uses 3 (1 x 1 x 3: tensor, "
            "pipeline, data) of the 4 chips that a replica has; tensor x pipeline x data is to be "
            "needs.devices"
        )
    ]


def test_a_replica_on_several_nodes_and_options_of_ours_are_refused_in_one_line_each() -> None:
    chip = accelerator(formats=("fp8",), device="cuda")
    own = replace(FAST, server=replace(SERVER, command=("x", "--port", "{port}")))
    own = replace(own, engine_options={"port": 1})
    assert lines(own, fleet(pool("a", chip=chip, nodes=2)), devices=16) == [
        (
            "pipeline.stages.s.needs.devices: engine 'fast' runs on one node, and a node of 'a' "
            "has 8 devices; ask for at most so many of the 16, and for more replicas"
        ),
        (
            "pipeline.stages.s.endpoint.engine_options.port: engine 'fast' can't be told this: "
            "the replica sets it; leave it out"
        ),
    ]


def test_a_copy_of_a_model_on_several_nodes_takes_whole_ones_or_a_part_of_one() -> None:
    chip = accelerator(formats=("fp8",), device="cuda")
    spec = replace(SERVER, nodes=Nodes(options={"at": "{leader}"}))
    over = replace(FAST, server=spec, engine_options={"dp": 2})
    pools = fleet(pool("a", chip=chip, nodes=3, devices_per_node=6))
    assert lines(over, pools, devices=12) == []
    assert lines(replace(over, engine_options={"dp": 6}), pools, devices=18) == []
    assert lines(over, pools, devices=18) == [
        (
            "pipeline.stages.s.endpoint.engine_options: a copy of the model has 9 chips (tensor x "
            "pipeline), a node of 'a' has 6; have each copy take whole nodes, or a part of one"
        )
    ]


def test_an_engine_server_that_is_not_for_the_maker_of_the_pool_is_refused() -> None:
    other = accelerator(vendor="other", formats=("fp8",), device="cuda")
    assert lines(FAST, fleet(pool("a", chip=other))) == [
        (
            "pipeline.stages.s.endpoint.engine: engine 'fast' does not run on pool 'a'; makers "
            "that it knows: maker, cpu; add 'other' to conf/engine"
        )
    ]


def test_a_format_that_the_engine_does_not_read_there_is_refused() -> None:
    chip = accelerator(formats=("int8", "bf16"), device="cuda")
    told = lines(replace(FAST, formats=("int8",)), fleet(pool("a", chip=chip)))
    assert told == [
        "pipeline.stages.s: pool 'a' can't serve 'int8'; formats that it serves by fast: none"
    ]


def test_a_fallback_on_which_the_engine_does_not_run_is_left_out_with_a_line() -> None:
    chip = accelerator(formats=("fp8",), device="cuda")
    other = accelerator(vendor="other", formats=("fp8",), device="cuda")
    pools = fleet(pool("a", chip=chip), pool("b", chip=other))
    serve = stage("s", job=None, endpoint=FAST, inputs={"model": "t"})
    planned = make_plan(pipeline(stage("t"), serve), pools, bindings("a", "b"))["s"]
    assert planned.pools == ("a",)
    assert planned.reasons == ("engine fast does not run on b: no fallback",)


def test_how_many_requests_a_replica_takes_is_its_engine_s_word_unless_set() -> None:
    assert CHAT.requests_at_once == 32
    assert replace(CHAT, engine_options={"slots": 8}).requests_at_once == 8
    assert FAST.requests_at_once == 256
    assert replace(FAST, concurrency=3).requests_at_once == 3
