"""Code travels from the host that launches; a node that runs another orchestrator does no work."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from tests.hosts.namespaces import Host, Network, several_hosts
from tests.hosts.services import BUCKET, Servers
from tests.hosts.site import fleet

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
ROLES = "roles: {prepare: hopper, train: hopper, serve: hopper}"
CHIP = "{name: Lab, vendor: Lab, device: cpu, backend: gloo, resource: LAB}\n"
PIPELINE = """\
name: own
stages:
  greet: {job: acme.jobs.greet, role: train, needs: {devices: 2}, params: {word: hello}}
"""
JOBS = """\
from pathlib import Path

import helper


def greet(ctx, *, word):
    here = Path(__file__).parent
    print("from", here, "with", sorted(p.name for p in here.parent.rglob("*.*")))
    print(word, (here / "prompt.yaml").read_text(), helper.NAME)
    return {"length": len(word)}
"""
FILES = {
    "conf/accelerator/lab.yaml": CHIP,
    "conf/fleet/lab.yaml": fleet({"hopper": "lab", "atlas": "lab"}, ROLES),
    "conf/pipeline/own.yaml": PIPELINE,
    "acme/__init__.py": "",
    "acme/jobs.py": JOBS,
    "acme/prompt.yaml": "be: kind",
    "helper.py": "NAME = 'first'",
    "data/table.csv": "1,2",
    ".gitignore": "data/\n",
}
OWN = ("--config-dir", "conf", "--unqualified", "fleet=lab", "pipeline=own", "tracking=none")
MINE = (*OWN, "jobs.packages=[acme]", "jobs.code=[.]", f"storage.uri=s3://{BUCKET}/store")
COPY = "/srv/old"


@pytest.fixture(scope="module")
def network(logs: Path) -> Iterator[Network]:
    """A host that launches, a node of each pool; that of `atlas` has another orchestrator."""
    with several_hosts(3, logs) as network:
        first, second, third = network.hosts
        servers = Servers()
        bucket = servers.s3(first)
        for host in network.hosts:
            host.env.update(bucket)
        other = third.path(f"{COPY}/orchestrator")
        shutil.copytree(Path(orchestrator.__file__).parent, other)
        source = (other / "__init__.py").read_text()
        old = source.replace(orchestrator.__version__, "0.0.9")
        (other / "__init__.py").write_text(old)
        address = servers.ray_head(first)
        servers.ray_node(second, address, "hopper", "LAB")
        servers.ray_node(third, address, "atlas", "LAB", PYTHONPATH=f"{COPY}")
        first.env["RAY_ADDRESS"] = address
        for name, text in FILES.items():
            first.write(name, text)
        yield network


def launch(host: Host, *words: str) -> tuple[str, dict[str, Any]]:
    """Launch on a host; return what was printed, and the run as it ended."""
    done = host.run(sys.executable, "-m", "orchestrator", "launch", *MINE, *words, seconds=300)
    shown = host.python("-m", "orchestrator", "status", "--json").stdout
    assert json.loads(shown), done.stdout + done.stderr
    (run, *_) = json.loads(shown)
    return done.stdout + done.stderr, run


def logs(host: Host, run: str) -> str:
    return host.python("-m", "orchestrator", "logs", run).stdout


def test_a_package_with_what_lies_beside_it_runs_where_none_of_it_is(network: Network) -> None:
    first, second, _ = network.hosts
    printed, run = launch(first)
    assert run["state"] == "succeeded", printed
    said = logs(first, run["run"])
    assert "hello be: kind first" in said
    assert "'helper.py'" in said
    assert "table.csv" not in said, "git ignores it"
    assert not second.path("acme").exists()
    first.write("helper.py", "NAME = 'second'")
    printed, run = launch(first)
    assert "hello be: kind second" in logs(first, run["run"]), printed


def test_a_node_with_another_orchestrator_is_named_with_both_versions(network: Network) -> None:
    first = network.hosts[0]
    printed, run = launch(first, "roles.train=atlas", "pipeline.stages.greet.params.word=other")
    assert run["state"] == "failed", printed
    assert "runs orchestrator '0.0.9 (" in printed
    assert f"and its controller '{orchestrator.__version__} (" in printed
    printed, run = launch(first, "pipeline.stages.greet.params.word=other")
    assert run["state"] == "succeeded", printed
    assert "hello" not in logs(first, run["run"]), "nothing was taken from the node that is odd"
