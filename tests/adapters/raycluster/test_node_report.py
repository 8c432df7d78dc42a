"""Each node of a cluster tells what it is like, and what it can't read or reach."""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import ray

from orchestrator.adapters.raycluster import node_report
from orchestrator.adapters.raycluster.node_report import NodeChecks, reports
from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import NodeReport
from orchestrator.node import software
from tests.clusters import POOLS


def refused(pool: Pool | None) -> Callable[[], str]:
    return lambda: f"403, says {pool.name}" if pool else ""


@pytest.mark.ray
def test_nodes_tell_of_their_versions_clocks_and_what_they_lack(ray_address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    several = [("127.0.0.1", closed), ("127.0.0.1", int(ray_address.rpartition(":")[2]))]
    reach = {"database": [("127.0.0.1", closed)], "other": several}
    checks = NodeChecks(read=refused, reach=reach, code=("orchestrator", "jobs"))
    found = {report.node: report for report in reports(POOLS, cluster_tables.live(), checks)}
    assert {"head", "nvidia-0", "ascend-0"} <= found.keys()
    for report in found.values():
        assert not report.silent
        assert report.versions == {
            "Python": platform.python_version(),
            "Ray": ray.__version__,
            "orchestrator": metadata.version("orchestrator"),
        }
        assert report.code == {name: software.package(name) for name in ("orchestrator", "jobs")}
        assert abs(report.ahead) < 1.0
        assert all(free > 0 for free in report.free.values())
        assert report.interface
        assert "refused" in report.lacking["database"]
        assert "other" not in report.lacking, "one of its servers answers"
    assert found["nvidia-0"].pool == "nvidia"
    assert found["nvidia-0"].lacking["storage"] == "403, says nvidia"
    assert (found["head"].pool, "storage" in found["head"].lacking) == ("", False)


def test_what_is_free_is_told_of_the_folder_of_the_cache_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache" / "deeper"
    monkeypatch.delenv("ORCHESTRATOR_CACHE", raising=False)
    reporter = node_report._NodeReporter()
    assert reporter.free(str(cache))[str(cache)] > 0, "it is made when it is needed"
    assert "" not in reporter.free("")
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "own"))
    assert str(tmp_path / "own") in reporter.free(str(cache)), "a node may name another"
    assert str(cache) not in reporter.free(str(cache))


@pytest.mark.parametrize(
    ("answer", "lacking", "untried"),
    [
        (("", ""), {}, {}),
        (("no such password", ""), {"database": "no such password"}, {}),
        (("", "it is not set there"), {}, {"database": "it is not set there"}),
    ],
)
def test_a_node_says_whether_it_opens_the_database(
    answer: tuple[str, str], lacking: dict[str, str], untried: dict[str, str]
) -> None:
    report = NodeReport(node="h1", pool="a", host="10.0.0.2")
    after = node_report._with_database(report, node_report._NodeAnswer(answer))
    assert (after.lacking, after.untried) == (lacking, untried)
    cut_off = replace(report, lacking={"database": "no route"})
    assert node_report._with_database(cut_off, node_report._NodeAnswer(answer)) == cut_off


class StoppedNode:
    """Sleeps when it is asked what it is like."""

    def ping(self) -> None:
        """Show that it has begun."""

    def facts(self, *_asked: object) -> dict[str, object]:
        threading.Event().wait(60.0)
        return {}

    def now(self) -> float:
        threading.Event().wait(60.0)
        return 0.0


class LateReader(StoppedNode):
    """Tells what it is like; to look at the storage it takes long."""

    def facts(self, *_asked: object) -> dict[str, object]:
        return {"interface": "eth7"}

    def now(self) -> float:
        return time.time()  # noqa: TID251 - the clock that is compared

    def call(self, _read: object) -> str:
        threading.Event().wait(60.0)
        return ""


@pytest.mark.ray
def test_silent_nodes_are_waited_for_together(
    ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ray_address
    (head,) = [node for node in cluster_tables.live() if node.name == "head"]
    kinds = (StoppedNode, StoppedNode, LateReader, LateReader, LateReader)
    nodes = [replace(head, id=str(number), name=str(number)) for number in range(len(kinds))]
    actors = [ray.remote(num_cpus=0)(kind).remote() for kind in kinds]
    ray.get([actor.ping.remote() for actor in actors], timeout=90.0)
    following = iter(actors)
    monkeypatch.setattr(node_report, "_on", lambda _node, _pool: next(following))
    monkeypatch.setattr(node_report, "SECONDS", 4.0)

    began = time.monotonic()
    found = reports({}, nodes, NodeChecks(read=refused, reach={}))
    assert time.monotonic() - began < 3 * 4.0, "as many seconds for facts, clocks and storage"
    late = "it does not answer within 4 s"
    assert [report.silent for report in found] == [late, late, "", "", ""]
    assert [report.lacking.get("storage", "") for report in found] == ["", "", late, late, late]


def test_who_can_not_say_it_lacks_the_database() -> None:
    report = NodeReport(node="h1", pool="a", host="10.0.0.2")
    late = node_report._NodeAnswer(why="it does not answer")
    after = node_report._with_database(report, late)
    assert after.lacking == {"database": "it does not answer"}
