"""What a worker on Ray writes past Python is heard once, in order, on two attempts in turn."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, LogLine, Succeeded
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


LEAVES = """
    import os

    def job(ctx):
        ctx.metrics({"loss": 2.0}, step=1)
        os.write(2, b"xyzzy: fatal 0x77\\n")
        os._exit(13)
    """


def asked(module: str, stage: str, workers: int, place: Path) -> AttemptRequest:
    return replace(
        request(f"{module}.job", f"{stage}-{workers}", needs=Needs(workers=workers)),
        packages=(module,),
        code=(str(place),),
        storage=(place / "store").as_uri(),
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_native_lines_stand_among_those_that_a_job_prints(
    cluster: RayCluster, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "nativejobs.py").write_text(textwrap.dedent(WRITES))
    for turn in (1, 2):
        attempt = begin(cluster, asked("nativejobs", f"native-{turn}", workers, tmp_path))
        outcome = attempt.finish()
        assert isinstance(outcome, Succeeded), outcome
        lines: Any = attempt.of(LogLine)
        for rank in range(workers):
            said = [line.text for line in lines if line.rank == rank]
            assert said.pop(said.index("held back by C"))
            assert said == ["printed", "NCCL WARN native", "logged", "child"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_that_ends_its_process_fails_with_the_code_and_its_last_native_line(
    cluster: RayCluster, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "leavingjobs.py").write_text(textwrap.dedent(LEAVES))
    outcome = begin(cluster, asked("leavingjobs", "leaves", workers, tmp_path)).finish()
    assert isinstance(outcome, Failed), outcome
    found = outcome.failure
    said = "exited with code 13; its last line: xyzzy: fatal 0x77"
    assert found.evidence == f"worker {found.rank} on nvidia-0 {said}"
