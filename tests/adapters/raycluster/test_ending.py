"""Workers are asked to end before they are killed, and what they are saving then is kept."""

from __future__ import annotations

import os
import signal
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.adapters.raycluster.ending import end
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine, Succeeded
from orchestrator.supervisor.record import birth, wait
from tests.clusters import POOLS, begin, request
from tests.workers import worker

SAVES = """
    import subprocess, threading

    def job(ctx):
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        def write(folder):
            ctx.log(f"writes beside {child.pid}")
            threading.Event().wait(1.0)
            (folder / "weights").write_text("x")
        ctx.save_checkpoint(1, write)
        threading.Event().wait()

    def ends(ctx):
        pass
    """


@dataclass
class FakeAttempt:
    """An attempt whose workers leave so many seconds after they were asked to."""

    seconds: float | None = None
    kill_after: float = 10.0
    begun: bool = True
    error: Exception | None = None
    key: str = "run/stage/1"
    time: float = 100.0
    did: list[tuple[str, float]] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def ask_to_end(self) -> bool:
        self.did.append(("asked", self.time))
        return self.begun

    def all_left(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.seconds is not None and self.time - 100.0 >= self.seconds

    def end(self) -> None:
        self.did.append(("killed", round(self.time, 1)))


@pytest.mark.parametrize(
    ("attempt", "killed"),
    [
        (FakeAttempt(seconds=3.0), 103.0),
        (FakeAttempt(seconds=None), 110.0),
        (FakeAttempt(seconds=None, kill_after=2.0), 102.0),
        (FakeAttempt(begun=False), 100.0),
        (FakeAttempt(error=ConnectionError("Ray is away")), 100.0),
    ],
)
def test_workers_have_some_seconds_to_leave_and_are_killed_then(
    attempt: FakeAttempt, killed: float
) -> None:
    end(attempt, attempt.now, attempt.sleep)
    assert attempt.did == [("asked", 100.0), ("killed", pytest.approx(killed, abs=0.2))]


def test_where_they_have_no_time_they_are_not_asked() -> None:
    attempt = FakeAttempt(kill_after=0.0)
    end(attempt, attempt.now, attempt.sleep)
    assert attempt.did == [("killed", 100.0)]


@pytest.mark.ray
def test_a_worker_that_can_not_hear_is_killed(ray_address: str) -> None:
    cluster = RayCluster(ray_address, worker)
    attempt = begin(cluster, request("live", "deaf"))
    attempt.until_heard(LogLine)
    pid = next(int(line.text) for line in attempt.said if isinstance(line, LogLine))
    os.kill(pid, signal.SIGSTOP)
    cluster.cancel(attempt.key)
    cluster.close()

    assert wait(lambda: not birth(pid), 15.0)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_the_checkpoint_that_a_cancelled_attempt_is_saving_is_kept_and_nothing_else_is_left(
    cluster: RayCluster, tmp_path: Path, workers: int
) -> None:
    (tmp_path / "savingjobs.py").write_text(textwrap.dedent(SAVES))
    asked = replace(
        request("savingjobs.job", f"saves-{workers}", needs=Needs(workers=workers)),
        packages=("savingjobs",),
        code=(str(tmp_path),),
        storage=(tmp_path / "store").as_uri(),
        kill_after=10.0,
    )
    attempt = begin(cluster, asked)
    attempt.until(lambda: len(attempt.of(LogLine)) == workers)
    lines = [line.text for line in attempt.of(LogLine) if isinstance(line, LogLine)]
    children = [int(line.rpartition(" ")[2]) for line in lines]
    assert all(birth(child) for child in children)
    cluster.cancel(asked.key)
    following = begin(cluster, replace(asked, job="savingjobs.ends", attempt=2))
    assert not cluster.poll(following.key), "it waits until the one before has saved"

    store = FsspecArtifactStore(asked.storage)
    name = f"checkpoints/run/saves-{workers}/step-0000000001-0001-0001"
    assert wait(lambda: not any(birth(child) for child in children), 15.0)
    found = store.verify(f"{asked.storage}/{name}")
    assert sorted(found.files) == [f"rank-{rank}/weights" for rank in range(workers)]
    assert isinstance(following.finish(), Succeeded)
    assert wait(lambda: cluster.pools(POOLS)["nvidia"].free == 2, 10.0)
