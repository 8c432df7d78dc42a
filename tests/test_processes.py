"""What tests end by its name is of their own session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests import processes

WAITS = "import sys; print(flush=True); sys.stdin.read()"


@contextmanager
def waiting(*words: str, **variables: str) -> Iterator[int]:
    """Run a process that waits; yield its number."""
    environment = {**os.environ, **variables}  # noqa: TID251 - it inherits the mark
    argv = [sys.executable, "-c", WAITS, *words]
    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def test_those_of_another_session_with_the_same_words_are_not_found() -> None:
    other = {processes.MARK: "another"}
    with waiting("Replica:r3") as own, waiting("Replica:r3", **other):
        assert [process.pid for process in processes.marked("Replica:r3")] == [own]


def test_engines_of_another_session_are_not_found() -> None:
    with waiting("server.py", processes.SESSION) as own, waiting("server.py", "tests-0"):
        assert [process.pid for process in processes.engines("server.py")] == [own]
