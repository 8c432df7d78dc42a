"""An endpoint follows its load, rests, outlives its pool and its cluster's head.

By hand: `make chaos`.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from orchestrator import supervisor
from orchestrator.supervisor.record import wait
from tests.chaos.clients import Load
from tests.conftest import Workplace

PORT = 18544
BASE = f"http://127.0.0.1:{PORT}/v1"
ENDPOINT = "pipeline.stages.serve.endpoint"
BY_REQUESTS = (f"{ENDPOINT}.target_requests=2",)
BY_TOKENS = (f"{ENDPOINT}.target_requests=1000", f"{ENDPOINT}.target_tokens=40")

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]


@pytest.fixture
def place(tmp_path: Path, environment: dict[str, str]) -> Iterator[Workplace]:
    """A home of its own: the revisions of an endpoint count on from one launch to the next."""
    workplace = Workplace(tmp_path, environment)
    yield workplace
    workplace.run("down", "--yes")


def launch(place: Workplace, *words: str) -> None:
    done = place.run("launch", "pipeline=smoke", f"gateway.port={PORT}", *words, seconds=400)
    assert done.returncode == 0, done.stdout + done.stderr


def leading(place: Workplace) -> dict[str, Any]:
    """Return what `endpoints` tells of the revision that has all traffic."""
    (told,) = json.loads(place.run("endpoints", "--json").stdout)
    (number,) = told["shares"]
    return next(dict(one) for one in told["revisions"] if one["revision"] == number)


def replicas(place: Workplace) -> int:
    return len(leading(place)["replicas"])


@pytest.mark.parametrize("target", [BY_REQUESTS, BY_TOKENS], ids=["requests", "tokens"])
def test_replicas_follow_the_load(place: Workplace, target: tuple[str, ...]) -> None:
    bounds = f"{ENDPOINT}.max_replicas=1", f"{ENDPOINT}.scale.ascend.max_replicas=2"
    launch(place, *bounds, *target)
    assert replicas(place) == 1
    began = time.monotonic()
    with Load(BASE, "smoke") as clients:
        assert wait(lambda: replicas(place) == 2, 120.0, tick=1.0)
        grown = time.monotonic() - began
        time.sleep(10.0)  # noqa: TID251 - a real load needs real time
    began = time.monotonic()
    assert wait(lambda: replicas(place) == 1, 240.0, tick=1.0)
    shrunk = time.monotonic() - began
    print(f"\ntwo replicas after {grown:.0f} s of load, one {shrunk:.0f} s after: {clients.line}")
    assert clients.failures == []


def test_another_pool_helps_while_requests_find_no_room(place: Workplace) -> None:
    few = (f"{ENDPOINT}.concurrency=1", f"{ENDPOINT}.overflow=[nvidia]")
    launch(place, *few, "fleet.pools.nvidia.price_per_hour=2.5")
    leads = leading(place)["revision"]
    began = time.monotonic()
    with Load(BASE, "smoke") as clients:
        assert wait(lambda: helper(place).get("requests", 0) > 100, 180.0, tick=1.0)
        helped = time.monotonic() - began
    (told,) = json.loads(place.run("endpoints", "--json").stdout)
    assert told["shares"] == {leads: 100}
    assert (
        told["moves"][-1]["reason"] == f"overflow to {told['overflow']} on nvidia, $2.50 an hour"
    )
    assert "0 % overflow" in place.run("endpoints").stdout
    began = time.monotonic()
    assert wait(lambda: not helper(place), 240.0, tick=1.0)
    gone = time.monotonic() - began
    print(f"\nhelp answered 100 after {helped:.0f} s, went {gone:.0f} s after: {clients.line}")
    assert clients.failures == []


def helper(place: Workplace) -> dict[str, Any]:
    """Return what `endpoints` tells of the overflow revision; nothing where there is none."""
    (told,) = json.loads(place.run("endpoints", "--json").stdout)
    return next((dict(r) for r in told["revisions"] if r["revision"] == told["overflow"]), {})


def test_an_endpoint_rests_and_is_woken_by_a_request(place: Workplace) -> None:
    launch(place, f"{ENDPOINT}.idle=10")
    assert wait(lambda: leading(place)["state"] == "resting", 60.0, tick=1.0)
    assert replicas(place) == 0
    with openai.OpenAI(base_url=BASE, api_key="none", max_retries=0, timeout=120.0) as client:
        began = time.monotonic()
        answer = client.completions.create(model="smoke", prompt="17 + 25 =", max_tokens=4)
        woken = time.monotonic() - began
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1
        began = time.monotonic()
        client.completions.create(model="smoke", prompt="17 + 25 =", max_tokens=4)
        awake = time.monotonic() - began
    assert wait(lambda: leading(place)["state"] == "resting", 60.0, tick=1.0), "and again"
    print(f"\nthe first answer after a rest took {woken:.1f} s, the next {awake:.2f} s")


def test_an_endpoint_whose_pool_is_lost_moves_to_the_next(place: Workplace) -> None:
    launch(place)
    assert leading(place)["pool"] == "ascend"
    with Load(BASE, "smoke", connections=2) as clients:
        began = time.monotonic()
        for raylet in raylets(place, "ascend"):
            raylet.send_signal(signal.SIGKILL)
        assert wait(lambda: leading(place)["pool"] == "nvidia", 240.0, tick=1.0)
        moved = time.monotonic() - began
        before = clients.answered
        assert wait(lambda: clients.answered > before + 10, 60.0)
    print(f"\nserved by the other pool {moved:.0f} s after its own was lost: {clients.line}")


def test_an_endpoint_comes_back_after_its_head(place: Workplace) -> None:
    launch(place)
    cluster = supervisor.find(place.folder / ".orchestrator", "ray")
    assert cluster is not None
    began = time.monotonic()
    for process in psutil.Process(cluster.pid).children(recursive=True):
        if "gcs_server" in process.name():
            process.kill()
    with Load(BASE, "smoke", connections=1) as clients:
        before = time.monotonic()
        time.sleep(5.0)  # noqa: TID251 - as above
        print(f"\nafter the head was killed: {clients.line}")
        assert place.run("up", f"gateway.port={PORT}").returncode == 0
        at = clients.answered
        assert wait(lambda: clients.answered > at + 5, 240.0, tick=0.5)
        back = time.monotonic() - before
    print(f"answers again {back:.0f} s after `up`, {time.monotonic() - began:.0f} s in all")


def raylets(place: Workplace, pool: str) -> list[psutil.Process]:
    """Return the raylets whose nodes belong to `pool`."""
    cluster = supervisor.find(place.folder / ".orchestrator", "ray")
    assert cluster is not None
    family = psutil.Process(cluster.pid).children(recursive=True)
    return [p for p in family if "raylet" in p.name() and f"/{pool}-" in " ".join(p.cmdline())]


def test_an_endpoint_takes_other_weights_under_eight_streams_and_keeps_them_where_it_goes(
    place: Workplace,
) -> None:
    launch(place)
    beside = ("roles.serve=nvidia", f"{ENDPOINT}.rollout.steps=[]")
    launch(place, "pipeline.stages.pretrain.params.steps=9", *beside)  # version 2 of the model
    assert place.run("undeploy", "smoke", "r2").returncode == 0
    with Load(BASE, "smoke", connections=8) as clients:
        assert wait(lambda: clients.answered > 50, 60.0)
        began = time.monotonic()
        done = place.run("update", "smoke", "smoke", "2")
        took = time.monotonic() - began
        assert done.stdout == "smoke.r1 serves smoke/2 (replicas: 1).\n", done.stderr
        assert wait(lambda: "smoke/2" in clients.versions, 60.0)
        first = set(clients.versions)
        clients.versions.clear()
        time.sleep(1.0)  # noqa: TID251 - answers that began before have ended
        clients.versions.clear()
        done = place.run("switch", "smoke", "pool=nvidia", "--no-qualify", seconds=300)
        assert done.returncode == 0, done.stdout + done.stderr
        assert leading(place)["pool"] == "nvidia"
        at = clients.answered
        assert wait(lambda: clients.answered > at + 50, 60.0)
    print(f"\nupdated in {took:.1f} s: {clients.line}, versions {sorted(first)}")
    assert clients.failures == []
    assert len(first) == 2
    assert clients.versions == {"smoke/2"}, "the new pool serves what was put there"
