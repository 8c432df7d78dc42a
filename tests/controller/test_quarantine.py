"""A node with a broken chip is avoided by all runs, for a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.controller.attempt_requests import AttemptDefaults, attempt_request
from orchestrator.controller.quarantine import quarantine_node
from orchestrator.controller.reuse import never_reuse
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.decide import Start
from orchestrator.core.runs.fleet_on_cluster import FleetOnCluster
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.recovery import Outlook
from orchestrator.core.runs.states import AttemptFailed
from orchestrator.core.settings import AttemptSettings
from tests.build import failure, header, plan, stage
from tests.memory import MemoryStore

DEFAULTS = AttemptDefaults(packages=(), code=(), storage="", reuse_key=never_reuse)
BROKEN = failure(FailureKind.DEVICE_LOST, "Xid 79:  GPU has\nfallen off the bus")


def noted(shown: Failure, defaults: AttemptDefaults = DEFAULTS) -> list[tuple[str, str, str]]:
    store = MemoryStore()
    run = begin(header(plan(stage("s"))))
    quarantine_node(store, run, AttemptFailed("s", 2, shown), defaults)
    return [(unused.pool, unused.node, unused.reason) for unused in store.unused_nodes()]


def test_a_node_on_which_a_chip_surely_broke_is_put_in_quarantine() -> None:
    reason = "device_lost in run/s/2: Xid 79: GPU has fallen off the bus"
    assert noted(BROKEN) == [("test/a", "n1", reason)]


def test_the_cluster_stands_with_it_so_that_other_fleets_know_it_too() -> None:
    store = MemoryStore()
    named = replace(
        header(plan(stage("s"))), config={"cluster": {"address": "ray://h0.lab:10001"}}
    )
    quarantine_node(store, begin(named), AttemptFailed("s", 2, BROKEN), DEFAULTS)
    (unused,) = store.unused_nodes()
    assert FleetOnCluster("team", "h0.lab").pool_of(unused.pool) == "a"
    assert FleetOnCluster("team", "h1.lab").pool_of(unused.pool) is None


@pytest.mark.parametrize(
    "shown",
    [
        replace(BROKEN, certain=False),
        replace(BROKEN, node=None),
        replace(BROKEN, kind=FailureKind.NODE_LOST),
        replace(BROKEN, kind=FailureKind.UNQUALIFIED),
    ],
)
def test_what_is_in_doubt_or_no_matter_of_a_chip_puts_no_node_there(shown: Failure) -> None:
    assert noted(shown) == []


def test_a_run_may_leave_it_to_each_stage() -> None:
    waits = AttemptSettings(quarantine=0.0)
    assert noted(BROKEN, replace(DEFAULTS, waits=waits)) == []


def test_an_attempt_avoids_what_others_found_broken_and_what_is_drained() -> None:
    run = begin(header(plan(stage("s"), pools=("a", "b"))))
    run = replace(run, stages={"s": replace(run.stages["s"], avoid=("n1", "n2"))})
    outlook = Outlook(
        quarantined={"a": ("n2", "n3"), "b": ("m1",)}, drained_nodes={"a": {"n4": "repair"}}
    )
    here = attempt_request(run, DEFAULTS, Start("s", 1, "a"), {}, outlook)
    assert (here.avoid, here.drained) == (("n1", "n2", "n3"), ("n4",))
    elsewhere = attempt_request(run, DEFAULTS, Start("s", 1, "b"), {}, outlook)
    assert (elsewhere.avoid, elsewhere.drained) == (("m1",), ())
