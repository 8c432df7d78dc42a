"""What a killed worker had started ends with it, in whatever group it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from orchestrator.supervisor.record import birth, wait

WORKER = """
import os, subprocess, sys, threading
from orchestrator.supervisor import orphans
orphans.watch()
orphans.watch()
sleep = [sys.executable, "-c", "import threading; threading.Event().wait()"]
forked = os.fork()
if forked == 0:
    threading.Event().wait()
own = subprocess.Popen(sleep)
other = subprocess.Popen(sleep, start_new_session=True)
print(forked, own.pid, other.pid, orphans._watched[0].pid, flush=True)
threading.Event().wait()
"""


def test_the_children_of_a_killed_worker_end_with_it_and_so_does_who_waits_for_that() -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    pids = [int(word) for word in worker.stdout.readline().split()]
    assert len(pids) == 4
    assert all(birth(pid) for pid in pids)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10.0)

    assert wait(lambda: not any(birth(pid) for pid in pids), 10.0)
    worker.stdout.close()


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
    process = subprocess.Popen([sys.executable, "-c", first], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 4
    assert all(birth(pid) for pid in pids)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10.0)

    assert wait(lambda: not any(birth(pid) for pid in pids), 10.0)
    process.stdout.close()


def test_a_worker_leads_a_group_so_that_nobody_else_is_hit() -> None:
    code = "import os; from orchestrator.supervisor import orphans; orphans.watch();"
    code += "print(os.getpgrp() == os.getpid(), flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout == "True\n"
