"""What a worker on Ray writes past Python is heard once, in order, on two attempts in turn."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.spec import Needs
from orchestrator.messages import LogLine, Succeeded
from orchestrator.wiring import run_worker
from tests.clusters import begin, request

pytestmark = pytest.mark.ray
WRITES = """
    import ctypes, os, subprocess

    def job(ctx):
        print("printed")
        os.write(2, b"NCCL WARN native\\n")
        ctx.log("logged")
        subprocess.run(["sh", "-c", "echo child >&2"])
        ctypes.CDLL(None).printf(b"held back by C")
    """


@pytest.fixture
def cluster(ray_address: str) -> Iterator[RayCluster]:
    made = RayCluster(ray_address, run_worker)
    yield made
    made.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_native_lines_stand_among_those_that_a_job_prints(
    cluster: RayCluster, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "nativejobs.py").write_text(textwrap.dedent(WRITES))
    for turn in (1, 2):
        asked = replace(
            request("nativejobs.job", f"native-{turn}-{workers}", needs=Needs(workers=workers)),
            packages=("nativejobs",),
            code=(str(tmp_path),),
            storage=(tmp_path / "store").as_uri(),
        )
        attempt = begin(cluster, asked)
        outcome = attempt.finish()
        assert isinstance(outcome, Succeeded), outcome
        lines: Any = attempt.of(LogLine)
        for rank in range(workers):
            said = [line.text for line in lines if line.rank == rank]
            assert said.pop(said.index("held back by C"))
            assert said == ["printed", "NCCL WARN native", "logged", "child"]
