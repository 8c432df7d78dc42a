"""A gateway on one host is found and asked from another, and two of them count together."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters import gateway_service
from orchestrator.core.endpoints.life import RevisionAdded, RevisionReady, TrafficMoved
from orchestrator.core.settings import GatewaySettings
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import Host, lacking, two_hosts

pytestmark = pytest.mark.hosts
ROOT = Path(__file__).parents[2]
PORT = 8000
SECONDS = 60.0


@dataclass
class Place:
    """Two hosts, and the home that they share."""

    first: Host
    second: Host
    home: Path
    key: str = ""

    def orchestrator(self, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "orchestrator", *words]
        return host.run(argv, self.env, self.home)

    @property
    def env(self) -> dict[str, str]:
        where = {"ORCHESTRATOR_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        return {**where, "ORCHESTRATOR_API_KEY": self.key}

    @contextmanager
    def gateway(self, host: Host, address: str) -> Iterator[None]:
        """Have a gateway on a host, listening at `address`."""
        settings = GatewaySettings(host=address, port=PORT)
        everywhere = address == "0.0.0.0"  # noqa: S104 - each host has its own then
        url = (
            f"http://{host.address}:{PORT}" if everywhere else gateway_service.url_of(settings, "")
        )
        words = ["-m", "orchestrator", "_gateway", gateway_service.dumped(settings), url, "c:1"]
        before = len(wiring.database(self.home).gateways())
        with self.running(host, *words):
            known = wiring.database(self.home).gateways
            assert wait(lambda: len(known()) > before, SECONDS, tick=0.2)
            yield

    @contextmanager
    def running(self, host: Host, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Have a program of Python run on a host."""
        argv = host.command(sys.executable, *words)
        env = {**os.environ, **self.env}  # noqa: TID251 - a test's own
        with subprocess.Popen(argv, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True) as found:
            try:
                yield found
            finally:
                found.terminate()
                found.wait(SECONDS)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Place]:
    """Both hosts have a server of their own at the same address: the endpoint's model."""
    why = lacking()
    if why:
        pytest.skip(why)
    home = tmp_path / ".orchestrator"
    with two_hosts() as (first, second), ExitStack() as stack:
        found = Place(first, second, home)
        echo = stack.enter_context(
            found.running(first, "-m", "tests.serving.echo_process", "0", "0.0.0.0")  # noqa: S104 - the other gateway asks it
        )
        assert echo.stdout is not None
        port = echo.stdout.readline().strip().rpartition(":")[2]
        url = f"http://{first.address}:{port}"
        store = wiring.database(home)
        added = RevisionAdded(1, outside=Outside(address=f"{url}/v1", model="echo"))
        events = [added, RevisionReady(1), TrafficMoved({1: 100}, "first")]
        store.follow(store.endpoint("echo"), events, 1.0)
        found.key = found.orchestrator(second, "keys", "add", "ann").stdout.strip()
        assert found.key, "who asks from another host needs one"
        yield found


@pytest.mark.timeout(300)
def test_who_asks_from_another_host_needs_a_key(pair: Place) -> None:
    with pair.gateway(pair.first, pair.first.address):
        pair.key = ""
        refused = pair.orchestrator(pair.second, "ask", "-e", "echo", "17")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: endpoint 'echo' refused the question: ")


@pytest.mark.timeout(300)
def test_a_gateway_of_one_host_is_asked_from_another_and_its_counts_are_known_there(
    pair: Place,
) -> None:
    with pair.gateway(pair.first, pair.first.address):
        listed = pair.orchestrator(pair.second, "endpoints").stdout
        assert f"OpenAI base URL: http://{pair.first.address}:{PORT}/v1" in listed
        for host in (pair.first, pair.second):
            asked = pair.orchestrator(host, "ask", "-e", "echo", "17 + 25 =")
            assert "17 + 25 =" in asked.stdout, asked.stderr
        traffic = wiring.traffic(pair.home)
        assert wait(lambda: traffic.figures("echo")["r1"].requests == 2, SECONDS, tick=0.2)


@pytest.mark.timeout(300)
def test_two_gateways_each_serve_their_host_and_a_rollout_sees_the_sum(pair: Place) -> None:
    with (
        pair.gateway(pair.first, "0.0.0.0"),  # noqa: S104 - what is tested
        pair.gateway(pair.second, pair.second.address),
    ):
        assert {one.host for one in wiring.database(pair.home).gateways()} == {"h0", "h1"}
        near = pair.orchestrator(pair.second, "endpoints").stdout
        assert f"http://{pair.second.address}:{PORT}/v1" in near, "each asks its own first"
        for host in (pair.first, pair.second):
            assert "17" in pair.orchestrator(host, "ask", "-e", "echo", "17").stdout
        traffic = wiring.traffic(pair.home)
        assert wait(lambda: traffic.figures("echo")["r1"].requests == 2, SECONDS, tick=0.2)
        assert len(wiring.database(pair.home).counts("echo")) == 2


@pytest.mark.timeout(300)
def test_a_gateway_on_loopback_is_not_taken_for_one_of_another_host(pair: Place) -> None:
    with pair.gateway(pair.first, "127.0.0.1"):
        assert "17" in pair.orchestrator(pair.first, "ask", "-e", "echo", "17").stdout
        said = pair.orchestrator(pair.second, "ask", "-e", "echo", "17").stderr
    assert f"the gateway at http://127.0.0.1:{PORT} answers its own host 'h0' alone" in said
