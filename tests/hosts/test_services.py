"""Hosts share a database and a bucket, and each of them alone has what it writes at home.

Runs are in the process of the command here (`cluster=local`): what is tried is what hosts share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.states import RunState
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import ROOT, several_hosts
from tests.hosts.services import BUCKET, Servers, from_here
from tests.hosts.site import CLOCK, STEPPING, STEPS, Site, configs

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
HERE = (*STEPPING, "cluster=local")
PUT = """
import fsspec
fs = fsspec.filesystem("s3")
fs.pipe("{bucket}/from-{name}", b"text")
print(sorted(fs.ls("{bucket}", refresh=True)))
"""


@pytest.fixture(scope="module")
def pair(logs: Path) -> Iterator[Site]:
    """Two hosts that use a database and a bucket of the third."""
    with several_hosts(3, logs) as network:
        *clients, shared = network.hosts
        servers = Servers()
        database = servers.postgres(shared)
        variables = {"ORCHESTRATOR_DATABASE": database, **servers.s3(shared)}
        for client in clients:
            client.env.update(variables)
            client.write("steps.py", STEPS)
            configs(client)
        store = SqlDatabase(from_here(shared, database))
        yield Site(network, servers, store, address="")
        store.close()


def test_a_key_that_one_host_adds_is_listed_on_another(pair: Site) -> None:
    first, second, _ = pair.network.hosts
    added = first.python("-m", "orchestrator", "keys", "add", "ann")
    assert added.returncode == 0, added.stderr
    assert "ann" in second.python("-m", "orchestrator", "keys").stdout
    assert not second.path(".orchestrator/events.db").exists()


def test_what_one_host_puts_into_the_bucket_another_one_finds(pair: Site) -> None:
    first, second, _ = pair.network.hosts
    for host in (first, second):
        put = host.python("-c", PUT.format(bucket=BUCKET, name=host.name))
        assert put.returncode == 0, put.stderr
    assert put.stdout == f"['{BUCKET}/from-h0', '{BUCKET}/from-h1']\n"


def test_a_host_that_is_cut_off_is_told_that_the_database_is_away(pair: Site) -> None:
    first = pair.network.hosts[0]
    pair.network.cut(first)
    asked = first.python("-m", "orchestrator", "keys")
    pair.network.heal(first)
    assert asked.returncode == 1
    assert "Traceback" not in asked.stderr
    assert asked.stderr.startswith("error: "), asked.stderr


def test_a_run_whose_host_is_lost_goes_on_from_its_checkpoint_on_another_one(pair: Site) -> None:
    first, second, _ = pair.network.hosts
    launch = pair.launch(first, *HERE, "database.patience=5")
    run = pair.until_saved(20)
    pair.network.cut(first)

    def resumed() -> bool:
        return pair.orchestrator(second, "resume", run.header.run).returncode == 0

    assert wait(resumed, 120.0, tick=1.0)
    printed = pair.orchestrator(second, "logs", run.header.run, "train").stdout
    for line in ("(train.1) [0] step 10", "(train.2) [0] step 80"):
        assert f"{line}\n" in printed, "what both hosts wrote, while the first is cut off"
    pair.network.heal(first)
    assert launch.finish() != 0, "it has another controller now"
    assert pair.run().state is RunState.SUCCEEDED
    lost, last = pair.run().stages["train"].attempts
    assert last.resumed in lost.saved


@pytest.mark.parametrize("seconds", [60, -60])
def test_a_live_run_is_not_taken_over_whatever_the_clock_says(pair: Site, seconds: int) -> None:
    first, second, _ = pair.network.hosts
    second.write("/srv/clock/sitecustomize.py", CLOCK.format(seconds=seconds))
    launch = pair.launch(first, *HERE, "pipeline.stages.train.params.to=2000")
    run = pair.until_saved(5)
    shifted = f"/srv/clock:{ROOT}"
    refused = pair.orchestrator(second, "resume", run.header.run, PYTHONPATH=shifted)
    assert refused.returncode == 1
    assert "has a controller" in refused.stderr
    assert " on h0" in refused.stderr
    assert launch.running
    launch.stop()
