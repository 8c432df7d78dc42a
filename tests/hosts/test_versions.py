"""A node that runs another orchestrator, Python or Ray does no work: others of its pool do it.

A host has what makes its interpreter tell of another Python, as `platform` would, or of another
Ray, as the environment's metadata would: Ray itself goes by other words, and takes the node in, as
it does any of the same Ray. The other orchestrator is a copy with another version.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import orchestrator
from orchestrator.core.failures.kinds import OTHER_VERSIONS, FailureKind
from orchestrator.core.runs.run import Attempt, StageRun
from orchestrator.core.runs.states import RunState
from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import ROOT, Host
from tests.hosts.site import OURS, Site, site

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
PYTHON = """\
import platform

platform.python_version = lambda: "3.99.1"
"""
RAY = """\
from importlib import metadata

_version = metadata.version
metadata.version = lambda name: "2.99.0" if name == "ray" else _version(name)
"""
ODD = {"orchestrator": "0.0.9 (", "Python": "3.99.1'", "Ray": "2.99.0'"}
FIRST_FOUND = "/srv/odd"
PIPELINE = """\
name: whereabouts
stages:
  find: {job: whereabouts.find, role: train, needs: {devices: 2}}
"""
JOB = """\
import socket


def find(ctx):
    host = socket.gethostname()
    print("worked on", host)
    (ctx.output / "host").write_text(host)
    return {"host": float(host.removeprefix("h"))}
"""
WORDS = (
    "pipeline=whereabouts",
    *OURS,
    "jobs.packages=[whereabouts]",
    "jobs.code=[.]",
    "tracking=none",
    "fleet.pools.hopper.nodes=2",
)
SECONDS = 120.0


@pytest.fixture(scope="module")
def built(logs: Path) -> Iterator[Site]:
    """A head, two nodes of `hopper`, of which the second will be odd, and one of `atlas`."""
    pools = {"hopper": [1, 2], "atlas": [3]}
    with site(logs, pools=pools, services=0, mlflow=False) as built:
        head = built.network.hosts[0]
        head.write("my/pipeline/whereabouts.yaml", PIPELINE)
        head.write("whereabouts.py", JOB)
        yield built


@pytest.fixture(scope="module", params=ODD)
def what(request: pytest.FixtureRequest, built: Site) -> str:
    """The name of what the second node of `hopper` has another version of."""
    odd, name = built.network.hosts[2], str(request.param)
    if name == "orchestrator":
        other = odd.path(f"{FIRST_FOUND}/orchestrator")
        shutil.copytree(Path(orchestrator.__file__).parent, other)
        source = (other / "__init__.py").read_text()
        (other / "__init__.py").write_text(source.replace(orchestrator.__version__, "0.0.9"))
    else:
        shutil.rmtree(odd.path(FIRST_FOUND), ignore_errors=True)
        text = {"Python": PYTHON, "Ray": RAY}[name]
        odd.write(f"{FIRST_FOUND}/sitecustomize.py", text)
    built.servers.restart(odd, PYTHONPATH=f"{FIRST_FOUND}:{ROOT}")
    return name


@contextmanager
def drained(lab: Site, host: Host) -> Iterator[None]:
    """Have no work placed on the node of a host of `hopper`."""
    head, node = lab.network.hosts[0], f"hopper/{host.address}"
    for verb, words in (("drain", ("--reason", "a test")), ("undrain", ())):
        lab.do(head, "pools", verb, node, *words, *OURS[:3])
        if verb == "drain":
            yield


def stage(lab: Site) -> StageRun:
    return lab.run().stages["find"]


def refused(attempt: Attempt, what: str, odd: Host) -> None:
    """Check that the odd node was named with both versions."""
    failure = attempt.failure
    assert failure is not None
    assert (failure.kind, failure.sign) == (FailureKind.SET_UP, OTHER_VERSIONS)
    assert (failure.pool, failure.node) == ("hopper", odd.address)
    assert f"node {odd.address!r} runs {what} '{ODD[what]}" in failure.evidence
    assert "and its controller '" in failure.evidence


def test_its_work_goes_to_the_other_node_of_the_pool(built: Site, what: str) -> None:
    head, good, odd, _ = built.network.hosts
    built.servers.running[good.name, "ray"].stop()
    launch = built.launch(head, *WORDS)
    failed = wait(lambda: any(a.failure for a in stage(built).attempts), SECONDS, tick=0.2)
    built.servers.mend()
    assert failed, launch.printed()
    assert launch.finish(SECONDS) == 0, launch.printed()
    refusal, last = stage(built).attempts
    refused(refusal, what, odd)
    assert (last.pool, last.nodes) == ("hopper", (good.address,))
    assert ODD[what] in launch.printed()


def test_where_the_other_node_is_drained_it_goes_to_the_next_pool_and_stands_for_that_alone(
    built: Site, what: str
) -> None:
    head, good, odd, atlas = built.network.hosts
    words = (*WORDS, f"seed={[*ODD].index(what)}")
    with drained(built, good):
        built.do(head, "launch", *words)
    refusal, last = stage(built).attempts
    refused(refusal, what, odd)
    assert (last.pool, last.nodes) == ("atlas", (atlas.address,))
    found = []
    for role in ("hopper", "hopper", "atlas"):
        built.do(head, "launch", *words, f"roles.train={role}")
        assert built.run().state is RunState.SUCCEEDED
        found.append((stage(built).metrics["host"], stage(built).reused_from is not None))
    assert found == [(1.0, False), (1.0, True), (3.0, True)], "on the good node, then again"
