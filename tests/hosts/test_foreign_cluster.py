"""What is typed on hosts for a cluster of somebody else, as far as no cluster is needed."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase
from tests.hosts.namespaces import ROOT, Host, several_hosts
from tests.hosts.services import RAY, Servers, from_here
from tests.hosts.site import OURS, Site, configs

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`(my\S*)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
OWN = ("pipeline=mine", "jobs.packages=[mypackage]", "jobs.code=[readme]")
LOCALLY = ("cluster=local", "storage.uri=file:///srv/artifacts", "tracking=none")


@dataclass
class ThreeHosts:
    """Three hosts: one types, one has a database, and another one that is not in Unicode."""

    site: Site
    ascii: str

    @property
    def hosts(self) -> list[Host]:
        return list(self.site.network.hosts)

    @property
    def nobody(self) -> str:
        """An address of a cluster at which nobody listens."""
        return f"{self.hosts[2].address}:{RAY}"

    def type(self, host: Host, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.site.orchestrator(host, *words, **env)


@pytest.fixture(scope="module")
def there(logs: Path) -> Iterator[ThreeHosts]:
    with several_hosts(3, logs) as network:
        _, second, third = network.hosts
        servers = Servers()
        url = servers.postgres(second)
        for host in network.hosts:
            host.env["ORCHESTRATOR_DATABASE"] = url
            configs(host)
        store = SqlDatabase(from_here(second, url))
        try:
            site = Site(network, servers, store, address="")
            yield ThreeHosts(site, servers.postgres(third, encoding="SQL_ASCII"))
        finally:
            store.close()


@pytest.fixture
def place(there: ThreeHosts) -> Iterator[ThreeHosts]:
    yield there
    there.site.mend()


@pytest.mark.parametrize("verb", ["plan", "launch"])
def test_what_the_readme_shows_is_refused_before_any_work_where_storage_is_not_named(
    place: ThreeHosts, verb: str
) -> None:
    host = place.hosts[0]
    for path, text in FILE.findall(README):
        host.write(f"readme/{path}", text)
    words = (verb, "--config-dir", "readme/my", "fleet=lab", *OWN)
    done = place.type(host, *words, RAY_ADDRESS=place.nobody)
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    said = "error: storage.uri: '' is a folder of this host, not seen by the cluster at "
    assert line.startswith(f"{said}{place.nobody!r}; name what all its hosts see (s3://")
    assert place.site.store.runs(1) == []


@pytest.mark.parametrize("words", [("status",), ("launch", "pipeline=noop", *LOCALLY)])
def test_a_database_that_is_not_in_unicode_is_refused_in_a_line(
    place: ThreeHosts, words: tuple[str, ...]
) -> None:
    refused = place.type(place.hosts[0], *words, ORCHESTRATOR_DATABASE=place.ascii)
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "encoding is 'SQL_ASCII'" in line
    assert "createdb" in line


def test_doctor_says_that_database_and_cluster_are_away_each_in_a_line(place: ThreeHosts) -> None:
    away = place.hosts[0].env["ORCHESTRATOR_DATABASE"].replace(":5432/", ":5433/")
    words = ("doctor", "--config-dir", "my", "fleet=lab", "--json")
    found = place.type(
        place.hosts[0], *words, ORCHESTRATOR_DATABASE=away, RAY_ADDRESS=place.nobody
    )
    assert found.returncode == 1, found.stderr
    checks = {check["check"]: check for check in json.loads(found.stdout)}
    for name, what in (("ORCHESTRATOR_DATABASE", "5433"), ("RAY_ADDRESS", place.nobody)):
        assert checks[name]["status"] == "error"
        assert what in checks[name]["finding"]
        assert "\n" not in checks[name]["finding"]


def test_the_line_of_a_plan_is_pasted_and_runs(place: ThreeHosts) -> None:
    host = place.hosts[0]
    planned = place.type(host, "plan", "pipeline=noop", *OURS, *LOCALLY)
    (line,) = (line for line in planned.stdout.splitlines() if "To run it:" in line)
    pasted = line.partition("To run it:")[2].strip()
    assert shlex.split(pasted)[:4] == ["orchestrator", "launch", "--config-dir", "my"]
    done = host.run("bash", "-c", pasted)
    assert done.returncode == 0, done.stdout + done.stderr
