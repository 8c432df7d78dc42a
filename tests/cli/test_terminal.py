"""A launch whose terminal is closed, full, hung up, or knows few signs: the run ends as ever."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.cli.exits import Exit
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.supervisor.record import wait
from tests.conftest import Workplace

HERE = ("cluster=local", "tracking=none", "pipeline=noop", "jobs.packages=[mine]", "jobs.code=[.]")
# It talks until somebody says that it may end.
JOB = """\
import time
from pathlib import Path

def talk(ctx):
    for number in range(600):
        print(f"line {number} \\u2713 \\ud83d", flush=True)
        if Path(__file__).with_name("enough").exists():
            return {"lines": number}
        time.sleep(0.02)
    raise TimeoutError("nobody has heard enough")
"""
SECONDS = 60.0


class Talking:
    """A workplace in which launches talk."""

    def __init__(self, place: Workplace) -> None:
        self.place, self.folder = place, place.folder
        self.started: list[subprocess.Popen[bytes]] = []
        (self.folder / "mine.py").write_text(JOB)

    def begin(
        self, out: int, err: int | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "orchestrator", "launch", *HERE]
        process = subprocess.Popen(
            [*argv, "pipeline.stages.noop.job=mine.talk"],
            cwd=self.folder,
            env={**self.place.environment, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out if err is None else err,
        )
        self.started.append(process)
        return process

    def log(self, run: Run) -> str:
        """Return what its attempts have written so far."""
        return self.place.logs(run.header.run)

    def runs(self) -> list[Run]:
        """Return the runs that are there, as they stand."""
        if not (self.folder / ".orchestrator/events.db").exists():
            return []
        store = SqlDatabase(f"sqlite:///{self.folder}/.orchestrator/events.db")
        try:
            return [
                fold(one, ((item.at, item.event) for item in store.events(one.run)))
                for one in store.runs()
            ]
        finally:
            store.close()

    def until_it_talks(self) -> None:
        assert wait(lambda: any(self.log(run) for run in self.runs()), SECONDS)

    def enough(self) -> None:
        (self.folder / "enough").touch()

    def ends_well(self, process: subprocess.Popen[bytes]) -> Run:
        """Let the job end; return the run, which succeeded."""
        self.enough()
        assert process.wait(SECONDS) == 0
        (run,) = self.runs()
        assert run.state == "succeeded"
        assert "line 0 ✓ \\ud83d" in self.log(run)
        return run

    def output(self) -> str:
        """Return what a terminal that was gone should have shown."""
        (found,) = self.folder.glob(".orchestrator/logs/*/output.txt")
        return found.read_text()


@pytest.fixture
def talking(tmp_path: Path, environment: dict[str, str]) -> Iterator[Talking]:
    made = Talking(Workplace(tmp_path, environment))
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_reader_that_has_gone_does_not_end_the_run(talking: Talking) -> None:
    reading, writing = os.pipe()
    process = talking.begin(writing)
    os.close(writing)
    os.close(reading)
    talking.until_it_talks()
    talking.ends_well(process)
    assert "succeeded" in talking.output()


def test_a_reader_that_does_not_read_does_not_hold_the_run_up(talking: Talking) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    process = talking.begin(writing)
    os.close(writing)
    talking.until_it_talks()
    talking.enough()
    assert wait(lambda: [run.state for run in talking.runs()] == ["succeeded"], SECONDS)
    with os.fdopen(reading, "rb") as pipe:
        assert b"succeeded" in pipe.read()
    assert process.wait(SECONDS) == 0


def test_a_terminal_that_is_closed_does_not_end_the_run(talking: Talking) -> None:
    ours, theirs = pty.openpty()
    process = talking.begin(theirs)
    os.close(theirs)
    talking.until_it_talks()
    os.close(ours)
    process.send_signal(signal.SIGHUP)
    talking.ends_well(process)
    assert "succeeded" in talking.output()


def test_a_hang_up_does_not_end_the_run(talking: Talking) -> None:
    with (talking.folder / "out").open("wb") as out:
        process = talking.begin(out.fileno())
    talking.until_it_talks()
    process.send_signal(signal.SIGHUP)
    talking.ends_well(process)
    assert "succeeded" in (talking.folder / "out").read_text()


def test_a_quit_breaks_the_command_off_in_order_and_the_run_can_be_resumed(
    talking: Talking,
) -> None:
    with (talking.folder / "out").open("wb") as out:
        process = talking.begin(out.fileno())
    talking.until_it_talks()
    process.send_signal(signal.SIGQUIT)
    assert process.wait(SECONDS) == Exit.CANCELLED
    (run,) = talking.runs()
    assert not run.done
    talking.enough()
    assert talking.place.run("resume", run.header.run).returncode == 0


def test_a_disk_that_is_full_where_it_prints_does_not_end_the_run(talking: Talking) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    process = talking.begin(full)
    os.close(full)
    talking.until_it_talks()
    talking.ends_well(process)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437"])
def test_an_encoding_that_lacks_signs_does_not_end_the_run(
    talking: Talking, encoding: str
) -> None:
    talking.enough()
    with (talking.folder / "out").open("wb") as out:
        process = talking.begin(out.fileno(), PYTHONIOENCODING=encoding)
    talking.ends_well(process)
    assert "succeeded" in (talking.folder / "out").read_text(encoding)


@pytest.mark.parametrize("verb", [("plan", "pipeline=noop"), ("doctor",), ("status",), ("pools",)])
def test_every_command_prints_in_an_encoding_that_lacks_signs(
    talking: Talking, verb: tuple[str, ...]
) -> None:
    talking.place.environment = {**talking.place.environment, "PYTHONIOENCODING": "ascii"}
    done = talking.place.run(*verb)
    assert "Traceback" not in done.stderr
    assert "UnicodeEncodeError" not in done.stderr
    assert done.returncode in {0, 1}


def test_lines_that_can_not_be_written_are_counted_and_the_run_ends_well(
    talking: Talking,
) -> None:
    database = talking.folder / ".orchestrator/events.db"
    SqlDatabase(f"sqlite:///{database}").close()
    with closing(sqlite3.connect(database)) as connection:
        full = "SELECT RAISE(ABORT, 'no room for lines');"
        connection.execute(f"CREATE TRIGGER t BEFORE INSERT ON log_chunks BEGIN {full} END")
    talking.enough()
    with (talking.folder / "out").open("wb") as out:
        process = talking.begin(out.fileno())
    assert process.wait(SECONDS) == 0
    said = "1 log line was not written: database"
    assert f"note: {said}" in (talking.folder / "out").read_text()
    (run,) = talking.runs()
    shown = talking.place.run("status", run.header.run).stdout
    assert f"note: {said}" in shown
    assert "no room for lines" in shown
