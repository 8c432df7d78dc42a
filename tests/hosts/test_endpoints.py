"""Endpoints of a cluster on several hosts: moved while they are asked, ended by nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.gateway_client import figures_in
from orchestrator.supervisor.record import wait
from tests.hosts.clients import asking, new_key
from tests.hosts.echo_pipeline import ECHO, OPEN, OTHER, SWITCH, gateway, write_echo
from tests.hosts.namespaces import Host
from tests.hosts.site import Site, site

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(1800)]
SECONDS = 120.0


@dataclass
class Served:
    """A site that serves `echo`; hosts 0 and 1 have gateways, and host 3 is no node."""

    site: Site
    key: str

    @property
    def hosts(self) -> list[Host]:
        return list(self.site.network.hosts)

    @property
    def pool(self) -> str:
        leading = self.site.store.endpoint("echo").leading
        assert leading is not None
        return leading.pool

    def as_it_is(self) -> tuple[int, dict[tuple[str, int], tuple[str, ...]]]:
        """Return what is known of the endpoint: its history and its replicas."""
        return self.site.store.endpoint("echo").seq, dict(self.site.store.replicas())

    def counted(self, host: Host, revision: int) -> float:
        """Return how many requests the gateway of a host has counted of a revision."""
        names = {g.name for g in self.site.store.gateways() if g.host_name == host.name}
        texts = self.site.store.counts("echo").items()
        found = (figures_in(text, "echo") for name, text in texts if name in names)
        return sum(f[f"r{revision}"].requests for f in found if f"r{revision}" in f)


@pytest.fixture(scope="module")
def there(logs: Path) -> Iterator[Served]:
    with site(logs, mlflow=False) as built:
        first, second, *_ = built.network.hosts
        for host in built.network.hosts:
            write_echo(host)
        built.do(first, "launch", *ECHO, seconds=900.0)
        built.do(second, "up", "tracking=none", OPEN)
        yield Served(built, new_key(built, first))


@pytest.fixture
def served(there: Served) -> Iterator[Served]:
    yield there
    there.site.mend()


def without_address(served: Served, host: Host, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a command where nothing names the cluster."""
    argv = ("env", "-u", "RAY_ADDRESS", sys.executable, "-m", "orchestrator", *words)
    return host.run(*argv, seconds=300.0)


def test_every_host_asks_it(served: Served) -> None:
    for host in served.hosts:
        served.site.do(host, "ask", "1 + 1 =", ORCHESTRATOR_API_KEY=served.key)


def test_it_moves_by_what_the_gateway_of_another_host_counts_and_no_request_fails(
    served: Served,
) -> None:
    first, second, _, client = served.hosts
    target = OTHER[served.pool]
    with asking(client, "echo", served.key, gateway(second)) as loop:
        served.site.do(first, *SWITCH, f"pool={target}", seconds=900.0)
        loop.until_answered(5)
    assert loop.failed() == []
    assert served.pool == target
    assert served.site.run().stages["serve"].metrics["canary/requests"] > 0
    newest = max(served.site.store.endpoint("echo").revisions)
    assert wait(lambda: served.counted(second, newest) > 0, SECONDS, tick=0.2)
    assert served.counted(first, newest) == 0, "nobody has asked there"


def test_it_moves_back_by_a_command_on_another_host_while_both_gateways_are_asked(
    served: Served,
) -> None:
    first, second, _, client = served.hosts
    target = OTHER[served.pool]
    gateways = (gateway(first), gateway(second))
    with asking(client, "echo", served.key, *gateways) as loop:
        served.site.do(second, *SWITCH, f"pool={target}", seconds=900.0)
        loop.until_answered(5)
    assert loop.failed() == []
    assert served.pool == target
    newest = max(served.site.store.endpoint("echo").revisions)
    for host in (first, second):
        assert wait(lambda host=host: served.counted(host, newest) > 0, SECONDS, tick=0.2)  # type: ignore[misc]


def test_a_cluster_of_another_host_begins_and_ends_and_the_endpoint_of_this_one_stays(
    served: Served,
) -> None:
    first, second, _, other = served.hosts
    before = served.as_it_is()
    with asking(second, "echo", served.key, gateway(first)) as loop:
        up = without_address(served, other, "up", "tracking=none")
        assert up.returncode == 0, up.stderr
        loop.until_answered(100)  # while the reconciler there looks
        down = without_address(served, other, "down")
        assert down.returncode == 0, down.stderr
        assert down.stdout == "Stopped: gateway, cluster.\n"
        loop.until_answered(10)
    assert loop.failed() == []
    assert served.as_it_is() == before
