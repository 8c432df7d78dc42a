"""One gateway in two processes at one port: both answer, one that dies is replaced, none stays."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from orchestrator import supervisor, wiring
from orchestrator.adapters import gateway_service
from orchestrator.core.settings import GatewaySettings, MetricsSettings
from orchestrator.supervisor.record import wait
from tests.ports import free_port

SECONDS = 60.0
ASKED = json.dumps({"model": "nobody's", "prompt": "hi"})


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[GatewaySettings]:
    port = free_port(count=3)
    found = GatewaySettings(port=port, processes=2, metrics=MetricsSettings(port=port + 1))
    wiring.database(tmp_path).endpoints()  # which makes the database
    info = {"url": f"http://127.0.0.1:{port}", "cluster": "c:1"}
    env = {"ORCHESTRATOR_HOME": str(tmp_path)}
    processes = gateway_service._processes(found, info, env)
    servers = [process for process in processes if "_gateway" in process.argv]
    supervisor.start(tmp_path, gateway_service.SERVICE, servers, info=info)
    yield found
    gateway_service.down(tmp_path)


def answered(port: int, method: str, path: str, body: str = "") -> tuple[int, str]:
    """Return status and body of an answer, by a connection of its own."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def refused(settings: GatewaySettings) -> list[int]:
    """Return how many requests each process has refused, by its own figures; -1: it is away."""
    found = []
    for number in range(settings.processes):
        try:
            _, text = answered((settings.metrics.port or 0) + number, "GET", "/metrics")
        except OSError:
            found.append(-1)
            continue
        lines = [n for n in text.splitlines() if n.startswith("orchestrator_refused_total{")]
        found.append(sum(int(float(line.rsplit(" ", 1)[1])) for line in lines))
    return found


def asked(settings: GatewaySettings, times: int) -> None:
    for _ in range(times):
        status, _ = answered(settings.port, "POST", "/v1/completions", ASKED)
        assert status == 404


def servers(home: Path) -> set[int]:
    """Return the processes that serve this home."""
    service = supervisor.find(home, gateway_service.SERVICE)
    return set() if service is None else set(service.processes.values())


@pytest.mark.services
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux deals connections out")
def test_two_processes_share_a_port_and_one_that_is_killed_is_replaced(
    tmp_path: Path, settings: GatewaySettings
) -> None:
    assert wait(lambda: refused(settings) == [0, 0], SECONDS, tick=0.2)
    asked(settings, 40)
    counted = refused(settings)
    assert sum(counted) == 40
    assert min(counted) > 0
    before = servers(tmp_path)
    assert len(before) == 2
    victim = min(before)
    os.kill(victim, signal.SIGKILL)
    assert wait(lambda: len(servers(tmp_path) - {victim}) == 2, SECONDS, tick=0.2)
    assert wait(lambda: min(refused(settings)) == 0, SECONDS, tick=0.2)
    asked(settings, 40)
    assert min(refused(settings)) > 0
    assert gateway_service.down(tmp_path)
    assert servers(tmp_path) == set()
