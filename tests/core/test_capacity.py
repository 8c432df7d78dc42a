"""Whether what is asked for has room: on one node, or on several whole ones."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.spec.capacity import fewest_nodes, places, problems_of_room
from orchestrator.core.spec.engines import EngineSpec, Maker, Nodes, Parallel
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.stages import Endpoint, Needs, Stage
from tests.build import pool, stage

SERVER = EngineSpec(
    name="fast",
    command=("x",),
    parallel=Parallel(tensor="tp", data="dp"),
    nodes=Nodes(options={"at": "{leader}"}),
    makers={"maker": Maker()},
)
POOL = pool("a", nodes=4)
ENDPOINT = Endpoint(name="chat", engine="fast", server=SERVER)


def serve(devices: int, *, replicas: int = 1, cpus: float = 1.0, engine: str = "fast") -> Stage:
    server = SERVER if engine == "fast" else replace(SERVER, name=engine, nodes=None)
    endpoint = replace(ENDPOINT, engine=engine, server=server, replicas=replicas)
    needs = Needs(devices=devices, cpus=cpus)
    return stage("s", job=None, role=Role.SERVE, endpoint=endpoint, needs=needs)


def test_a_replica_takes_whole_nodes_where_one_has_too_few_chips() -> None:
    assert list(problems_of_room("s", serve(16), POOL)) == []
    assert list(problems_of_room("s", serve(16, replicas=2), POOL)) == []
    assert [places(serve(devices), POOL) for devices in (8, 16, 24, 32, 40)] == [4, 2, 1, 1, 0]
    assert POOL.nodes_of(0) == POOL.nodes_of(8) == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            serve(12),
            (
                "s.needs.devices: 12 devices are no whole nodes of 'a', which have 8 each; "
                "ask for 8 or 16"
            ),
        ),
        (
            serve(16, engine="slow"),
            (
                "s.needs.devices: engine 'slow' runs on one node, and a node of 'a' has 8 "
                "devices; ask for at most so many of the 16, and for more replicas"
            ),
        ),
        (
            serve(40),
            "s.needs: needs 40 devices, 'a' has 32; ask for fewer, or bind a larger pool",
        ),
        (
            serve(16, cpus=17.0),
            "s.needs.cpus: needs 17.0 cores in one worker, a node of 'a' has 16; ask for fewer",
        ),
        (
            stage("s", needs=Needs(devices=16)),
            "s.needs.devices: needs 16 devices in one worker, a node of 'a' has 8; ask for fewer",
        ),
    ],
)
def test_what_has_no_room_is_told_in_one_line(asked: Stage, said: str) -> None:
    assert [str(problem) for problem in problems_of_room("s", asked, POOL)] == [said]


@pytest.mark.parametrize(
    ("replicas", "nodes"),
    [
        ([], 0),
        ([4, 4], 1),
        ([5, 5], 2),
        ([3, 3, 3], 2),
        ([16, 4, 4], 3),
        ([16, 8, 24], 6),
        ([0, 0], 0),
    ],
)
def test_the_nodes_that_replicas_take_at_the_least(replicas: list[int], nodes: int) -> None:
    assert fewest_nodes(POOL, replicas) == nodes
