"""The ways of docs/walkthrough.md are those that the code takes: each function on them is called.

What needs MLflow or a model is left out here, and what runs in a process of Ray's: their names
alone are checked, elsewhere.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import httpx2 as httpx
import pytest

from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Succeeded
from orchestrator.serving.gateway.routes import EndpointRoute
from tests.clusters import begin, request
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision
from tests.test_papers import steps_of
from tests.workers import worker

ELSEWHERE = (
    "orchestrator.adapters.",
    "orchestrator.serving.http.server.serve",
    "jobs.engines.embedded.",
)
ON_RAY = "orchestrator.adapters.raycluster."
IN_THE_WORKER = f"{ON_RAY}member.run_task"
HERE = ("cluster=local", "tracking=none", "pipeline=noop")
BROKEN = "NCCL error: unhandled system error, remote process exited or there was a network error"


@contextmanager
def calls() -> Iterator[set[str]]:
    """Give the dotted names of the functions that are called meanwhile, in new threads too."""
    names: set[str] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            names.add(f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_qualname}")

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield names
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type] # as its documentation has it


def left_out(heading: str, names: set[str]) -> list[str]:
    """Return the functions of a way that were to be called, and were not."""
    return [
        step for step in steps_of(heading) if step not in names and not step.startswith(ELSEWHERE)
    ]


def test_a_launch_goes_the_way_that_the_page_shows(within) -> None:
    with calls() as names:
        assert within("launch", *HERE).returncode == 0
    assert left_out("One launch", names) == []


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_an_attempt_on_ray_goes_the_way_that_the_page_shows(
    ray_address: str, workers: int
) -> None:
    from orchestrator.adapters.raycluster.cluster import RayCluster

    steps = [step for step in steps_of("One launch") if step.startswith(ON_RAY)]
    polls = [step for step in steps if step.endswith(".poll")]
    cluster = RayCluster(ray_address, worker)
    with calls() as names:
        asked = request("succeed", f"way-{workers}", needs=Needs(workers=workers))
        attempt = begin(cluster, asked)
        assert [s for s in steps if s not in names] == [*polls, IN_THE_WORKER], "at once"
        assert isinstance(attempt.finish(), Succeeded)
    cluster.close()
    assert [s for s in steps if s not in names] == [IN_THE_WORKER]


def test_a_failure_goes_the_way_that_the_page_shows(within, tmp_path) -> None:
    job = f"def fail(ctx):\n    raise RuntimeError({BROKEN!r})\n"
    (tmp_path / "failing_job.py").write_text(job)
    own = (
        "jobs.packages=[failing_job]",
        "jobs.code=[.]",
        "pipeline.stages.noop.limits.attempts=1",
    )
    with calls() as names:
        within("launch", *HERE, *own, "pipeline.stages.noop.job=failing_job.fail")
    assert left_out("One failure", names) == []


def test_a_request_goes_the_way_that_the_page_shows() -> None:
    chat = {"model": "echo", "messages": [{"role": "user", "content": "ping"}]}
    with calls() as names, echoing(echo_engine()) as urls:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))
        with gateway_of(board) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=chat)
    assert answer.status_code == 200
    assert left_out("One request", names) == []
