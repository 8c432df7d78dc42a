"""Work on a pool runs in the environment that the pool names, and knows its place."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.spec.environment_variables import OF_A_PLACE
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine, Succeeded
from tests.clusters import POOLS, begin, request
from tests.workers import worker

VARIABLE = "OF_THE_POOL"


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_started_by_the_interpreter_of_their_pool(
    ray_address: str, tmp_path: Path, workers: int
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n{VARIABLE}=yes exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    cluster = RayCluster(ray_address, worker)
    needs = Needs(workers=workers)
    for pool, expected in ((replace(POOLS["ascend"], python=str(python)), "yes"), ("ascend", "")):
        stage = f"environment-{workers}-{expected}"
        asked = request("tell_environment", stage, on=pool, needs=needs, names=[VARIABLE])
        attempt = begin(cluster, asked)
        assert isinstance(attempt.finish(60.0), Succeeded)
        lines: Any = attempt.of(LogLine)
        assert [json.loads(line.text)[VARIABLE] or "" for line in lines] == [expected] * workers


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_are_given_variables_secrets_and_their_place_as_torchrun_says_it(
    ray_address: str, workers: int
) -> None:
    names = [*OF_A_PLACE, "OF_THE_STAGE", "SECRET"]
    asked = request(
        "tell_environment", f"place-{workers}", needs=Needs(workers=workers), names=names
    )
    asked = replace(asked, env={"OF_THE_STAGE": "yes"}, secrets={"SECRET": "hidden"})
    cluster = RayCluster(ray_address, worker)
    attempt = begin(cluster, asked)
    assert isinstance(attempt.finish(60.0), Succeeded)
    lines: Any = attempt.of(LogLine)
    told = {line.rank: json.loads(line.text) for line in lines}
    assert [told[rank]["RANK"] for rank in range(workers)] == ["0", "1"][:workers]
    assert [told[rank]["LOCAL_RANK"] for rank in range(workers)] == ["0", "1"][:workers]
    one = told[workers - 1]
    assert one["WORLD_SIZE"] == one["LOCAL_WORLD_SIZE"] == str(workers)
    assert one["NODE_RANK"] == one["GROUP_RANK"] == "0"
    assert (one["OF_THE_STAGE"], one["SECRET"]) == ("yes", "***"), (
        "had, and masked in what is said"
    )
    assert len({told[rank]["MASTER_PORT"] for rank in told}) == 1
    assert "hidden" not in repr(asked)

    after = begin(cluster, request("tell_environment", f"after-{workers}", names=names))
    assert isinstance(after.finish(60.0), Succeeded)
    (line,) = after.of(LogLine)
    assert json.loads(line.text)["SECRET"] is None  # type: ignore[union-attr]
