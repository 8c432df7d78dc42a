"""A gateway on one host is found and asked from another, and two of them count together."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters import gateway_service
from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.gateway_client import GatewayTraffic
from orchestrator.core.endpoints.life import RevisionAdded, RevisionReady, TrafficMoved
from orchestrator.core.settings import GatewaySettings
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import Host, lacking, several_hosts
from tests.hosts.services import Servers, from_here, services_lacking

pytestmark = pytest.mark.hosts
PORT, MODELS = 8000, 9100
SECONDS = 60.0


@dataclass
class TwoHosts:
    """Two hosts with homes of their own, and the database that they share."""

    first: Host
    second: Host
    store: SqlDatabase

    def orchestrator(
        self, host: Host, *words: str, key: bool = True
    ) -> subprocess.CompletedProcess[str]:
        without = {} if key else {"ORCHESTRATOR_API_KEY": ""}
        return host.run(sys.executable, "-m", "orchestrator", *words, **without)

    def counted(self) -> int:
        """Return how many requests all gateways have counted."""
        figures = GatewayTraffic(self.store).figures("echo")
        return figures["r1"].requests if "r1" in figures else 0

    @contextmanager
    def gateway(self, host: Host, address: str) -> Iterator[None]:
        """Have a gateway on a host, listening at `address`."""
        settings = GatewaySettings(host=address, port=PORT)
        everywhere = address == "0.0.0.0"  # noqa: S104 - each host has its own then
        own = f"http://{host.address}:{PORT}"
        url = own if everywhere else gateway_service.url_of(settings, "")
        words = ("-m", "orchestrator", "_gateway", gateway_service.dumped(settings), url, "c:1")
        before = len(self.store.gateways())
        process = host.start(sys.executable, *words, name="gateway")
        try:
            known = wait(lambda: len(self.store.gateways()) > before, SECONDS, tick=0.2)
            assert known, process.printed()
            yield
        finally:
            process.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[TwoHosts]:
    """A third host has the database, and the server that is the endpoint's model."""
    if why := lacking() or services_lacking():
        pytest.skip(why)
    with several_hosts(3, tmp_path) as network:
        first, second, third = network.hosts
        servers = Servers()
        url = servers.postgres(third)
        server = (sys.executable, "-m", "tests.serving.echo_process", "0", "0.0.0.0", str(MODELS))  # noqa: S104 - gateways ask it
        servers.start(third, "models", MODELS, *server)
        store = SqlDatabase(from_here(third, url))
        outside = Outside(address=f"http://{third.address}:{MODELS}/v1", model="echo")
        events = [RevisionAdded(1, outside=outside), RevisionReady(1)]
        store.follow(store.endpoint("echo"), [*events, TrafficMoved({1: 100}, "first")], 1.0)
        for host in (first, second):
            host.env.update(ORCHESTRATOR_DATABASE=url, ORCHESTRATOR_SECRET="of-all-the-hosts")  # noqa: S106 - a test's
        found = TwoHosts(first, second, store)
        key = found.orchestrator(second, "keys", "add", "ann").stdout.strip()
        assert key, "who asks from another host needs one"
        for host in (first, second):
            host.env["ORCHESTRATOR_API_KEY"] = key
        yield found
        store.close()


@pytest.mark.timeout(300)
def test_who_asks_from_another_host_needs_a_key(pair: TwoHosts) -> None:
    with pair.gateway(pair.first, pair.first.address):
        refused = pair.orchestrator(pair.second, "ask", "-e", "echo", "17", key=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: endpoint 'echo' refused the question: ")


@pytest.mark.timeout(300)
def test_a_gateway_of_one_host_is_asked_from_another_and_its_counts_are_known_there(
    pair: TwoHosts,
) -> None:
    with pair.gateway(pair.first, pair.first.address):
        listed = pair.orchestrator(pair.second, "endpoints").stdout
        assert f"OpenAI base URL: http://{pair.first.address}:{PORT}/v1" in listed
        for host in (pair.first, pair.second):
            asked = pair.orchestrator(host, "ask", "-e", "echo", "17 + 25 =")
            assert "17 + 25 =" in asked.stdout, asked.stderr
        assert wait(lambda: pair.counted() == 2, SECONDS, tick=0.2)


@pytest.mark.timeout(300)
def test_two_gateways_each_serve_their_host_and_a_rollout_sees_the_sum(pair: TwoHosts) -> None:
    with (
        pair.gateway(pair.first, "0.0.0.0"),  # noqa: S104 - what is tested
        pair.gateway(pair.second, pair.second.address),
    ):
        assert {gateway.host_name for gateway in pair.store.gateways()} == {"h0", "h1"}
        near = pair.orchestrator(pair.second, "endpoints").stdout
        assert f"http://{pair.second.address}:{PORT}/v1" in near, "each asks its own first"
        for host in (pair.first, pair.second):
            assert "17" in pair.orchestrator(host, "ask", "-e", "echo", "17").stdout
        assert wait(lambda: pair.counted() == 2, SECONDS, tick=0.2)
        assert len(pair.store.counts("echo")) == 2


@pytest.mark.timeout(300)
def test_a_gateway_on_loopback_is_not_taken_for_one_of_another_host(pair: TwoHosts) -> None:
    with pair.gateway(pair.first, "127.0.0.1"):
        assert "17" in pair.orchestrator(pair.first, "ask", "-e", "echo", "17").stdout
        said = pair.orchestrator(pair.second, "ask", "-e", "echo", "17").stderr
    assert f"the gateway at http://127.0.0.1:{PORT} answers its own host 'h0' alone" in said
