"""Hosts share nothing but the network, and nothing of them is left."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.supervisor.record import wait
from tests.hosts.namespaces import ROOT, Host, Network, lacking, several_hosts

pytestmark = pytest.mark.services
PORT = 8080
OWN_FOLDERS = ("/tmp", "/root", "/home", "/srv", "/var/tmp", "/dev/shm")  # noqa: S108 - what is tested


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if why := lacking():
        pytest.skip(why)
    with several_hosts(2, tmp_path_factory.mktemp("logs")) as network:
        network.hosts[0].write("page", "text")
        server = (sys.executable, "-m", "http.server", str(PORT))
        network.hosts[0].start(*server, name="http")
        assert wait(lambda: network.hosts[0].listens(PORT), 20.0, tick=0.05)
        yield network


def seconds(host: Host, other: Host) -> float | None:
    """Return how long a host takes to ask another one; `None` where it is not answered."""
    url = f"http://{other.address}:{PORT}/page"
    asked = host.run("curl", "-s", "--max-time", "2", "-w", " %{time_total}", url)
    return None if asked.returncode else float(asked.stdout.removeprefix("text "))


def test_each_has_a_name_an_address_and_processes_of_its_own(network: Network) -> None:
    first, second = network.hosts
    assert first.run("hostname").stdout == "h0\n"
    assert f"inet {second.address}/24" in second.run("ip", "addr").stdout
    assert first.run("ps", "-e", "-o", "pid=").stdout.split()[0] == "1"
    assert second.processes() == []


@pytest.mark.parametrize("folder", OWN_FOLDERS)
def test_what_one_writes_no_other_sees(network: Network, folder: str) -> None:
    first, second = network.hosts
    path = f"{folder}/{secrets.token_hex(8)}"
    first.write(path, "")
    assert first.run("test", "-e", path).returncode == 0
    assert second.run("test", "-e", path).returncode == 1
    assert not Path(path).exists()


@pytest.mark.parametrize("folder", ["/etc", "/usr/lib", "/var/lib", ROOT, sys.prefix])
def test_what_they_share_is_read_only(network: Network, folder: str) -> None:
    tried = network.hosts[0].run("touch", f"{folder}/mine")
    assert "Read-only file system" in tried.stderr


def test_a_cut_host_is_not_reached_until_it_is_healed(network: Network) -> None:
    first, second = network.hosts
    assert seconds(second, first) is not None
    network.cut(first)
    assert seconds(second, first) is None
    network.heal(first)
    assert wait(lambda: seconds(second, first) is not None, 20.0)


def test_a_one_sided_cut_loses_what_one_host_sends(network: Network) -> None:
    first, second = network.hosts
    network.lose(second, first)
    assert seconds(second, first) is None
    network.find(second, first)
    assert seconds(second, first) is not None


def test_a_slow_network_takes_its_time_and_loses_packets(network: Network) -> None:
    first, second = network.hosts
    with network.slow(100, 0):
        taken = seconds(second, first)
        assert taken is not None
        assert taken > 0.2, "two round trips: to connect, and to ask"
    with network.slow(0, 100):
        assert seconds(second, first) is None
    assert seconds(second, first) is not None


def test_nothing_is_left_when_whoever_made_them_is_killed(tmp_path: Path) -> None:
    if why := lacking():
        pytest.skip(why)
    text = """
        import sys
        from pathlib import Path
        from tests.hosts.namespaces import several_hosts
        with several_hosts(1, Path(sys.argv[1])) as network:
            host, = network.hosts
            print(host.pid, host.start("setsid", "sleep", "1000", name="sleep").pid, flush=True)
            sys.stdin.read()
    """
    argv = [sys.executable, "-c", textwrap.dedent(text), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}  # noqa: TID251 - a test's own
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, env=env, **pipes) as maker:
        assert maker.stdout is not None
        pids = [int(pid) for pid in maker.stdout.readline().split()]
        assert all(map(psutil.pid_exists, pids))
        maker.send_signal(signal.SIGKILL)
    assert wait(lambda: not any(map(psutil.pid_exists, pids)), 20.0, tick=0.05)
