"""A pipeline rehearsed on another maker's emulated chip: it runs there, and breaks there."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(420)]
FLEET = ("pipeline=smoke", "fleet=rehearsal", "roles.train=ascend", "tracking=none")
PORT = "gateway.port=18477"
FAULT = "{what: raise, signature: hccl_timeout, at_step: 4, rank: 1, stages: [pretrain]}"


def newest(home: Any) -> dict[str, Any]:
    run: dict[str, Any] = json.loads(home.run("status", "--json").stdout)[0]
    return run


def test_a_broken_link_moves_training_to_the_other_makers_pool(workplace: Any) -> None:
    faults = f"fleet.pools.ascend.emulation.faults=[{FAULT}]"
    # A pool that nothing needs takes its time to start.
    pools = ("~fleet.pools.cambricon", "~fleet.pools.moore")
    stages = [f"~pipeline.stages.{name}" for name in ("evaluate", "export", "serve")]
    done = workplace.run("launch", *FLEET, faults, *pools, *stages, seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    run = newest(workplace)
    stage = next(one for one in run["stages"] if one["stage"] == "pretrain")
    assert (run["state"], stage["pool"], stage["attempts"]) == ("succeeded", "nvidia", 2)
    assert "interconnect" in done.stdout


@pytest.fixture(scope="module")
def rehearsed(workplace: Any) -> Any:
    """A finished launch that trains and serves on the emulated Ascend."""
    done = workplace.run("launch", *FLEET, PORT, seconds=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(emulated: npu on CPU)" in done.stdout
    return workplace


@pytest.mark.chaos  # of its length: by hand
def test_a_pipeline_trains_evaluates_and_serves_on_the_emulated_chip(rehearsed: Any) -> None:
    run = newest(rehearsed)
    pools = {stage["stage"]: stage["pool"] for stage in run["stages"]}
    assert run["state"] == "succeeded"
    assert [pools[stage] for stage in ("pretrain", "evaluate", "serve")] == ["ascend"] * 3
    assert rehearsed.run("ask", "2 + 2 =").returncode == 0


@pytest.mark.chaos  # of its length: by hand
def test_the_log_warns_of_operators_that_the_maker_leaves_to_the_host(rehearsed: Any) -> None:
    told = rehearsed.run("logs", newest(rehearsed)["run"], "evaluate").stdout
    assert "'aten::isin.Tensor_Tensor_out' is not currently supported on the NPU backend" in told
