"""A node that runs another orchestrator, or a gang with two versions of torch, does no work."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayTaskError

import orchestrator
from orchestrator.adapters.raycluster import ray_errors
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.adapters.raycluster.gang import Gang
from orchestrator.adapters.raycluster.ranking import WorkerPlace
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed
from tests.clusters import POOLS, begin, request
from tests.workers import worker

ROOT = Path(orchestrator.__file__).parents[1]
SECONDS = 90.0


def pool(folder: Path, first: Path) -> Pool:
    """Return a pool whose nodes have the orchestrator in `first`."""
    # Ray puts the controller's own folder before what a node has, where that is there too.
    lines = f"import sys; sys.path.insert(0, {str(first)!r}); import orchestrator"
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(lines)
    python = folder / "python"
    path = f"{folder / 'site'}:{ROOT}"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return replace(POOLS["ascend"], python=str(python))


def failed(address: str, on: Pool, workers: int) -> Failure:
    cluster = RayCluster(address, worker)
    asked = request("succeed", f"software-{on.python[-40:]}", on=on, needs=Needs(workers=workers))
    outcome = begin(cluster, asked).finish(SECONDS)
    cluster.close()
    assert isinstance(outcome, Failed), outcome
    return outcome.failure


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_a_node_with_another_orchestrator_is_named_with_both_versions(
    ray_address: str, tmp_path: Path, workers: int
) -> None:
    old = tmp_path / "old" / "orchestrator"
    shutil.copytree(ROOT / "orchestrator", old, ignore=shutil.ignore_patterns("__pycache__"))
    face = (old / "__init__.py").read_text()
    (old / "__init__.py").write_text(face.replace(orchestrator.__version__, "0.0.9"))
    with (old / "messages.py").open("a") as messages:
        messages.write("AttemptRequest.__doc__ = 'of another time'")
    failure = failed(ray_address, pool(tmp_path, old.parent), workers)
    assert failure.kind is FailureKind.SET_UP
    assert failure.evidence.startswith("node 'ascend-0' runs orchestrator '0.0.9 (")
    assert f" and its controller '{orchestrator.__version__} (" in failure.evidence
    assert (failure.pool, failure.node) == ("ascend", "ascend-0")


@pytest.mark.ray
def test_a_node_without_what_is_to_be_called_there_is_told(
    ray_address: str, tmp_path: Path
) -> None:
    adapters = tmp_path / "none" / "orchestrator" / "adapters"
    adapters.mkdir(parents=True)
    (adapters.parent / "__init__.py").touch()
    (adapters / "__init__.py").write_text("raise ModuleNotFoundError('No module named x')")
    failure = failed(ray_address, pool(tmp_path, tmp_path / "none"), 1)
    assert failure.kind is FailureKind.SET_UP
    assert failure.evidence.startswith("node at '")
    assert f"' has not the orchestrator {orchestrator.__version__} (" in failure.evidence
    why = ") of its controller: ModuleNotFoundError: No module named x; install the same there"
    assert failure.evidence.endswith(why)


def test_a_node_whose_orchestrator_takes_other_arguments_is_told() -> None:
    raised = TypeError("run_task() missing 1 required positional argument: 'rendezvous'")
    error = RayTaskError("run_task", "ray::run_task() (pid=7, ip=10.1.0.3)\nTraceback", raised)
    failure = ray_errors.failure(error, request("succeed", "s"), rank=0, node=None)
    assert failure.kind is FailureKind.SET_UP
    assert failure.evidence.startswith("node at '10.1.0.3' has not the orchestrator")


def test_a_gang_with_two_versions_of_torch_does_not_begin() -> None:
    def unfit(*places: WorkerPlace) -> tuple[int, Failure] | None:
        nodes = SimpleNamespace(name=lambda node: f"node-{node}")
        gang: Any = SimpleNamespace(_request=request("succeed", "s"), _place=SimpleNamespace())
        gang._place.nodes = nodes
        return Gang._unfit(gang, places)

    torch = {"torch": "2.8.0"}
    one, like = WorkerPlace("a", software=torch), WorkerPlace("b", software=torch)
    assert unfit(one, like) is None
    found = unfit(one, like, WorkerPlace("c", software={"torch": "2.7.0"}))
    assert found is not None
    number, failure = found
    assert (number, failure.kind, failure.node) == (2, FailureKind.SET_UP, "node-c")
    assert failure.evidence == (
        "workers of one gang run torch '2.8.0' and '2.7.0' on nodes 'node-a' and 'node-c'; "
        "install the same on both"
    )
    found = unfit(WorkerPlace("c", unfit="other"), one, like)
    assert found is not None
    assert (found[0], found[1].evidence, found[1].node) == (0, "other", "node-c")
