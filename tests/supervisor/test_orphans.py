"""What a killed worker had started ends with it, in whatever group it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.supervisor import orphans
from orchestrator.supervisor.record import birth, wait

SLEEP = [sys.executable, "-c", "import threading; threading.Event().wait()"]
WORKER = f"""
import os, subprocess, sys, threading
from orchestrator.supervisor import orphans
orphans.watch()
orphans.watch()
forked = os.fork()
if forked == 0:
    threading.Event().wait()
own = subprocess.Popen({SLEEP!r})
other = subprocess.Popen({SLEEP!r}, start_new_session=True)
print(os.getpid(), forked, own.pid, other.pid, flush=True)
threading.Event().wait()
"""
SERVER = f"""
import subprocess, threading
from orchestrator.supervisor import orphans
starts = "import subprocess, sys, threading; print(subprocess.Popen({SLEEP!r}).pid, flush=True);"
starts += "threading.Event().wait()"
server = subprocess.Popen([{sys.executable!r}, "-c", starts], start_new_session=True)
guard = orphans.guard(server.pid, "FOLDER")
threading.Event().wait()
"""


@contextmanager
def telling(code: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run `code`; yield its process and the numbers on its first line."""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout is not None
        try:
            yield told, [int(word) for word in told.stdout.readline().split()]
        finally:
            told.kill()


def guards(mark: str, starter: int) -> list[int]:
    """Return the guards for whatever carries `mark`, once they are no children of `starter`."""
    found = psutil.process_iter(["cmdline", "ppid"])
    return [
        one.pid
        for one in found
        if orphans.__file__ in (words := one.info["cmdline"] or [])
        and mark in " ".join(words)
        and one.info["ppid"] != starter
    ]


def test_the_children_of_a_killed_worker_end_with_it_and_so_does_who_waits_for_that() -> None:
    with telling(WORKER) as (worker, pids):
        assert len(pids) == 4
        assert all(birth(pid) for pid in pids)
        mark = f"{orphans.MARK}={worker.pid}-"
        assert wait(lambda: len(guards(mark, worker.pid)) == 1, 10.0)
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(10.0)

        assert wait(lambda: not any(birth(pid) for pid in pids), 10.0)
        assert wait(lambda: not guards(mark, 0), 10.0)


def test_what_follows_a_process_ends_with_it_through_others_that_have_left() -> None:
    """A daemon and its workers, as a service has them: whose parents are gone already."""
    middle = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {WORKER!r}])"
    first = f"""
import subprocess, sys, threading
from orchestrator.supervisor import orphans
orphans.follow("ORCHESTRATOR_TESTED")
subprocess.run([sys.executable, "-c", {middle!r}], start_new_session=True, check=True)
threading.Event().wait()
"""
    with telling(first) as (process, pids):
        assert len(pids) == 4
        assert all(birth(pid) for pid in pids)
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10.0)

        assert wait(lambda: not any(birth(pid) for pid in pids), 10.0)


def test_an_engine_ends_also_where_ray_kills_the_children_of_its_actor_first(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    with telling(SERVER.replace("FOLDER", str(folder))) as (actor, pids):
        assert wait(lambda: len(guards(str(folder), actor.pid)) == 1, 10.0)
        for child in psutil.Process(actor.pid).children():
            child.kill()
        actor.kill()
        actor.wait(10.0)

        assert wait(lambda: not any(birth(pid) for pid in pids), 10.0)
        assert wait(lambda: not folder.exists(), 10.0)


def test_a_guard_that_is_released_ends_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, start_new_session=True) as other:
        guard = orphans.guard(other.pid, str(tmp_path))
        if guard is None:
            pytest.skip("this system has no descriptors of processes")
        guard.release()
        guard.release()
        assert wait(lambda: not guards(str(tmp_path), 0), 10.0)
        assert birth(other.pid)
        assert tmp_path.exists()
        other.kill()


def test_a_worker_leads_a_group_so_that_nobody_else_is_hit() -> None:
    code = "import os; from orchestrator.supervisor import orphans; orphans.watch();"
    code += "print(os.getpgrp() == os.getpid(), flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "True\n"
