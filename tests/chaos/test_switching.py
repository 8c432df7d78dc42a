"""A live endpoint moves between pools, and back, under load: how many requests fail.

By hand: `make chaos`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.supervisor.record import wait
from tests.chaos.clients import Load
from tests.conftest import Workplace

PORT = 18533
BASE = f"http://127.0.0.1:{PORT}/v1"
ROLLOUT = "pipeline.stages.serve.endpoint.rollout"
BROKEN = """
import asyncio

from jobs.engines.embedded import EmbeddedEngine


class Slow(EmbeddedEngine):
    async def generate(self, prompt, sampling):
        await asyncio.sleep(0.5)
        async for piece in super().generate(prompt, sampling):
            yield piece


class Broken(EmbeddedEngine):
    asked = 0

    async def generate(self, prompt, sampling):
        Broken.asked += 1
        if Broken.asked > 30:
            raise RuntimeError("the device is lost")
        async for piece in super().generate(prompt, sampling):
            yield piece
"""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def place(workplace: Workplace) -> Iterator[Workplace]:
    """A workplace whose endpoint `smoke` serves on pool `ascend`."""
    (workplace.folder / "worse.py").write_text(BROKEN)
    words = (f"gateway.port={PORT}", "jobs.packages=[jobs,worse]", "jobs.code=[.]")
    done = workplace.run("launch", "pipeline=smoke", *words, seconds=400)
    assert done.returncode == 0, done.stdout + done.stderr
    yield workplace
    workplace.run("down", "--yes")


def endpoint(place: Workplace) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(place.run("endpoints", "--json").stdout)
    return found[0]


def pool_of(place: Workplace) -> str:
    """Return the pool of the revision that has all traffic."""
    told = endpoint(place)
    (leading,) = told["shares"]
    return next(str(r["pool"]) for r in told["revisions"] if r["revision"] == leading)


def load() -> Load:
    return Load(BASE, "smoke")


def test_a_pool_that_does_not_qualify_is_not_switched_to(place: Workplace) -> None:
    planted = "++fleet.pools.nvidia.emulation.faults=[{what: raise, at_step: 2, text: XID 79}]"
    with load() as clients:
        done = place.run("switch", "smoke", "pool=nvidia", planted, seconds=300)
    print(f"\nrefused: {clients.line}\n{done.stderr.strip()}")
    assert done.returncode == 2
    assert "pool 'nvidia' was refused for serve by run qualify-nvidia" in done.stderr
    assert pool_of(place) == "ascend"
    assert clients.failures == []


def test_a_switch_there_and_back_fails_no_request(place: Workplace) -> None:
    with load() as clients:
        for pool in ("nvidia", "ascend"):
            done = place.run("switch", "smoke", f"pool={pool}", f"{ROLLOUT}.hold=3", seconds=300)
            assert done.returncode == 0, done.stdout + done.stderr
            assert pool_of(place) == pool
            assert f"Run qualify-{pool}-" in done.stdout, "no verdict on it held"
    print(f"\nswitch there and back: {clients.line}, versions {sorted(clients.versions)}")
    assert clients.failures == []
    assert len({version.partition("-")[0] for version in clients.versions}) == 3


@pytest.mark.parametrize("engine", ["worse.Slow", "worse.Broken", "worse.Missing"])
def test_a_rollout_that_fails_leaves_the_old_revision_all_traffic(
    place: Workplace, engine: str
) -> None:
    before = pool_of(place)
    words = (f"pipeline.stages.serve.endpoint.engine={engine}", f"{ROLLOUT}.hold=20")
    with load() as clients:
        done = place.run("switch", "smoke", "pool=nvidia", *words, seconds=300)
    print(f"\nrollout of {engine}: {clients.line}\n{done.stderr.strip()}")
    assert done.returncode != 0
    assert pool_of(place) == before
    if engine != "worse.Broken":  # its own answers fail, until they are noticed
        assert clients.failures == []


def test_a_rollback_fails_no_request(place: Workplace) -> None:
    done = place.run("deploy", endpoint(place)["revisions"][-1]["run"], "roles.serve=nvidia")
    assert done.returncode == 0, done.stdout + done.stderr
    new = endpoint(place)["revisions"][-1]["revision"]
    with load() as clients:
        assert place.run("traffic", "smoke", f"{new}=100").returncode == 0
        assert pool_of(place) == "nvidia"
        time.sleep(3.0)  # noqa: TID251 - a real load needs real time
        assert place.run("rollback", "smoke").returncode == 0
        assert pool_of(place) == "ascend"
        time.sleep(3.0)  # noqa: TID251 - as above
    assert place.run("undeploy", "smoke", new).returncode == 0, "others want its chip"
    print(f"\nrollback: {clients.line}")
    assert clients.failures == []


def test_replicas_are_killed_every_ten_seconds(place: Workplace) -> None:
    two = ("pipeline.stages.serve.endpoint.replicas=2", f"{ROLLOUT}.hold=1")
    done = place.run("switch", "smoke", "pool=nvidia", *two, seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = 0
    with load() as clients:
        for _ in range(6):
            time.sleep(10.0)  # noqa: TID251 - a real load needs real time
            kills += wait(lambda: kill_a_replica(place.folder), 60.0, tick=0.5)
    rate = len(clients.failures) / max(1, clients.answered + len(clients.failures))
    print(f"\n{kills} replicas killed: {clients.line}, {rate:.2%} failed")
    print("\n".join(sorted(set(clients.failures))[:5]))
    assert kills == 6
    assert rate < 0.05


def kill_a_replica(folder: Path) -> bool:
    """Kill a replica that serves from this home; return whether there was one."""
    mine = f"ServeReplica:{(folder / '.orchestrator' / 'id').read_text()}-smoke"
    for process in psutil.process_iter():
        try:
            if mine in " ".join(process.cmdline()):
                process.kill()
                return True
        except psutil.Error:
            continue
    return False
