"""A run is handed over from a host that is no node of the cluster, and read from there."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pytest

from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import Host, several_hosts
from tests.hosts.services import Servers
from tests.hosts.site import STORAGE, fleet

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]
CHIP = """\
{name: Lab, vendor: me, device: cpu, backend: gloo, resource: LAB, visible_devices: LAB_SEEN}
"""
ROLES = "roles: {prepare: lab, train: lab, serve: lab}"
OURS = ("--config-dir", "my", "fleet=lab", "tracking=none", "qualification.required=false")
TALK = ("jobs.packages=[talking]", "jobs.code=[.]", "pipeline.stages.noop.job=talking.talk")
TALKING = """\
import os


def talk(ctx):
    ctx.progress(2, 2)
    print("the worker's own key:", os.environ["AWS_SECRET_ACCESS_KEY"])
"""
OF_THE_NODE = "the-key-of-the-node"
JOBS = """
import sys
from ray.job_submission import JobSubmissionClient
client = JobSubmissionClient(sys.argv[1])
print([(job.entrypoint, job.runtime_env, job.metadata) for job in client.list_jobs()])
"""


@dataclass
class HeadAndClient:
    """A head that is a pool too, and a client that is no node; `secret` must be seen nowhere."""

    head: Host
    client: Host
    address: str
    secret: str

    def orchestrator(
        self, host: Host, *words: str, **env: str
    ) -> subprocess.CompletedProcess[str]:
        return host.run(sys.executable, "-m", "orchestrator", *words, **env)


@pytest.fixture(scope="module")
def place(logs: Path) -> Iterator[HeadAndClient]:
    with several_hosts(2, logs) as network:
        head, client = network.hosts
        servers = Servers()
        url = servers.postgres(head)
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        chips = ("--resources", json.dumps({"LAB": 2}), "--labels", "pool=lab", "--num-cpus=4")
        words = (*chips, "--dashboard-host=0.0.0.0", "--include-dashboard=true")
        bucket, secret = servers.s3(head), secrets.token_hex(16)
        own = {**token, **bucket, "AWS_SECRET_ACCESS_KEY": OF_THE_NODE}
        address = servers.ray_head(head, *words, **own)
        client.env.update(**token, **bucket, ORCHESTRATOR_DATABASE=url, RAY_ADDRESS=address)
        client.env["AWS_SECRET_ACCESS_KEY"] = secret
        version = f"http://{address.partition(':')[0]}:8265/api/version"
        answers = ("curl", "--silent", "--max-time", "5", version)
        assert wait(lambda: client.run(*answers).returncode == 0, 120.0), "the job server is slow"
        for host in (head, client):
            host.write("my/accelerator/lab.yaml", CHIP)
            host.write("my/fleet/lab.yaml", fleet({"lab": "lab"}, ROLES, STORAGE))
            host.write("talking.py", TALKING)
        yield HeadAndClient(head, client, address, secret)


def test_a_plain_launch_is_refused_at_once_with_what_to_do(place: HeadAndClient) -> None:
    began = monotonic()
    place.orchestrator(place.client, "plan", "pipeline=noop", *OURS)
    planned = monotonic()
    refused = place.orchestrator(place.client, "launch", "pipeline=noop", *OURS)
    assert monotonic() - planned < 3 * (planned - began) + 5, "Ray itself would try for a minute"
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"error: this machine is no node of the cluster at {place.address!r}")
    assert f"add --detach to hand the run over, or `ray start --address={place.address}`" in line


@pytest.mark.parametrize(
    ("token", "why"), [("", "has none"), ("0" * 64, "refuses the token of this process")]
)
def test_who_has_no_token_or_another_one_is_told_that_it_is_that(
    place: HeadAndClient, token: str, why: str
) -> None:
    refused = place.orchestrator(
        place.client, "launch", "pipeline=noop", *OURS, "--detach", RAY_AUTH_TOKEN=token
    )
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert why in line
    assert "RAY_AUTH_TOKEN_PATH to a copy of the head's token file" in line


@pytest.mark.parametrize("over_http", [False, True])
def test_a_run_goes_on_by_itself_and_its_log_is_read_here(
    place: HeadAndClient,
    over_http: bool,  # noqa: FBT001 - a parameter
) -> None:
    server = f"http://{place.address.partition(':')[0]}:8265"
    known = {"RAY_ADDRESS": server} if over_http else {}
    words = ("--detach", "pipeline=noop", *OURS, *TALK, f"seed={int(over_http)}")
    handed = place.orchestrator(place.client, "launch", *words, **known)
    assert handed.returncode == 0, handed.stdout + handed.stderr
    (run,) = [line.split()[1] for line in handed.stdout.splitlines() if "by itself" in line]
    followed = place.orchestrator(place.client, "logs", "-f", run)
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert followed.stdout == f"(noop.1) [0] the worker's own key: {OF_THE_NODE}\n"
    assert " 2/2 " in place.orchestrator(place.client, "status", run).stdout
    listed = place.client.run(sys.executable, "-c", JOBS, server)
    assert run in listed.stdout, listed.stderr
    typed = [Path(f"/proc/{pid}/cmdline").read_text() for pid in place.head.processes()]
    written = [file.read_text("utf-8", "replace") for file in _files(place.head, "/tmp/ray")]  # noqa: S108 - Ray's
    for text in (listed.stdout, *typed, *written):
        assert place.secret not in text
        assert place.client.env["ORCHESTRATOR_DATABASE"] not in text
    assert place.head.path("/root/.orchestrator").is_dir()
    assert not place.client.path(".orchestrator/events.db").exists()


def test_a_home_that_the_client_alone_has_is_made_on_no_other_host(place: HeadAndClient) -> None:
    home = "/srv/of/the/client/home"
    own = {"ORCHESTRATOR_HOME": home}
    words = ("--detach", "pipeline=noop", *OURS, *TALK, "seed=2")
    handed = place.orchestrator(place.client, "launch", *words, **own)
    assert handed.returncode == 0, handed.stdout + handed.stderr
    (run,) = [line.split()[1] for line in handed.stdout.splitlines() if "by itself" in line]
    for follow in (("-f",), ()):
        shown = place.orchestrator(place.client, "logs", *follow, run, **own)
        assert shown.stdout == f"(noop.1) [0] the worker's own key: {OF_THE_NODE}\n", shown.stderr
    on_head = place.orchestrator(place.head, "logs", run, **place.client.env)
    assert on_head.stdout == shown.stdout
    assert place.client.path(home).is_dir()
    assert not place.head.path("/srv/of").exists()
    assert place.head.path("/root/.orchestrator").is_dir(), "the controller's home is its own"


def _files(host: Host, folder: str) -> Iterator[Path]:
    for path in host.path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def test_a_database_of_this_home_is_refused(place: HeadAndClient) -> None:
    words = ("launch", "--detach", "pipeline=noop", *OURS)
    refused = place.orchestrator(place.client, *words, ORCHESTRATOR_DATABASE="")
    assert refused.returncode == 2, refused.stderr
    assert "ORCHESTRATOR_DATABASE: the controller will run on the head of" in refused.stderr


def test_doctor_tells_each_host_what_it_can_do(place: HeadAndClient) -> None:
    client = place.orchestrator(
        place.client, "doctor", "--config-dir", "my", "fleet=lab", "--json"
    )
    found = {check["check"]: check for check in json.loads(client.stdout)}
    assert found["cluster"]["status"] == "ok"
    assert place.address in found["cluster"]["finding"]
    assert found["job server"]["status"] == "ok", found["job server"]
    assert "is no node of the cluster" in found["nodes"]["finding"]
    env = {**place.client.env, "RAY_ADDRESS": place.address}
    head = place.orchestrator(
        place.head, "doctor", "--config-dir", "my", "fleet=lab", "--json", **env
    )
    found = {check["check"]: check for check in json.loads(head.stdout)}
    assert found["pool lab"]["status"] == "ok", head.stdout
    assert f"{place.head.address} on eth0" in found["pool lab"]["finding"]
