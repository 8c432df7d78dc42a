"""What the workers of a controller do that is frozen or cut off is ended by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.raycluster import access
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.ports import Worker
from orchestrator.supervisor.record import birth, wait
from tests.clusters import POOLS
from tests.workers import worker

pytestmark = pytest.mark.ray
FIRST_CONTROLLER = """
import sys, threading
from dataclasses import replace
import ray
import tests.workers
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine
from tests.clusters import POOLS, begin, request
address, until, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
cluster = RayCluster(address, tests.workers.worker)
ray.cloudpickle.register_pickle_by_value(tests.workers)
asked = request("hold", "taken", needs=Needs(workers=workers), until=until)
cluster.prepare(replace(asked, attempt=2, pool=POOLS["ascend"]))
attempt = begin(cluster, asked)
attempt.until(lambda: len(attempt.of(LogLine)) == workers)
attempt.until(lambda: cluster.pools(POOLS)["ascend"].free < 2)
print(*(line.text for line in attempt.of(LogLine)), flush=True)
threading.Event().wait()
"""


@pytest.fixture
def run() -> Worker:
    return worker


@pytest.mark.parametrize("workers", [1, 2])
def test_an_attempt_of_a_frozen_controller_is_ended_by_its_key(
    cluster: RayCluster,
    ray_home: Path,
    ray_address: str,
    environment: dict[str, str],
    tmp_path: Path,
    workers: int,
) -> None:
    token = access.managed_environment(ray_home / "services" / "ray.token")
    until = str(tmp_path / "never")
    first = subprocess.Popen(
        [sys.executable, "-c", FIRST_CONTROLLER, ray_address, until, str(workers)],
        env={**environment, **token},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout is not None
        pids = [int(word) for word in first.stdout.readline().split()]
        assert len(pids) == workers
        os.kill(first.pid, signal.SIGSTOP)
        assert all(birth(pid) for pid in pids)
        cluster.cancel("run/taken/2")
        assert wait(lambda: cluster.pools(POOLS)["nvidia"].free == 2 - workers, 10.0)
        cluster.cancel("run/taken/1")

        assert wait(lambda: not any(birth(pid) for pid in pids), 20.0)
        assert wait(lambda: cluster.pools(POOLS)["nvidia"].free == 2, 10.0)
        assert wait(lambda: cluster.pools(POOLS)["ascend"].free == 2, 10.0), "who stood by went"
    finally:
        first.kill()
        first.wait(10.0)
        assert first.stdout is not None
        first.stdout.close()
