"""Work on a pool runs in the environment that the pool names."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
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
