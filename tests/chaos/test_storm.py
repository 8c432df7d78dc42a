"""Whatever is killed, a run ends as an undisturbed one does, and nothing is left behind.

By hand: `make chaos`. CHAOS_SEED and CHAOS_FAULTS change the storm.
"""

from __future__ import annotations

import json
import os
import urllib.request
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from orchestrator.adapters import mlflow_server
from orchestrator.core.runs.run import StageRun
from orchestrator.core.runs.states import RunState
from tests.chaos.storm import Storm, left_running
from tests.conftest import Workplace

SEED = int(os.environ.get("CHAOS_SEED", "1"))  # noqa: TID251 - a test's own
FAULTS = int(os.environ.get("CHAOS_FAULTS", "100"))  # noqa: TID251 - as above
SHARES = {
    "kill worker": 44,
    "stop worker": 14,
    "kill controller": 16,
    "kill MLflow": 10,
    "stop MLflow": 10,
    "kill raylet": 3,
    "stop raylet": 3,
}
# The first pool loses its nodes soon; the second then loses all others that get lost.
NODES = ("fleet.pools.nvidia.nodes=2", "fleet.pools.ascend.nodes=8")
PACE = 0.2  # seconds of a step in the storm
STEPS_A_FAULT = 30
SPACING = 180.0  # seconds between two faults, for which the share of useful time is told


@pytest.fixture
def place(tmp_path: Path, environment: dict[str, str]):
    made = Workplace(tmp_path, environment)
    yield made
    made.run("down", "--yes")


def undisturbed(place: Workplace, steps: int) -> tuple[Mapping[str, float], float]:
    """Return the metrics of the training stage of a run that nothing hits, and its seconds."""
    storm = Storm(place, seed=0, steps=steps)
    storm.launch("roles.train=nvidia")
    assert storm.finish(1800.0) == 0
    return dict(storm.stage().metrics), storm.seconds


def still_running_in_mlflow(home: Path) -> list[str]:
    """Return the names of MLflow runs that are RUNNING."""
    uri = mlflow_server.find(home) or mlflow_server.up(home)
    body = {"experiment_ids": ["1"], "filter": "attributes.status = 'RUNNING'"}
    request = urllib.request.Request(  # noqa: S310 - our own server
        f"{uri}/api/2.0/mlflow/runs/search",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310 - as above
        return [one["info"]["run_name"] for one in json.load(answer).get("runs", [])]


def check_end(storm: Storm, expected: Mapping[str, float]) -> None:
    assert storm.told().state is RunState.SUCCEEDED
    for key in ("train/loss", "validation/loss"):
        assert storm.stage().metrics[key] == pytest.approx(expected[key], rel=1e-6)
    pools = json.loads(storm.place.run("pools", "--json").stdout)
    assert all(one["free"] in {one["devices"], None} for one in pools), pools
    assert still_running_in_mlflow(storm.home) == []
    assert storm.place.run("down").returncode == 0
    assert left_running(storm.place.folder) == []


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_a_run_weathers_a_hundred_faults(place: Workplace) -> None:
    faults = [kind for kind, share in SHARES.items() for _ in range(-(-share * FAULTS // 100))]
    steps = STEPS_A_FAULT * len(faults)
    expected, calm = undisturbed(place, steps)
    storm = Storm(place, seed=SEED, steps=steps, pace=PACE)
    storm.launch("roles.train=nvidia", *NODES)
    storm.rage(faults)
    assert storm.finish(1800.0) == 0, storm.told().reason
    report(storm, calm + steps * PACE)
    assert len(storm.faults) >= 0.95 * len(faults), "the run was over before the storm"
    assert max(losses(storm.stage()), default=0) <= storm.every + 1  # one is being saved
    check_end(storm, expected)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["kill raylet", "stop raylet"])
def test_a_run_weathers_the_loss_of_a_node(place: Workplace, kind: str) -> None:
    expected, _ = undisturbed(place, 100)
    for seed in range(3):
        storm = Storm(place, seed=seed, steps=100, pace=PACE)
        storm.launch("roles.train=nvidia")
        storm.rage([kind])
        assert storm.finish(300.0) == 0
        stage = storm.stage()
        assert (stage.pool, stage.failovers) == ("ascend", 1)
        check_end(storm, expected)


def losses(stage: StageRun) -> list[int]:
    """Return the steps that each failed attempt had done and the next one to begin did again."""
    began = [
        one
        for one in stage.attempts
        if one.resumed is not None
        or one.saved
        or one.failure is None
        or one.failure.step is not None
    ]
    return [
        max(0, failed.failure.step - (after.resumed or 0))
        for failed, after in pairwise(began)
        if failed.failure and failed.failure.step is not None
    ]


def report(storm: Storm, calm: float) -> None:
    faults, stage = len(storm.faults), storm.stage()
    each = (storm.seconds - calm) / max(faults, 1)
    print(f"\nseed {storm.seed}, {faults} faults: {dict(Counter(storm.faults))}")
    print(f"undisturbed {calm:.0f} s, in the storm {storm.seconds:.0f} s, {each:.1f} s a fault")
    print(f"attempts {len(stage.attempts)}, steps done twice {stage.lost_steps}", end=", ")
    print(
        f"at most {max(losses(stage), default=0)} by one fault, {storm.every} between checkpoints"
    )
    print(f"useful time at a fault each {SPACING:.0f} s (ETTR): {1 - each / SPACING:.1%}")
