"""What is said of an endpoint must hold on every pool that may serve it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.checks import problems_of
from orchestrator.core.hardware import Fleet
from orchestrator.core.spec import Endpoint, Scale
from tests.build import accelerator, bindings, fleet, pipeline, pool, stage

CHAT = Endpoint(name="chat", engine="jobs.engines.e", formats=("fp8", "hif8"))


def lines(endpoint: Endpoint, on: Fleet) -> list[str]:
    serve = stage("s", job=None, endpoint=endpoint, inputs={"model": "t"})
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
