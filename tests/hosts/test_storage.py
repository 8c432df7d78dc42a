"""Where artifacts are: what other hosts can't see, or can't open, is said before a run begins."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hosts.namespaces import PLAIN, WORK, Host, several_hosts
from tests.hosts.services import BUCKET, Servers
from tests.hosts.site import ROLES, fleet

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]
CHIP = "{name: Lab, vendor: me, device: cpu, backend: gloo, resource: LAB}\n"
OURS = ("--config-dir", "my", "fleet=lab", "tracking=none", "qualification.required=false")
BUCKET_URI = f"storage.uri=s3://{BUCKET}/runs"
LACKS = "raise ImportError('No module named s3fs')\n"


@dataclass
class Lab:
    """A head with a controller, itself of pool `hopper`, and a node of each of two pools.

    `atlas` has no package for S3.
    """

    head: Host
    hopper: Host
    atlas: Host
    address: str

    def launch(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Launch on the head."""
        return self.head.python("-m", "orchestrator", "launch", "pipeline=noop", *OURS, *words)


@pytest.fixture(scope="module")
def lab(logs: Path) -> Iterator[Lab]:
    with several_hosts(4, logs) as network:
        head, hopper, atlas, services = network.hosts
        servers = Servers()
        bucket = servers.s3(services)
        as_hopper = ("--num-cpus=4", '--resources={"LAB": 2}', "--labels=pool=hopper")
        address = servers.ray_head(head, *as_hopper, **bucket)
        servers.ray_node(hopper, address, "hopper", "LAB", **bucket)
        atlas.write("broken/s3fs.py", LACKS)
        found_first = f"{WORK}/broken:{PLAIN['PYTHONPATH']}"
        servers.ray_node(atlas, address, "atlas", "LAB", **bucket, PYTHONPATH=found_first)
        head.env.update(**bucket, RAY_ADDRESS=address)
        head.env["ORCHESTRATOR_DATABASE"] = servers.postgres(services)
        head.write("my/accelerator/lab.yaml", CHIP)
        head.write("my/fleet/lab.yaml", fleet({"hopper": "lab", "atlas": "lab"}, ROLES))
        yield Lab(head, hopper, atlas, address)


def runs(lab: Lab) -> list[object]:
    listed: list[object] = json.loads(
        lab.head.python("-m", "orchestrator", "status", "--json").stdout
    )
    return listed


def test_a_folder_of_one_host_is_refused_by_plan(lab: Lab) -> None:
    done = lab.launch()
    assert done.returncode == 2, done.stderr
    line = "error: storage.uri: '' is a folder of this host, not seen by the cluster at "
    assert done.stderr.startswith(f"{line}{lab.address!r}")


def test_a_node_without_the_folder_is_named_and_a_run_goes_by_the_others_once_it_is_drained(
    lab: Lab,
) -> None:
    folder = ("storage.uri=file:///srv/store", "storage.shared=true")
    done = lab.launch(*folder)
    assert done.returncode == 1, done.stderr
    said = "error: pool 'hopper' can't use storage.uri 'file:///srv/store' on its node "
    assert done.stderr.startswith(f"{said}{lab.hopper.address!r}: "), done.stderr
    assert "what the controller wrote there is not to be seen" in done.stderr
    assert runs(lab) == []
    of_lab = ("--config-dir", "my", "fleet=lab")
    place = f"hopper/{lab.hopper.address}"
    drained = lab.head.python("-m", "orchestrator", "pools", "drain", place, *of_lab)
    assert drained.returncode == 0, drained.stderr
    done = lab.launch(*folder)
    assert done.returncode == 0, done.stdout + done.stderr
    undrained = lab.head.python("-m", "orchestrator", "pools", "undrain", place, *of_lab)
    assert undrained.returncode == 0, undrained.stderr


def test_a_pool_without_the_package_of_the_storage_is_named_with_its_python(lab: Lab) -> None:
    before = runs(lab)
    done = lab.launch(BUCKET_URI, "roles.prepare=atlas")
    assert done.returncode == 1, done.stderr
    said = f"error: pool 'atlas' can't use storage.uri 's3://{BUCKET}/runs' on its node "
    assert done.stderr.startswith(said), done.stderr
    assert "which lacks its package; install orchestrator[s3] there" in done.stderr
    assert runs(lab) == before


def test_a_run_goes_by_a_bucket_and_leaves_no_mark(lab: Lab) -> None:
    done = lab.launch(BUCKET_URI)
    assert done.returncode == 0, done.stdout + done.stderr
    script = f"import fsspec; print(fsspec.filesystem('s3').find('{BUCKET}/runs'))"
    assert "/marks/" not in lab.head.python("-c", script).stdout
    assert not list(lab.hopper.path("/tmp").glob("orchestrator-scratch-*"))  # noqa: S108 - a host's
