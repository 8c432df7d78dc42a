"""The thin path over hosts, in short: trained on one, served on another, asked from a third."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.clients import ask_once, new_key
from tests.hosts.services import BUCKET
from tests.hosts.site import OURS, Site, site

pytestmark = [pytest.mark.services, pytest.mark.slow, pytest.mark.timeout(600)]
OPEN = "gateway.host=0.0.0.0"
HOME_ARTIFACTS = ".orchestrator/artifacts"


@pytest.fixture(scope="module")
def launched(logs: Path) -> Iterator[Site]:
    """A site whose host 0, the head, has the services, and has launched a pipeline."""
    with site(logs, hosts=3, services=0, mlflow=False) as built:
        words = ("pipeline=short", *OURS, "tracking=none", OPEN)
        built.do(built.network.hosts[0], "launch", *words)
        yield built


def test_each_role_ran_on_the_host_of_its_pool(launched: Site) -> None:
    stages = launched.run().stages
    assert [stages[name].attempts[-1].pool for name in ("pretrain", "serve")] == [
        "hopper",
        "atlas",
    ]
    assert not launched.run().header.plan.emulated


def test_another_host_asks_the_endpoint_and_all_know_it(launched: Site) -> None:
    first, second, third = launched.network.hosts
    ask_once(launched, second, "short", new_key(launched, first))
    assert f"http://{first.address}:8000/v1" in launched.do(third, "endpoints")


def test_another_host_prints_what_was_written(launched: Site) -> None:
    second = launched.network.hosts[1]
    printed = launched.do(second, "logs", launched.run().header.run, "pretrain")
    assert "176 rows, 2 workers" in printed


def test_what_was_made_is_in_the_bucket_and_in_no_home(launched: Site) -> None:
    artifact = launched.run().stages["export"].artifact
    assert artifact is not None
    assert artifact.uri.startswith(f"s3://{BUCKET}/")
    assert not [host for host in launched.network.hosts if host.path(HOME_ARTIFACTS).exists()]


def test_it_ends_from_another_host_and_nothing_of_ours_runs_on(launched: Site) -> None:
    first, second, _ = launched.network.hosts
    launched.do(second, "undeploy", "short")
    launched.do(first, "down")
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in first.processes()]
    assert not [line for line in lines if b"orchestrator" in line.split(b"\0")]
