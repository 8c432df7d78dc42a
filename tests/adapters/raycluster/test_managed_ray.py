"""The managed cluster: found again, refused where it does not fit, guarded by a token."""

from __future__ import annotations

import socket
import stat
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from orchestrator import wiring
from orchestrator.adapters.raycluster import access, jobs, machine, managed_ray
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.adapters.rayqueries import gcs
from orchestrator.core.errors import ClusterError
from orchestrator.core.settings import ClusterSettings
from orchestrator.supervisor.record import wait
from tests.clusters import POOLS
from tests.workers import worker

REAL = replace(POOLS["spare"], emulation=None)


def test_a_pool_with_real_chips_is_not_started_here(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"'spare' is not emulated .* set cluster\.address"):
        managed_ray.up(tmp_path, {"spare": REAL}, ClusterSettings())

    assert list(tmp_path.iterdir()) == []


def test_without_a_cluster_nothing_is_found_and_nothing_to_stop(tmp_path: Path) -> None:
    assert managed_ray.find(tmp_path) is None
    assert not managed_ray.down(tmp_path)


@pytest.mark.parametrize("address", ["auto", "ray://host:1", "host", "host:port", ":6379"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ClusterError, match="is not HOST:PORT"):
        access.split(address)


def test_an_address_where_nobody_answers_is_named() -> None:
    with pytest.raises(ClusterError, match=r"no Ray head node answers at '127\.0\.0\.1:9'"):
        RayCluster("127.0.0.1:9", worker)


def test_a_detached_launch_without_a_cluster_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no cluster of .* is up"):
        wiring.submit(wiring.settings(["pipeline=noop"]), tmp_path, "run-1", ())


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    managed_ray.down(tmp_path / "home")


@pytest.mark.chaos
@pytest.mark.ray
def test_a_long_temporary_folder_and_a_port_that_is_taken_meanwhile_hinder_no_start(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("t" * 134)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    draws = []

    with socket.create_server((machine.HOST, 0)) as taken:

        def ports() -> Iterator[int]:
            draws.append(None)
            if len(draws) == 1:
                yield int(taken.getsockname()[1])  # of the head
            yield from free()

        free = machine.free_ports
        monkeypatch.setattr(machine, "free_ports", ports)
        managed_ray.up(own_home, {"spare": POOLS["spare"]}, ClusterSettings())

    found = managed_ray.find(own_home)
    assert found is not None
    assert len(draws) == 2
    assert found.processes.keys() == {"head", "spare-0"}
    assert managed_ray.down(own_home)
    assert long.is_dir(), "the link to it alone is removed"


@pytest.mark.ray
def test_the_cluster_of_a_home_is_found_again(ray_home: Path) -> None:
    found = managed_ray.find(ray_home)

    assert found is not None
    assert (
        managed_ray.up(ray_home, {"ascend": POOLS["ascend"]}, ClusterSettings()) == found.address
    )
    assert {"head", "nvidia-0", "ascend-0"} <= found.processes.keys()


@pytest.mark.ray
def test_a_running_cluster_that_lacks_a_pool_is_refused_with_the_way_out(ray_home: Path) -> None:
    bigger = {"ascend": replace(POOLS["ascend"], devices_per_node=8)}
    with pytest.raises(ClusterError, match=r"'ascend': 1 x \(8 NPU.*`orchestrator down` first"):
        managed_ray.up(ray_home, bigger, ClusterSettings())


@pytest.mark.ray
def test_who_has_no_token_is_not_let_in(ray_home: Path) -> None:
    found = managed_ray.find(ray_home)
    assert found is not None
    token = ray_home / "services" / "ray.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{found.dashboard}/api/jobs/", timeout=20.0)  # noqa: S310 - http

    assert refused.value.code == 401
    refused.value.close()


@pytest.mark.ray
def test_a_detached_launch_runs_as_a_job_of_the_cluster(ray_home: Path, tmp_path: Path) -> None:
    found = managed_ray.find(ray_home)
    assert found is not None
    made = tmp_path / "made"
    code = f"import pathlib; pathlib.Path({str(made)!r}).write_text(open('who').read())"
    server = jobs.server_of(found.address)
    assert server == found.dashboard
    job = jobs.submit(server, [sys.executable, "-c", code], {"who": b"the controller"})

    assert job
    assert wait(made.exists, 60.0)
    assert wait(lambda: made.read_text() == "the controller", 5.0)


@pytest.mark.ray
def test_who_shows_no_token_or_another_one_is_told_that_it_is_that(
    ray_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = managed_ray.find(ray_home)
    assert found is not None
    facts = gcs.ask(found.address)
    assert facts is not None
    assert facts.ray == ray.__version__
    assert {"head", "nvidia-0", "ascend-0"} <= {node.name for node in facts.nodes}
    assert f"http://{facts.dashboard}" == found.dashboard
    assert gcs.elsewhere(facts) == ""
    jobs.check(found.dashboard)
    for token, said in (("", "has none"), ("Bearer " + "0" * 64, "refuses the token")):
        monkeypatch.setattr(gcs, "token", lambda token=token: token)
        with pytest.raises(ClusterError, match=said):
            jobs.check(found.dashboard)
