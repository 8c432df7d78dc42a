"""Workers that stand by have done their imports, hold their place, and take over the attempt."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, LogLine, Placed, Progress, Succeeded
from orchestrator.supervisor.record import wait
from orchestrator.wiring import run_worker, warm_worker
from tests.clusters import POOLS, begin, request

pytestmark = pytest.mark.ray
SECONDS = 60.0
JOB = """
    import os, pathlib, threading
    here = pathlib.Path(__file__).parent
    (here / f"imported-{os.getpid()}").touch()

    def tell(ctx):
        ctx.log(str(os.getpid()))
        while ctx.attempt == 1:
            ctx.progress(1, 2)
            threading.Event().wait(0.1)
            if (here / "go").exists():
                return
    """


@pytest.fixture
def cluster(ray_address: str) -> Iterator[RayCluster]:
    made = RayCluster(ray_address, run_worker, warm=warm_worker)
    yield made
    made.close()


def asked(folder: Path, on: str, *, attempt: int = 2, workers: int = 1) -> AttemptRequest:
    package = f"warm_{folder.name}"  # a process that is used again has imported others
    (folder / f"{package}.py").write_text(textwrap.dedent(JOB))
    return replace(
        request(f"{package}.tell", package, on=on, needs=Needs(workers=workers)),
        attempt=attempt,
        packages=(package,),
        code=(str(folder),),
        storage=(folder / "store").as_uri(),
    )


def warm(folder: Path) -> set[str]:
    return {path.name.removeprefix("imported-") for path in folder.glob("imported-*")}


def free(cluster: RayCluster, name: str) -> int:
    return cluster.pools(POOLS)[name].free


@pytest.mark.parametrize("workers", [1, 2])
def test_an_attempt_goes_to_those_that_stand_by_for_it(
    cluster: RayCluster, tmp_path: Path, workers: int
) -> None:
    first = begin(cluster, asked(tmp_path, "nvidia", attempt=1))
    first.until_heard(Progress)
    own = warm(tmp_path)
    cluster.prepare(asked(tmp_path, "ascend", workers=workers))
    first.until(lambda: len(warm(tmp_path)) == len(own) + workers, SECONDS)
    assert wait(lambda: free(cluster, "ascend") == 2 - workers, 10.0)
    standing = warm(tmp_path) - own
    cluster.cancel(first.key)
    second = begin(cluster, asked(tmp_path, "ascend", workers=workers))

    assert isinstance(second.finish(), Succeeded)
    lines: Any = second.of(LogLine)
    assert {line.text for line in lines} == standing
    assert second.of(Placed) == [Placed(("ascend-0",) * workers)]
    assert wait(lambda: free(cluster, "ascend") == 2, 10.0)


def test_who_is_released_or_in_the_way_or_dead_is_sent_away(
    cluster: RayCluster, tmp_path: Path
) -> None:
    first = begin(cluster, asked(tmp_path, "nvidia", attempt=1))
    first.until_heard(Progress)
    own = warm(tmp_path)
    wanted = asked(tmp_path, "ascend")
    cluster.prepare(wanted)
    first.until(lambda: len(warm(tmp_path)) == len(own) + 1, SECONDS)
    cluster.release(wanted.run, wanted.stage)
    assert wait(lambda: free(cluster, "ascend") == 2, 10.0)

    cluster.prepare(wanted)
    first.until(lambda: len(warm(tmp_path)) == len(own) + 2, SECONDS)
    other = replace(wanted, stage="warm-other", needs=Needs(devices=2))
    assert isinstance(begin(cluster, other).finish(), Succeeded)

    assert wait(lambda: free(cluster, "ascend") == 2, 10.0)
    known = warm(tmp_path)
    cluster.prepare(wanted)
    first.until(lambda: len(warm(tmp_path)) == len(known) + 1, SECONDS)
    os.kill(int((warm(tmp_path) - known).pop()), signal.SIGKILL)
    assert isinstance(begin(cluster, wanted).finish(), Succeeded)


def test_where_there_is_no_room_nobody_stands_by(cluster: RayCluster, tmp_path: Path) -> None:
    first = begin(cluster, asked(tmp_path, "nvidia", attempt=1))
    first.until_heard(Progress)
    cluster.prepare(asked(tmp_path, "nvidia", workers=2))
    cluster.poll(first.key)
    (tmp_path / "go").touch()

    assert isinstance(first.finish(), Succeeded)
    assert wait(lambda: free(cluster, "nvidia") == 2, 10.0)
