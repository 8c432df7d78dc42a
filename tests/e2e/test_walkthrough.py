"""The ways of docs/walkthrough.md are those that the code takes, and leave no link out.

Each function on a way is called, and by what stands before it on the page: between a function and
the next one above it that the page names, no other file of ours has a part, but those through
which all calls of a kind go (`BETWEEN`). What needs a model is left out here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import httpx2 as httpx
import pytest

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.mlflow_tracker import MlflowTracker, ServerAccess
from orchestrator.core.settings import TrackingSettings
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine, Succeeded
from orchestrator.serving.gateway.routes import EndpointRoute
from tests.adapters.mlflow_tracker.conftest import Tale
from tests.clusters import begin, request
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision
from tests.test_papers import ROOT, file_of, steps_of
from tests.workers import worker

ON_RAY = "orchestrator.adapters.raycluster."
IN_THE_WORKER = f"{ON_RAY}member.run_task"
PROJECTION = "orchestrator.adapters.mlflow_tracker.projection.Projection.sync"
ELSEWHERE = (
    ON_RAY,
    PROJECTION,
    "orchestrator.serving.http.server.serve",
    "jobs.engines.embedded.",
)
OURS = ("orchestrator.", "jobs.")
# They call what they are given: which function that is, stands on the page.
BETWEEN = (
    "orchestrator.error_boundary",
    "orchestrator.serving.http.asgi",
    "orchestrator.adapters.local",  # in the place of Ray
)
# With which threads of their own, processes and the ways themselves begin.
BEGIN = {
    "orchestrator.cli.main",
    "orchestrator.controller.loop.Controller.drive",
    "orchestrator.wiring.adapters.run_worker",
    "orchestrator.worker.attempt.stream",
    "orchestrator.worker.attempt._JobRun._execute",
    "orchestrator.worker.exception_report.describe",
    "orchestrator.serving.gateway.edge.Edge.__call__",
    "orchestrator.serving.replica.app._ReplicaApp.handle",
}
HERE = ("cluster=local", "tracking=none", "pipeline=noop")
BROKEN = "NCCL error: unhandled system error, remote process exited or there was a network error"


class Calls:
    """Which of some functions are called, and by way of which other files of ours."""

    def __init__(self, names: list[str]) -> None:
        self._names = frozenset(names)
        self._files = {file_of(name).relative_to(ROOT) for name in names}
        self.through: dict[str, set[str]] = {}  # the shortest of each
        self.begin: set[str] = set()  # with none of them above, as in a thread of its own

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = name_of(frame)
        if event != "call" or name not in self._names:
            return
        files = self._above(frame)
        if files is None:
            self.begin.add(name)
            self.through.setdefault(name, set())
        elif len(files) <= len(self.through.get(name, files)):
            self.through[name] = files

    def _above(self, frame: FrameType) -> set[str] | None:
        """Return the files of ours between a call and the next one above that is on the page."""
        files = set[str]()
        above = frame.f_back
        while above is not None and name_of(above) not in self._names:
            module = module_of(above)
            if module.startswith(OURS) and module not in BETWEEN and not self._has(above):
                files.add(module)
            above = above.f_back
        return None if above is None else files

    def _has(self, frame: FrameType) -> bool:
        """Whether the file of a call is on the page."""
        file = Path(frame.f_code.co_filename)
        return file.is_relative_to(ROOT) and file.relative_to(ROOT) in self._files


def module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def name_of(frame: FrameType) -> str:
    return f"{module_of(frame)}.{frame.f_code.co_qualname}"


@contextmanager
def calls(names: list[str]) -> Iterator[Calls]:
    """Note the calls of these functions meanwhile, in new threads too."""
    noted = Calls(names)
    threading.setprofile(noted)
    sys.setprofile(noted)
    try:
        yield noted
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type] # as its documentation has it


def left_out(names: list[str], noted: Calls) -> list[str]:
    """Return what a way does not say: functions that were not called, files that lie between."""
    here = [name for name in names if not name.startswith(ELSEWHERE)]
    lost = [f"{name} is not called" for name in here if name not in noted.through]
    lost += [f"{name} is called by nobody of these" for name in noted.begin - BEGIN]
    return lost + [
        f"{name} is called through {', '.join(sorted(noted.through[name]))}"
        for name in here
        if noted.through.get(name)
    ]


def test_a_launch_goes_the_way_that_the_page_shows(within) -> None:
    steps = [*steps_of("One launch"), *steps_of("One attempt")]
    with calls(steps) as noted:
        assert within("launch", *HERE).returncode == 0
    assert left_out(steps, noted) == []


def test_a_link_that_is_left_out_is_named(within) -> None:
    steps = [*steps_of("One launch"), *steps_of("One attempt")]
    link = "orchestrator.service.planning.plan_together"
    shorter = [step for step in steps if not step.startswith("orchestrator.service.planning.")]
    assert link in steps
    with calls(shorter) as noted:
        assert within("launch", *HERE).returncode == 0
    (lost,) = left_out(shorter, noted)
    assert lost.endswith("is called through orchestrator.service.planning")


def test_the_thread_of_the_tracker_writes_what_mlflow_lacks() -> None:
    story = Tale()
    story.succeed("data")
    steps = ["orchestrator.adapters.mlflow_tracker.tracker.MlflowTracker._work", PROJECTION]
    with calls(steps) as noted:
        tracker = MlflowTracker(
            story.store,
            story.name,
            uri="http://127.0.0.1:9",
            settings=TrackingSettings(system_seconds=0),
            clock=SystemClock(),
            output=story.output,
            access=ServerAccess(seconds=0.1),
        )
        tracker.notify()
        tracker.close(0.2)
    assert noted.through[PROJECTION] == set()


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_an_attempt_on_ray_goes_the_way_that_the_page_shows(
    ray_address: str, workers: int
) -> None:
    from orchestrator.adapters.raycluster.cluster import RayCluster

    steps = [step for step in steps_of("One attempt") if step.startswith(ON_RAY)]
    polls = [step for step in steps if step.endswith(".poll")]
    cluster = RayCluster(ray_address, worker)
    with calls(steps) as noted:
        asked = request("who_called", f"way-{workers}", needs=Needs(workers=workers))
        attempt = begin(cluster, asked)
        assert [s for s in steps if s not in noted.through] == [*polls, IN_THE_WORKER], "at once"
        assert isinstance(attempt.finish(), Succeeded)
    cluster.close()
    assert [s for s in steps if s not in noted.through] == [IN_THE_WORKER]
    (above, *_) = [line.text for line in attempt.of(LogLine)]
    assert above == IN_THE_WORKER, "in the process of the worker"


def test_a_failure_goes_the_way_that_the_page_shows(within, tmp_path) -> None:
    job = f"def fail(ctx):\n    raise RuntimeError({BROKEN!r})\n"
    (tmp_path / "failing_job.py").write_text(job)
    own = (
        "jobs.packages=[failing_job]",
        "jobs.code=[.]",
        "pipeline.stages.noop.limits.attempts=1",
    )
    steps = steps_of("One failure")
    with calls(steps) as noted:
        within("launch", *HERE, *own, "pipeline.stages.noop.job=failing_job.fail")
    assert left_out(steps, noted) == []


def test_a_request_goes_the_way_that_the_page_shows() -> None:
    chat = {"model": "echo", "messages": [{"role": "user", "content": "ping"}]}
    steps = [*steps_of("One request"), *steps_of("One answer")]
    with calls(steps) as noted, echoing(echo_engine()) as urls:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))
        with gateway_of(board) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=chat)
    assert answer.status_code == 200
    assert left_out(steps, noted) == []
