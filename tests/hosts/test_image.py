"""The image runs the hosts of a site: each process of the head and the pools is one of its own.

    make image
    export ORCHESTRATOR_IMAGE=orchestrator:0.2.0
    .venv/bin/python -m pytest -m hosts tests/hosts/test_image.py

PostgreSQL, the S3 API and MLflow are this machine's, on a host of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.runs.states import RunState
from orchestrator.supervisor.record import wait
from tests.hosts.clients import ask_once, new_key
from tests.hosts.image import PYTHON, image, image_lacking
from tests.hosts.namespaces import ROOT, Host, several_hosts
from tests.hosts.site import OURS, Site, site_on

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
USER = 10001
OPEN = "gateway.host=0.0.0.0"
SELF = """
import json, os, sys, orchestrator, jobs
print(json.dumps([os.getuid(), sys.executable, orchestrator.__file__, jobs.__file__]))
"""
SHOWN = """
import mlflow
runs = mlflow.search_runs(search_all_experiments=True, output_format="list")
print(*sorted({run.info.status for run in runs}))
"""


@pytest.fixture(scope="module")
def launched(logs: Path) -> Iterator[Site]:
    """A site whose head and nodes run the image; the head has launched a pipeline."""
    if why := image_lacking():
        pytest.skip(why)
    with (
        image() as root,
        several_hosts(4, logs, roots=[root] * 3) as network,
        site_on(network) as built,
    ):
        print(built.do(network.hosts[0], "launch", "pipeline=short", *OURS, OPEN))
        yield built


def commands(host: Host) -> list[bytes]:
    """Return what runs on a host."""
    files = [Path(f"/proc/{pid}/cmdline") for pid in host.processes()]
    return [file.read_bytes() for file in files if file.exists()]


def test_hosts_have_the_image_s_programs_and_nothing_of_this_machine(launched: Site) -> None:
    for host in launched.network.hosts[:3]:
        done = host.python("-c", SELF)
        assert done.returncode == 0, done.stderr
        user, python, *packages = json.loads(done.stdout)
        assert (user, python) == (USER, PYTHON)
        installed = str(Path(PYTHON).parents[1])
        assert all(package.startswith(f"{installed}/lib/") for package in packages), packages
        assert not host.path(str(ROOT)).exists()


def test_all_that_runs_on_them_runs_as_the_image_s_user(launched: Site) -> None:
    for host in launched.network.hosts[:3]:
        running = host.processes()
        assert running
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in running}
        assert owners == {USER}, commands(host)


def test_the_run_has_succeeded_each_role_on_the_host_of_its_pool(launched: Site) -> None:
    run = launched.run()
    assert run.state is RunState.SUCCEEDED
    places = {name: stage.attempts[-1] for name, stage in run.stages.items()}
    assert [places[name].pool for name in ("pretrain", "serve")] == ["hopper", "atlas"]
    assert places["pretrain"].nodes
    assert not run.header.plan.emulated


def test_the_image_finds_itself_healthy(launched: Site) -> None:
    launched.do(launched.network.hosts[0], "doctor")


def test_another_host_asks_the_endpoint(launched: Site) -> None:
    first, second, _, _ = launched.network.hosts
    ask_once(launched, second, "short", new_key(launched, first))


def test_mlflow_shows_the_run(launched: Site) -> None:
    second = launched.network.hosts[1]

    def shown() -> str:
        return second.python("-c", SHOWN).stdout.strip()

    assert wait(lambda: shown() == "FINISHED", 60.0, tick=2.0), shown()


def test_undeploy_and_down_leave_nothing_of_ours(launched: Site) -> None:
    first, second, third, _ = launched.network.hosts
    launched.do(second, "undeploy", "short")
    launched.do(first, "down")
    for host in (first, second, third):
        ours = [line for line in commands(host) if b"orchestrator" in line.split(b"\0")]
        assert not ours, ours
