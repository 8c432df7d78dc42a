"""Fleets of one cluster have the same nodes, those of another cluster have others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.runs.fleet_on_cluster import (
    HOME,
    HOST,
    FleetOnCluster,
    cluster_identity,
    fleet_on_cluster,
)
from tests.build import header, plan, stage

HERE = FleetOnCluster("lab", "head")


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("lab@head/a", "a"),
        ("team@head/a", "a"),
        ("lab@other/a", "a"),  # a fleet is known by its name wherever its head is called otherwise
        ("lab/a", "a"),
        ("a", "a"),
        ("team@other/a", None),
        ("team/a", None),
    ],
)
def test_a_pool_is_that_of_its_fleet_or_of_its_cluster(name: str, pool: str | None) -> None:
    assert HERE.pool_of(name) == pool


def test_fleets_whose_clusters_nobody_knows_share_no_nodes() -> None:
    assert FleetOnCluster("team").pool_of(FleetOnCluster("lab").name_of("a")) is None


@pytest.mark.parametrize(
    ("address", "identity"),
    [
        ("head:6379", "head"),
        ("http://HEAD:8265", "head"),
        ("ray://10.0.0.9:10001", "10.0.0.9"),
        ("127.0.0.1:6379", "h1"),
        ("", "home-ab12"),
    ],
)
def test_a_cluster_is_known_by_the_host_of_its_head(address: str, identity: str) -> None:
    assert cluster_identity(address, "h1", "ab12") == identity
    tags = {HOST: "h1", HOME: "ab12"}
    run = replace(header(plan(stage("s"))), config={"cluster": {"address": address}}, tags=tags)
    assert fleet_on_cluster(run) == FleetOnCluster("test", identity)


def test_of_a_run_that_says_nothing_the_cluster_is_not_known() -> None:
    assert fleet_on_cluster(header(plan(stage("s")))) == FleetOnCluster("test")
