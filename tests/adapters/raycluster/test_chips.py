"""A worker sees its own chips alone, also where Ray has no manager for them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.raycluster import this_worker
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.adapters.raycluster.ranking import WorkerPlace, ranked
from orchestrator.adapters.rayqueries import chips
from orchestrator.adapters.rayqueries.chip_numbering import NUMBERED, is_numbered, numbering
from orchestrator.core.errors import ClusterError
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine
from orchestrator.supervisor import orphans
from tests.clusters import POOLS, Attempt, begin, request
from tests.workers import worker

PAGE = Path(__file__).parents[3] / "docs/hosts.md"
REAL = replace(POOLS["spare"], emulation=None)
VARIABLE = "MLU_VISIBLE_DEVICES"


def test_chips_that_ray_does_not_know_are_numbered_beside_those_that_it_does() -> None:
    names = numbering(("MLU", "NPU")).split(",")

    assert names.count("NPU") == 1
    assert names[-1] == "MLU"


def test_a_node_numbers_what_ray_knows_and_what_it_was_started_with() -> None:
    assert is_numbered("GPU", {})
    assert is_numbered("NPU", {})
    assert not is_numbered("MLU", {})
    assert is_numbered("MLU", {NUMBERED: numbering(("MLU",))})
    assert not is_numbered("NPU", {NUMBERED: "MLU"}), "it replaces what Ray knows"


def test_a_worker_of_a_node_that_numbers_no_chips_says_how_to_start_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray calls what it does not number 0: all workers of the node would see chip 0 alone."""
    monkeypatch.delenv(NUMBERED, raising=False)
    monkeypatch.setattr(orphans, "watch", lambda: None)  # it would make a group of this process
    assert f"`{NUMBERED}={numbering(('MLU',))}`" in PAGE.read_text(encoding="utf-8")
    assert chips.of_this_process("MLU") == []
    with pytest.raises(ClusterError, match=f"start its nodes with {NUMBERED}=.*,MLU in their"):
        this_worker.prepare(request("tell_environment", "one", on=REAL))


def test_ranks_follow_nodes_by_name_and_chips_by_number() -> None:
    names = {"id9": "h1", "id1": "h2"}
    places = [
        WorkerPlace("id1", ("2",)),
        WorkerPlace("id9", ("10",)),
        WorkerPlace("id1", ("0", "1")),
        WorkerPlace("id9", ("2",)),
        WorkerPlace("id9"),
    ]
    order, node_ranks = ranked(places, names.__getitem__)
    assert order == [4, 3, 1, 2, 0]
    assert node_ranks == (0, 0, 0, 1, 1)


def test_chips_are_shown_in_the_order_of_their_numbers() -> None:
    assert chips.in_order(["10", "2", "0"]) == ["0", "2", "10"]
    assert chips.in_order(["GPU-b", "3", "GPU-a"]) == ["3", "GPU-a", "GPU-b"]


@pytest.mark.ray
def test_each_worker_is_shown_its_own_chips(ray_address: str) -> None:
    cluster = RayCluster(ray_address, worker)
    one = begin(cluster, request("tell_environment", "one", on=REAL, names=[VARIABLE]))
    one.finish()
    pair = Needs(workers=2)
    two = begin(cluster, request("tell_environment", "two", on=REAL, needs=pair, names=[VARIABLE]))
    two.finish()

    assert shown(one) in (["0"], ["1"])
    assert sorted(shown(two)) == ["0", "1"]


def shown(attempt: Attempt) -> list[str]:
    lines: Any = attempt.of(LogLine)
    return [json.loads(line.text)[VARIABLE] for line in lines]
