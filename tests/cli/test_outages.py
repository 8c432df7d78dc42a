"""What `endpoints` says after a crash, and what `down` forgets."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from orchestrator import supervisor, wiring
from orchestrator.adapters import gateway_service
from orchestrator.core.endpoints.gateway_entry import Gateway
from orchestrator.core.endpoints.life import RevisionAdded, RevisionReady, TrafficMoved
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.spec.outside_servers import Outside
from tests.build import deployment, plan, stage
from tests.conftest import Command
from tests.ports import free_address

SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


@pytest.fixture
def home(tmp_path: Path, within: Command) -> Path:
    """A home with an endpoint of ours and one outside; all that served them was killed."""
    at = tmp_path / ".orchestrator"
    at.mkdir()
    store = wiring.database(at)
    far = Outside(address="http://far/v1", model="llama")
    revisions = {
        "chat": RevisionAdded(1, deployment=deployment("chat")),
        "far": RevisionAdded(1, outside=far),
    }
    for name, added in revisions.items():
        events = [added, RevisionReady(1), TrafficMoved({1: 100}, "first")]
        store.follow(store.endpoint(name), events, 1.0)
    store.note_replicas("chat", 1, ["http://127.0.0.1:9"])
    return at


@pytest.fixture
def nobody() -> str:
    """An address at which nobody answers."""
    return free_address()


@pytest.fixture
def gateway(home: Path, nobody: str) -> Iterator[str]:
    """A gateway that runs, and serves from a cluster that is gone."""
    info = {"url": f"http://{nobody}", "cluster": nobody}
    process = supervisor.Process(name="server", argv=SLEEP)
    supervisor.start(home, gateway_service.SERVICE, [process], info=info)
    yield nobody
    supervisor.stop(home, gateway_service.SERVICE)


def told(within: Command) -> tuple[int, Mapping[str, dict[str, object]]]:
    done = within("endpoints", "--json")
    return done.returncode, {one["endpoint"]: one for one in json.loads(done.stdout)}


def test_an_endpoint_whose_cluster_and_gateway_were_killed_is_down(
    within: Command, home: Path
) -> None:
    code, found = told(within)
    why = "cluster and gateway are not running"
    assert code == 1
    assert found["chat"]["down"] == f"{why}; `orchestrator up` brings it back"
    (one,) = found["chat"]["revisions"]
    assert (one["state"], one["reason"], one["replicas"]) == ("down", why, [])
    assert found["far"]["down"] == found["chat"]["down"]
    done = within("endpoints")
    assert done.returncode == 1
    assert f"down: {why}; `orchestrator up` brings it back" in done.stdout
    assert "  down" in next(line for line in done.stdout.splitlines() if line.startswith("chat"))


def test_an_endpoint_whose_cluster_alone_is_gone_is_down_and_one_outside_is_not(
    within: Command, home: Path, gateway: str
) -> None:
    code, found = told(within)
    assert code == 1
    assert str(found["chat"]["down"]).startswith("the cluster is not running; ")
    assert found["far"]["down"] is None
    assert [one["state"] for one in found["far"]["revisions"]] == ["ready"]


def test_an_endpoint_is_ready_while_its_cluster_and_its_gateway_run(
    within: Command, home: Path, gateway: str
) -> None:
    host, _, port = gateway.rpartition(":")
    with socket.create_server((host, int(port))):
        code, found = told(within)
    assert code == 0
    (one,) = found["chat"]["revisions"]
    assert (one["state"], one["replicas"]) == ("ready", ["http://127.0.0.1:9"])


def test_an_endpoint_whose_replicas_are_started_again_is_not_ready_yet(
    within: Command, home: Path, gateway: str
) -> None:
    host, _, port = gateway.rpartition(":")
    wiring.database(home).note_replicas("chat", 1, [])
    with socket.create_server((host, int(port))):
        code, found = told(within)
    assert (code, found["chat"]["down"]) == (0, None)
    assert [one["state"] for one in found["chat"]["revisions"]] == ["starting"]


def test_a_home_that_shares_its_database_does_not_judge_for_the_others(
    within: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", f"sqlite:///{home}/events.db")
    assert told(within)[1]["chat"]["down"] == "no gateway runs; `orchestrator up` brings it back"
    assert "No OpenAI base URL: no gateway runs" in within("endpoints").stdout
    far = Gateway(name="a", url="http://10.0.0.9:8000", host="far", pid=1)
    wiring.database(home).note_gateway(far)
    code, found = told(within)
    assert (code, found["chat"]["down"]) == (0, None)
    assert "OpenAI base URL: http://10.0.0.9:8000/v1" in within("endpoints").stdout


def test_ask_finds_a_gateway_of_another_host_and_says_when_that_is_on_loopback(
    within: Command, home: Path
) -> None:
    assert (
        "no gateway runs; `orchestrator up` starts one" in within("ask", "hi", "-e", "chat").stderr
    )
    near = Gateway(name="a", url="http://127.0.0.1:9", host="far/boot net", pid=1)
    wiring.database(home).note_gateway(near)
    said = within("ask", "hi", "-e", "chat").stderr
    assert "the gateway at http://127.0.0.1:9 answers its own host 'far' alone" in said
    assert "set gateway.host=0.0.0.0 there, or gateway.url to what others reach it by" in said
    namesake = Gateway(name="c", url="http://127.0.0.1:9", host=f"{wiring.host()}/b n", pid=1)
    wiring.database(home).note_gateway(namesake)
    assert "answers its own host" in within("ask", "hi", "-e", "chat").stderr
    here = Gateway(name="b", url="http://127.0.0.1:9", host=wiring.machine(), pid=1)
    wiring.database(home).note_gateway(here)
    said = within("ask", "hi", "-e", "chat").stderr
    assert "endpoint 'chat' does not answer at http://127.0.0.1:9/chat/v1" in said


def test_what_is_down_is_neither_forgotten_nor_retired_by_a_second_down(
    within: Command, home: Path
) -> None:
    before = wiring.database(home).endpoints()
    assert "Nothing was running." in within("down").stdout
    assert wiring.database(home).endpoints() == before


def test_a_cluster_of_ours_that_is_stopped_takes_its_own_endpoints_alone(home: Path) -> None:
    events, store = wiring.database(home), wiring.database(home)
    far = RunHeader(
        run="far-1", plan=plan(stage("s")), config={"cluster": {"address": "head:6379"}}
    )
    events.create(far, 1.0)
    added = RevisionAdded(1, deployment=deployment("theirs", run="far-1"))
    store.follow(store.endpoint("theirs"), [added, RevisionReady(1)], 1.0)
    wiring.forget_endpoints(home, "stopped")
    live = {name for name, life in store.endpoints().items() if life.live}
    assert live == {"far", "theirs"}


def test_what_brings_an_endpoint_back_names_the_cluster_that_it_is_on(
    within: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"cluster": {"address": "h0:6379"}}
    run = deployment("chat").run
    wiring.database(home).create(RunHeader(run=run, plan=plan(stage("s")), config=config), 1.0)
    command = "RAY_ADDRESS=h0:6379 orchestrator up"
    assert f"no gateway runs; `{command}` starts one" in within("ask", "hi", "-e", "chat").stderr
    assert str(told(within)[1]["chat"]["down"]).endswith(f"; `{command}` brings it back")
    monkeypatch.setenv("RAY_ADDRESS", "h0:6379")
    assert "`orchestrator up` starts one" in within("ask", "hi", "-e", "chat").stderr
