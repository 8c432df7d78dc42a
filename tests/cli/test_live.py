"""What is told of a run while it goes on, where there is no terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator.cli.live import SECONDS_BETWEEN_LINES, LiveView
from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.states import AttemptStarted, AttemptWaits
from orchestrator.display import tables
from orchestrator.messages import Alive, Placed, Progress, Waiting
from tests.build import plan, stage
from tests.core.histories import after
from tests.fakes import FakeClock


def test_what_a_pool_says_is_printed_as_it_says_it() -> None:
    out, clock = io.StringIO(), FakeClock(10.0)
    view = LiveView(Console(file=out, width=200), clock)
    clock.sleep(SECONDS_BETWEEN_LINES)
    view.observe("train", 1, Waiting("no record from remote rank [unknown]"))
    clock.sleep(SECONDS_BETWEEN_LINES)
    view.observe("train", 1, Waiting("no record from remote rank [unknown]"))
    assert "train: no record from remote rank [unknown]" in out.getvalue()


def test_what_has_its_place_waits_no_more() -> None:
    out, clock = io.StringIO(), FakeClock(10.0)
    view = LiveView(Console(file=out, width=200), clock)
    view.observe("train", 1, Waiting("the pool is busy"))
    view.observe("train", 1, Placed(("n1",)))
    clock.sleep(2 * SECONDS_BETWEEN_LINES)
    view.observe("train", 1, Alive(0, None))
    assert "busy" not in out.getvalue()


def test_what_a_job_writes_is_shown_and_not_obeyed() -> None:
    out, clock = io.StringIO(), FakeClock(10.0)
    view = LiveView(tables.Console(file=out, width=200), clock)
    view.observe("train", 1, Alive(0, None))
    clock.sleep(SECONDS_BETWEEN_LINES)
    view.observe("train", 1, Waiting("\x1b[31mred\x07 over\rwritten \x9b2J"))
    assert out.getvalue() == "train: \\x1b[31mred\\x07 over\\rwritten \\x9b2J\n"


def test_what_is_started_is_said_and_nothing_else() -> None:
    for starting, says in (("", ""), ("MLflow", "Starting MLflow ...\n")):
        out = io.StringIO()
        with LiveView(Console(file=out, width=200), starting=starting):
            assert out.getvalue() == says


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_time_of_day_that_is_set_changes_no_pace_and_no_interval(seconds: float) -> None:
    out, clock = io.StringIO(), FakeClock(10.0)
    view = LiveView(Console(file=out, width=200), clock)
    view.observe("train", 1, Progress(0, 40))
    clock.step(seconds)
    clock.sleep(2 * SECONDS_BETWEEN_LINES)
    view.observe("train", 1, Progress(20, 40))
    left = tables.duration(2 * SECONDS_BETWEEN_LINES)
    assert f"train: 20/40, ETA {left}\n" in out.getvalue()


def test_what_waits_for_a_place_says_why_once() -> None:
    out = io.StringIO()
    view = LiveView(Console(file=out, width=200), FakeClock(10.0))
    begun = after(plan(stage("serve")), AttemptStarted("serve", 1, "a"))
    waits = apply(begun, AttemptWaits("serve", 1, "pool 'a' is busy"), 10.0)
    view.follow(lambda: waits)
    view.changed()
    view.changed()
    assert out.getvalue() == "serve: waits: pool 'a' is busy\n"
