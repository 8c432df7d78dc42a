"""What hangs is found in the time that is set, by its place, and really ends."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core import artifact_paths
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Alive, AttemptRequest, LogLine
from orchestrator.supervisor.record import wait
from tests.clusters import POOLS, Attempt, begin, request
from tests.workers import worker

pytestmark = pytest.mark.ray
PAIR = Needs(workers=2)
WITHIN = 20.0  # seconds
SOON = Watch(hang=4.0)  # a busy host tells of a hang later than it sees it, and before silence
UNREAD_SECONDS = 60.0  # of more batches than a stream holds, which takes 10 s at the least
STUCK = """
    import os, threading

    def alone(ctx):
        ctx.log(str(os.getpid()))
        ctx.metrics({"train/loss": 1.0}, step=3)
        read_shard()

    def together(ctx):
        from torch import distributed, ones
        ctx.log(str(os.getpid()))
        ctx.metrics({"train/loss": 1.0}, step=3)
        if ctx.rank == 1:
            read_shard()
        distributed.all_reduce(ones(1))

    def replaced(ctx):
        ctx.latest_checkpoint()
        ctx.log(str(os.getpid()))
        read_shard()

    def unread(ctx):
        ctx.latest_checkpoint()
        ctx.log(str(os.getpid()))
        while True:
            ctx.log("works")
            threading.Event().wait(0.05)

    def read_shard():
        threading.Event().wait()
    """


def asked(folder: Path, job: str, needs: Needs) -> AttemptRequest:
    (folder / "stuckjobs.py").write_text(textwrap.dedent(STUCK))
    return replace(
        request(f"stuckjobs.{job}", f"stuck-{job}", needs=needs),
        packages=("stuckjobs",),
        code=(str(folder),),
        storage=(folder / "store").as_uri(),
        watch=SOON,
    )


def pids(attempt: Attempt) -> list[int]:
    lines: Any = attempt.of(LogLine)
    return [int(line.text) for line in lines if line.text.isdecimal()]


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    except OSError:
        return False
    return not state.startswith("Z")


def is_over(cluster: RayCluster, attempt: Attempt) -> bool:
    """Return whether nothing is left of an attempt: no process, and its place is free."""

    def over() -> bool:
        free = cluster.pools(POOLS)["nvidia"].free
        return free == 2 and not any(runs(pid) for pid in pids(attempt))

    return wait(over, 10.0)


def test_a_job_that_hangs_is_told_with_its_place_and_its_process_ends(
    cluster: RayCluster, tmp_path: Path
) -> None:
    attempt = begin(cluster, asked(tmp_path, "alone", Needs()))
    attempt.until_heard(LogLine)
    began = time.monotonic()
    outcome: Any = attempt.finish()

    assert time.monotonic() - began < WITHIN
    failure = outcome.failure
    assert (failure.kind, failure.rank, failure.step) == (FailureKind.HANG, 0, 3)
    assert failure.node == "nvidia-0"
    assert failure.evidence.startswith("no sign of life for 4 s after step 3; the job is in ")
    assert "in read_shard" in failure.detail
    assert is_over(cluster, attempt)


def test_of_a_gang_the_one_is_told_that_the_others_wait_for(
    cluster: RayCluster, tmp_path: Path
) -> None:
    attempt = begin(cluster, asked(tmp_path, "together", PAIR))
    outcome: Any = attempt.finish()

    assert (outcome.failure.kind, outcome.failure.rank) == (FailureKind.HANG, 1)
    assert "in read_shard" in outcome.failure.detail
    assert is_over(cluster, attempt)


def test_the_process_of_an_attempt_that_was_replaced_ends_though_nobody_ends_it(
    cluster: RayCluster, tmp_path: Path
) -> None:
    replaced = asked(tmp_path, "replaced", Needs())
    waits = replace(replaced.waits, fence=1.0)
    attempt = begin(cluster, replace(replaced, watch=Watch(hang=None), waits=waits))
    attempt.until_heard(LogLine)
    (pid,) = pids(attempt)
    folder = artifact_paths.checkpoints(replaced.run, replaced.stage)
    FsspecArtifactStore(replaced.storage).mark(f"{folder}/claims/9999-0001-anew", "")

    assert wait(lambda: not runs(pid), 60.0)
    outcome: Any = attempt.finish()
    assert outcome.failure.kind is FailureKind.CANCELLED
    assert "attempt 1 of epoch 9999 has claimed" in outcome.failure.evidence


@pytest.mark.chaos
@pytest.mark.timeout(300)  # a stream is long at standing still where the machine is busy
def test_a_gang_whose_stream_nobody_reads_ends_by_itself_once_it_was_replaced(
    cluster: RayCluster, tmp_path: Path
) -> None:
    unread = asked(tmp_path, "unread", PAIR)
    waits = replace(unread.waits, fence=2.0)
    attempt = begin(cluster, replace(unread, watch=Watch(hang=None), waits=waits))
    attempt.until(lambda: len(pids(attempt)) == 2)
    workers = pids(attempt)
    wait(lambda: False, UNREAD_SECONDS)
    assert all(runs(pid) for pid in workers), "nobody has replaced it"
    folder = artifact_paths.checkpoints(unread.run, unread.stage)
    FsspecArtifactStore(unread.storage).mark(f"{folder}/claims/9999-0001-anew", "")

    assert wait(lambda: not any(runs(pid) for pid in workers), 60.0)
    outcome: Any = attempt.finish()
    assert outcome.failure.kind is FailureKind.CANCELLED
    assert "attempt 1 of epoch 9999 has claimed" in outcome.failure.evidence
    assert is_over(cluster, attempt)


def test_a_stopped_process_is_missed_and_killed(ray_address: str) -> None:
    cluster = RayCluster(ray_address, worker)
    attempt = begin(cluster, replace(request("live", "stopped", needs=PAIR), watch=SOON))
    attempt.until(lambda: len(pids(attempt)) == 2 and lives(attempt, 1))
    os.kill(pid_of(attempt, 1), signal.SIGSTOP)
    began = time.monotonic()
    outcome: Any = attempt.finish()

    assert time.monotonic() - began < WITHIN
    assert (outcome.failure.kind, outcome.failure.rank) == (FailureKind.HANG, 1)
    assert outcome.failure.evidence.startswith("worker 1 on node 'nvidia-0' is silent for ")
    assert outcome.failure.step == 7
    assert is_over(cluster, attempt)


def pid_of(attempt: Attempt, rank: int) -> int:
    lines: Any = attempt.of(LogLine)
    return next(int(line.text) for line in lines if line.rank == rank)


def lives(attempt: Attempt, rank: int) -> bool:
    heard: Any = attempt.of(Alive)
    return any(one.rank == rank for one in heard)
