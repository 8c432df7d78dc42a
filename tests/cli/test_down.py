"""`orchestrator down` where runs are in progress: named, asked for, left before all is stopped."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import supervisor, wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.errors import ClusterError
from orchestrator.core.runs.states import RunStarted
from orchestrator.messages import Lease
from orchestrator.supervisor import holder
from tests.build import header, plan, stage
from tests.fakes import FakeClock

HEADER = replace(header(plan(stage("s")), "mine-1"), config={"a": 1})


class Typed(io.StringIO):
    """What somebody types on a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def in_progress(tmp_path: Path, within) -> SqlDatabase:
    """A home with one run on its own cluster, whose controller is this process."""
    at = tmp_path / ".orchestrator"
    store = SqlDatabase(f"sqlite:///{at}/events.db")
    found = wiring.settings(["pipeline=noop", "tracking=none"])
    store.create(replace(HEADER, config=wiring.pinned(found)), 0.0)
    store.append("mine-1", 1, (RunStarted(1),), 0.0)
    now = wiring.clock().now()
    store.renew_lease(Lease(run="mine-1", epoch=1, at=now, holder=holder.name()))
    return store


def test_without_a_terminal_it_is_refused_with_one_line(in_progress, within):
    done = within("down")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: in progress: mine-1; `orchestrator down --yes` ends them (runs can be resumed)"
    ]


def test_on_a_terminal_it_asks_and_no_is_no(in_progress, within, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Typed("\n"))
    done = within("down")
    assert "In progress: mine-1" in done.stdout
    assert "Nothing was stopped." in done.stdout
    assert done.returncode == 103


def test_controllers_leave_before_anything_is_stopped(in_progress, within, tmp_path, monkeypatch):
    at = tmp_path / ".orchestrator"
    found = wiring.settings(["pipeline=noop", "tracking=none"])
    seen: list[str] = []

    def leave() -> None:
        with pytest.raises(ClusterError, match="is being stopped by `orchestrator down`"):
            wiring.raise_if_leaving(found, at)
        seen.append("left")
        in_progress.drop_lease("mine-1", 1)

    class Clock(FakeClock):
        def sleep(self, seconds: float) -> None:
            leave()

    monkeypatch.setattr(wiring, "clock", Clock)
    done = within("down", "--yes")
    assert done.returncode == 0
    assert seen == ["left"]
    assert "To go on with a run that was in progress: orchestrator resume mine-1" in done.stdout
    wiring.raise_if_leaving(found, at)
    assert not supervisor.is_leaving(at)


def test_a_run_whose_controller_is_gone_is_not_in_progress(in_progress, within):
    in_progress.drop_lease("mine-1", 1)
    done = within("down")
    assert (done.returncode, done.stdout) == (0, "Nothing was running.\n")


def test_a_run_in_this_process_or_on_a_cluster_of_somebody_else_goes_on(
    in_progress, within, tmp_path
):
    for name, words in (("h", ["cluster=local"]), ("o", ["cluster.address=10.0.0.1:6379"])):
        found = wiring.settings(["pipeline=noop", "tracking=none", *words])
        one = replace(HEADER, run=name, config=wiring.pinned(found))
        in_progress.create(one, 0.0)
        in_progress.append(name, 1, (RunStarted(1),), 0.0)
        now = wiring.clock().now()
        in_progress.renew_lease(Lease(run=name, epoch=1, at=now, holder=holder.name()))
    in_progress.drop_lease("mine-1", 1)
    assert within("down").stdout == "Nothing was running.\n"


def test_a_run_of_another_home_or_host_that_shares_the_database_is_not_in_progress_here(
    in_progress, within, tmp_path, monkeypatch
):
    monkeypatch.setenv("ORCHESTRATOR_DATABASE", f"sqlite:///{tmp_path}/.orchestrator/events.db")
    with supervisor.Tenancy(tmp_path / ".orchestrator"):
        assert "in progress: mine-1" in within("down").stderr
    with supervisor.Tenancy(tmp_path / "other"):
        assert within("down").stdout == "Nothing was running.\n"
    now = wiring.clock().now()
    elsewhere = "h9/another-boot pid:[1]/12/34"
    in_progress.renew_lease(Lease(run="mine-1", epoch=1, at=now, holder=elsewhere))
    with supervisor.Tenancy(tmp_path / ".orchestrator"):
        assert within("down").stdout == "Nothing was running.\n"


def test_a_mark_of_a_process_that_has_died_says_nothing(tmp_path):
    (tmp_path / "services").mkdir()
    (tmp_path / "services/leaving").write_text(holder.name().replace("/", "/", 1)[:-1] + "x")
    assert not supervisor.is_leaving(tmp_path)
    with supervisor.leaving(tmp_path):
        assert supervisor.is_leaving(tmp_path)
    assert not supervisor.is_leaving(tmp_path)
