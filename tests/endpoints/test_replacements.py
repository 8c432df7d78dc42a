"""Replicas on nodes that are not to be used are replaced by others, which start first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.endpoints.life import RevisionRetired
from orchestrator.endpoints import replacements
from orchestrator.endpoints.unused_nodes import SECONDS_OF_A_LOOK, UnusedNodes
from orchestrator.messages import Replacement
from tests.build import header, plan, stage
from tests.endpoints.test_reconciler import Bench
from tests.fakes import FakeClock, MemoryStore

NAME = "chat.r1"


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.pass_time(2)
    bench.told.clear()
    return bench


def drained(bench: Bench) -> Bench:
    bench.replicas.misplaced[NAME] = ("h7",)
    return bench


def test_replicas_on_a_node_that_is_not_to_be_used_are_replaced_and_go_after_that(
    bench: Bench,
) -> None:
    drained(bench).pass_time(1)
    assert bench.told == ["chat.r1 is on 'h7', not to be used: others take its place"]
    assert NAME in bench.replicas.there, "it serves until the others answer"
    bench.pass_time(1)
    assert bench.replicas.replacements == {NAME: Replacement.READY}
    bench.pass_time(2)
    assert bench.replicas.replacements == {NAME: Replacement.READY}, "gateways need a moment"
    bench.pass_time(int(replacements.SECONDS_OF_GRACE) + 1)
    assert bench.replicas.replacements == {}
    assert bench.told[-1] == "chat.r1 has moved: what was replaced goes"
    bench.pass_time(60)
    assert len(bench.told) == 2, "once"


def test_as_many_replicas_start_as_serve_now(bench: Bench) -> None:
    deployed = bench.made
    endpoint = replace(deployed.endpoint, replicas=3)
    bench.replicas.room = False
    drained(bench).pass_time(1)
    ((_, count),) = bench.replicas.replacing.values()
    assert count == max(1, deployed.endpoint.replicas)
    looked = replacements.Replacements(bench.replicas, bench.clock, bench.told.append)
    looked.advance(replace(deployed, endpoint=endpoint), bench.replicas.live()[NAME])
    ((_, count),) = bench.replicas.replacing.values()
    assert count == 3


def test_without_room_all_stays_until_the_node_may_be_used_again(bench: Bench) -> None:
    bench.replicas.room = False
    drained(bench).pass_time(20)
    assert "replicas of chat.r1 are not replaced yet: pool 'a' is busy" in bench.told
    assert NAME in bench.replicas.there
    del bench.replicas.misplaced[NAME]
    bench.pass_time(2)
    assert bench.replicas.replacing == {}
    assert bench.told[-1] == "chat.r1 stays where it is: its nodes may be used again"


def test_a_replacement_that_fails_is_tried_again_later_each_time(bench: Bench) -> None:
    bench.replicas.broken = {bench.made.pool.name}
    drained(bench).pass_time(300)
    failed = [line for line in bench.told if "could not be replaced: no kernel" in line]
    assert 2 <= len(failed) <= 5
    assert NAME in bench.replicas.there


def test_nothing_is_started_for_a_revision_that_was_retired_meanwhile(bench: Bench) -> None:
    bench.replicas.room = False
    drained(bench).pass_time(3)
    life = bench.store.endpoint("chat")
    bench.store.follow(life, [RevisionRetired(1, "by hand")], 2.0)
    bench.pass_time(1)
    assert bench.replicas.replacing == {}
    assert bench.made.key in bench.replicas.cancelled


@pytest.mark.parametrize("state", Replacement)
def test_what_another_reconciler_began_is_brought_to_its_end(
    bench: Bench, state: Replacement
) -> None:
    bench.replicas.replacements[NAME] = state
    bench.pass_time(int(bench.made.endpoint.ready) + 5)
    assert bench.replicas.replacements == {}


def test_the_nodes_that_are_not_to_be_used_are_those_of_the_fleet_and_the_cluster_of_the_run() -> (
    None
):
    store, clock = MemoryStore(), FakeClock()
    config = {"cluster": {"address": "head:6379"}}
    made = replace(header(plan(stage("t")), "r2-1"), config=config)
    store.create(made, 0.0)
    fleet = made.plan.fleet
    unused = UnusedNodes(store, clock)
    assert unused.of("r2-1", "a") == {}
    store.drain_node(f"{fleet}/a", "h7", "new firmware")
    store.drain_node("elsewhere@other/a", "h8", "new firmware")
    store.drain_node("elsewhere@head/a", "h9", "new firmware")
    store.quarantine(f"{fleet}/a", "h9", "a chip broke", 60.0)
    clock.sleep(SECONDS_OF_A_LOOK)
    listed = unused.of("r2-1", "a")
    assert {name: node.until is None for name, node in listed.items()} == {"h7": True, "h9": True}
    assert unused.of("r2-1", "b") == {}
    assert unused.of("no such run", "a") == {}
