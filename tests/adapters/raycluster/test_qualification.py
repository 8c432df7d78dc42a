"""The qualification of a pool as a gang on the cluster: who lags behind is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.emulation import Emulation, Fault, FaultType
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, Message, Succeeded
from tests import workers
from tests.clusters import POOLS, begin, request
from tests.jobs.recipes import SMALL

# While each works by itself, which are steps 1 to 5; then collectives begin.
SLOW = Fault(what=FaultType.SLOW, at_step=1, steps=4, factor=40.0, rank=1)
LATE = Fault(what=FaultType.DELAY, at_step=8, seconds=1.0, rank=1)


@pytest.mark.ray
def test_a_node_whose_chips_were_exchanged_takes_no_work_until_it_is_qualified(
    ray_address: str, tmp_path: Path
) -> None:
    serials = tmp_path / "serials"
    serials.write_text("GPU-1\nGPU-2\n")
    chip = replace(POOLS["nvidia"].accelerator, identity=("cat", str(serials)))
    pool = replace(POOLS["nvidia"], accelerator=chip)
    cluster = RayCluster(ray_address, workers.worker)

    def attempt(stage: str, measured: tuple[str, ...], needs: Needs) -> Message:
        asked = replace(request("succeed", stage, on=pool, needs=needs), measured=measured)
        return begin(cluster, asked).finish()

    found = cluster.identities({"nvidia": pool})["nvidia"]
    [(node, identity)] = found.items()
    assert isinstance(attempt("measured", (identity,), Needs()), Succeeded)
    serials.write_text("GPU-1\nGPU-3\n")
    for stage, needs in (("one", Needs()), ("gang", Needs(workers=2))):
        ended = attempt(stage, (identity,), needs)
        assert isinstance(ended, Failed), ended
        failure = ended.failure
        assert (failure.kind, failure.node) == (FailureKind.UNQUALIFIED, node)
        assert failure.evidence.startswith(f"node {node!r} of pool 'nvidia' is not among those")
        assert "`orchestrator qualify nvidia`" in failure.evidence
    assert cluster.identities({"nvidia": pool})["nvidia"][node] != identity
    assert cluster.identities({"none": POOLS["ascend"]})["none"] != {}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(300)  # imports, mostly, which a busy machine stretches
def test_a_slow_chip_and_a_late_collective_are_found_and_their_worker_is_named(
    ray_address: str, tmp_path: Path
) -> None:
    cluster = RayCluster(ray_address, wiring.run_worker)
    pool = replace(POOLS["ascend"], emulation=Emulation(faults=(SLOW, LATE)))
    params = {"model": SMALL, "steps": 2, "soak_seconds": 0.0, "quick": True}
    asked = request(
        *("jobs.qualification.all_chips.qualify_gang", "gang"),
        on=pool,
        needs=Needs(workers=2),
        **params,
    )
    asked = replace(asked, packages=("jobs",), storage=(tmp_path / "store").as_uri())
    done = begin(cluster, asked).finish(200)
    assert isinstance(done, Succeeded), done
    assert done.artifact is not None
    folder = wiring.artifact_store(asked.storage).fetch(done.artifact)
    told = json.loads((folder / "report.json").read_text())["findings"]
    notes = {one["check"]: one["note"] for one in told if one["status"] == "limited"}
    assert notes["pace"].startswith("rank 1 is the slowest")
    assert notes["punctuality"].startswith("rank 1 is the slowest")
