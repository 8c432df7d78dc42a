"""Who ends the services that several commands use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import supervisor
from orchestrator.supervisor import Process, Tenancy, tenancy

HOLD = """\
import sys
from pathlib import Path
from orchestrator.supervisor import Tenancy
with Tenancy(Path(sys.argv[1])) as user:
    user.started("nap")
    print("in", flush=True)
    sys.stdin.read()
"""


def nap(home: Path, user: Tenancy) -> None:
    user.started("nap")
    argv = (sys.executable, "-S", "-c", "import signal; signal.pause()")
    supervisor.start(home, "nap", [Process(name="nap", argv=argv)])


@pytest.fixture
def home(tmp_path: Path):
    yield tmp_path
    supervisor.stop(tmp_path, "nap")


def test_the_last_user_ends_what_was_started_for_users(home: Path) -> None:
    with Tenancy(home) as first:
        nap(home, first)
        with Tenancy(home):
            pass
        assert supervisor.find(home, "nap")
        assert tenancy.used(home)
    assert supervisor.find(home, "nap") is None
    assert not tenancy.used(home)


def test_a_process_uses_the_services_of_the_homes_that_it_says(home: Path) -> None:
    mine = os.getpid()
    assert not supervisor.is_user(home, mine)
    with Tenancy(home):
        assert supervisor.is_user(home, mine)
        assert not supervisor.is_user(home / "other", mine)
    assert not supervisor.is_user(home, mine)


def test_what_is_kept_stays(home: Path) -> None:
    with Tenancy(home) as user:
        nap(home, user)
        user.keep()
    assert supervisor.find(home, "nap")


def test_what_was_up_before_stays(home: Path) -> None:
    with Tenancy(home) as user:
        nap(home, user)
        user.keep()
    with Tenancy(home):
        pass
    assert supervisor.find(home, "nap")


def test_the_services_of_a_killed_user_go_with_the_next_one(home: Path, environment) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, home],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as killed:
        assert killed.stdout
        killed.stdout.readline()
        assert tenancy.used(home)
        killed.kill()
    with Tenancy(home):
        argv = (sys.executable, "-S", "-c", "import signal; signal.pause()")
        supervisor.start(home, "nap", [Process(name="nap", argv=argv)])
    assert supervisor.find(home, "nap") is None


def test_what_is_left_of_a_service_is_cleared(home: Path) -> None:
    with Tenancy(home) as user:
        nap(home, user)
        supervisor.clear(home, "nap")
        assert supervisor.find(home, "nap") is None
        supervisor.clear(home, "nap")
