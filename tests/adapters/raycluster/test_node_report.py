"""Each node of a cluster tells what it is like, and what it can't read or reach."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable
from importlib import metadata

import pytest
import ray

from orchestrator.adapters.raycluster.node_report import Asked, reports
from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.core.spec.hardware import Pool
from tests.clusters import POOLS


def refused(pool: Pool | None) -> Callable[[], str]:
    return lambda: f"403, says {pool.name}" if pool else ""


@pytest.mark.ray
def test_nodes_tell_of_their_versions_clocks_and_what_they_lack(ray_address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    several = [("127.0.0.1", closed), ("127.0.0.1", int(ray_address.rpartition(":")[2]))]
    asked = Asked(read=refused, reach={"database": [("127.0.0.1", closed)], "other": several})
    found = {report.node: report for report in reports(POOLS, cluster_tables.live(), asked)}
    assert {"head", "nvidia-0", "ascend-0"} <= found.keys()
    for report in found.values():
        assert not report.silent
        assert report.versions == {
            "Python": platform.python_version(),
            "Ray": ray.__version__,
            "orchestrator": metadata.version("orchestrator"),
        }
        assert abs(report.ahead) < 1.0
        assert all(free > 0 for free in report.free.values())
        assert report.interface
        assert "refused" in report.lacking["database"]
        assert "other" not in report.lacking, "one of its servers answers"
    assert found["nvidia-0"].pool == "nvidia"
    assert found["nvidia-0"].lacking["storage"] == "403, says nvidia"
    assert (found["head"].pool, "storage" in found["head"].lacking) == ("", False)
