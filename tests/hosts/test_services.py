"""Hosts share a database and a bucket, and each of them alone has what it writes at home."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.namespaces import Network, lacking, several_hosts
from tests.hosts.services import BUCKET, Servers, services_lacking

pytestmark = pytest.mark.services
PUT = """
import fsspec
fs = fsspec.filesystem("s3")
fs.pipe("{bucket}/from-{name}", b"text")
print(sorted(fs.ls("{bucket}", refresh=True)))
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Two hosts that use a database and a bucket of the third."""
    if why := lacking() or services_lacking():
        pytest.skip(why)
    with several_hosts(3, tmp_path_factory.mktemp("logs")) as network:
        *clients, host = network.hosts
        servers = Servers()
        variables = {"ORCHESTRATOR_DATABASE": servers.postgres(host), **servers.s3(host)}
        for client in clients:
            client.env.update(variables)
        yield network


def test_a_key_that_one_host_adds_is_listed_on_another(network: Network) -> None:
    first, second, _ = network.hosts
    added = first.python("-m", "orchestrator", "keys", "add", "ann")
    assert added.returncode == 0, added.stderr
    assert "ann" in second.python("-m", "orchestrator", "keys").stdout
    assert not second.path(".orchestrator/events.db").exists()


def test_what_one_host_puts_into_the_bucket_another_one_finds(network: Network) -> None:
    first, second, _ = network.hosts
    for host in (first, second):
        put = host.python("-c", PUT.format(bucket=BUCKET, name=host.name))
        assert put.returncode == 0, put.stderr
    assert put.stdout == f"['{BUCKET}/from-h0', '{BUCKET}/from-h1']\n"


def test_a_host_that_is_cut_off_is_told_that_the_database_is_away(network: Network) -> None:
    first = network.hosts[0]
    network.cut(first)
    asked = first.python("-m", "orchestrator", "keys")
    network.heal(first)
    assert asked.returncode == 1
    assert "Traceback" not in asked.stderr
    assert asked.stderr.startswith("error: "), asked.stderr
