"""What attempts leave on the disks of nodes: a cache of bounded size, and no folder of their own.

Models of 4 MB are made on one node and read on another, a dozen times; some attempts are killed
while they read, and while they write. The cache may keep 20 MB, and an endpoint is asked all the
while, whose model is older than all the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.core.runs.states import RunState
from tests.hosts.clients import asking, new_key
from tests.hosts.echo_pipeline import ECHO, gateway, write_echo
from tests.hosts.namespaces import Host
from tests.hosts.site import OURS, Site, site

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(1200)]
NUMBER, KILLED = 12, 3  # models, and every which of them costs its attempts their lives
SIZE, ROOM = 4_000_000, 20_000_000  # bytes
CACHED = f"storage.cache_gb={ROOM / 1e9}"
# Each model is made and read on pools of different hosts.
JOBS = """\
import os, signal
from pathlib import Path


def make(ctx, *, number):
    (ctx.output / "model.bin").write_bytes(number.to_bytes(1) * SIZE)
    _die_once(ctx, number)


def read(ctx, *, number):
    model = (ctx.inputs["model"] / "model.bin").read_bytes()
    (ctx.output / "copy.bin").write_bytes(model[: SIZE // 4])
    _die_once(ctx, number)
    assert model == number.to_bytes(1) * SIZE


def _die_once(ctx, number):
    if number % KILLED == 0 and ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""
STAGES = """\
  make_{n}: {{job: models.make, role: prepare, needs: {{devices: 0}}, params: {{number: {n}}}}}
  read_{n}:
    job: models.read
    role: serve
    needs: {{devices: 0}}
    inputs: {{model: make_{n}}}
    params: {{number: {n}}}
"""
MODELS = (
    "pipeline=models",
    *OURS,
    "jobs.packages=[models]",
    "jobs.code=[.]",
    "tracking=none",
    CACHED,
)
OTHERS = re.compile(r"ray|orchestrator-cache-\d+")


@dataclass
class Kept:
    """What is in the cache of a host: bytes by artifact, and the names of what should not be."""

    sizes: dict[str, int]
    left: list[str]


def kept(host: Host) -> Kept:
    """Look at the folder for temporary files of a host."""
    folder = host.path("/tmp")  # noqa: S108 - a host's
    left = [path.name for path in folder.iterdir() if not OTHERS.fullmatch(path.name)]
    sizes = dict[str, int]()
    for entry in folder.glob("orchestrator-cache-*/*/"):
        if entry.name.startswith("."):
            left.append(entry.name)
        files = (path for path in entry.rglob("*") if path.is_file())
        sizes[entry.name] = sum(path.stat().st_size for path in files)
    return Kept(sizes, left)


@pytest.fixture(scope="module")
def lab(logs: Path) -> Iterator[Site]:
    with site(logs, mlflow=False) as built:
        head = built.network.hosts[0]
        stages = "".join(STAGES.format(n=number) for number in range(1, NUMBER + 1))
        head.write("my/pipeline/models.yaml", f"name: models\nstages:\n{stages}")
        text = JOBS.replace("SIZE", str(SIZE)).replace("KILLED", str(KILLED))
        head.write("models.py", text)
        write_echo(head)
        yield built


def test_a_dozen_models_leave_what_the_cache_may_keep_and_what_is_served(lab: Site) -> None:
    head, hopper, atlas, client = lab.network.hosts
    lab.do(head, "launch", *ECHO, CACHED, seconds=600.0)
    model = lab.run().stages["make"].artifact
    assert model is not None
    with asking(client, "echo", new_key(lab, head), gateway(head)) as loop:
        lab.do(head, "launch", *MODELS, seconds=900.0)
        loop.until_answered(10)
    assert loop.failed() == []
    run = lab.run()
    assert run.state is RunState.SUCCEEDED
    attempts = sum(len(stage.attempts) for stage in run.stages.values())
    assert attempts == 2 * (NUMBER + NUMBER // KILLED)
    found = {host.name: kept(host) for host in (hopper, atlas)}
    for name, cache in found.items():
        print(f"{name}: {len(cache.sizes)} artifacts, {sum(cache.sizes.values()) / 1e6:.1f} MB")
        assert cache.left == [], name
        assert sum(cache.sizes.values()) <= ROOM + SIZE, name
    assert model.digest in found["h2"].sizes, "it is served there"
    assert len(found["h2"].sizes) < NUMBER, "the others made room"
