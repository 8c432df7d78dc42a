"""Checkpoints cannot lie: whatever is done to them, what is loaded is whole, and the newest.

`pytest -m chaos tests/chaos/test_checkpoint_torture.py` does it in full, and prints a table; the
short form of each runs with all other tests.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts.local_place import LocalPlace
from orchestrator.core.errors import OrchestratorError
from tests.chaos.meter import Meter, kill, refuse, stop
from tests.chaos.tables import Rows, draw, show, times
from tests.chaos.writers import PREFIX, Gang, forked, name_of, reported

UNITS_OF_A_SAVE = 18_000
FULL = "No space left on device(?: at '.+')?; free some space"
Report = Callable[[str], None]


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Rows]:
    """Rows that are printed at the end."""
    rows: Rows = []
    yield rows
    show(request.config, rows)


# --- processes that die -------------------------------------------------------------------------


@times(5, 200)
def test_a_kill_at_any_byte_loses_no_more_than_the_save_it_hits(
    tmp_path: Path, table: Rows, count: int
) -> None:
    drawn = draw("kill")
    done = killed = 0
    for attempt in range(1, count + 1):
        limit = drawn.randrange(3 * UNITS_OF_A_SAVE)

        def work(report: Report, attempt: int = attempt, limit: int = limit) -> None:
            Meter(limit, kill)
            gang = Gang(tmp_path, attempt)
            first = gang.resume()
            report(f"{first}")
            for step in range(first + 1, first + 5):
                gang.save(step)
                report(f"{step}")

        child, reading = forked(work)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "what it loaded was torn"
        said = [int(line) for line in reported(reading)]
        if said:
            assert said[0] in {done, done + 1}, "the newest good one is gone on from"
            done = said[-1]
    last = Gang(tmp_path, count + 1)
    assert last.resume() in {done, done + 1}
    last.save_all(range(done + 2, done + 6))
    assert len([path for path in (tmp_path / PREFIX).iterdir() if "step-" in path.name]) <= 4
    assert not list(tmp_path.glob(".trash-*"))
    assert killed > count // 3
    said_of = f"{killed} of {count} hit a save, {done} steps saved; all resumed from the newest"
    table.append(("SIGKILL at a random byte", said_of))


# --- no space -----------------------------------------------------------------------------------


def until_full(root: Path, attempt: int, limit: int) -> list[str]:
    """Save until the disk is full; return what was said."""

    def work(report: Report) -> None:
        Meter(limit, refuse, always=True)
        gang = Gang(root, attempt)
        try:
            first = gang.resume()
            report(f"{first}")
            for step in range(first + 1, first + 5):
                gang.save(step)
                report(f"{step}")
        except OrchestratorError as error:
            report(str(error))

    child, reading = forked(work)
    os.waitpid(child, 0)
    return reported(reading)


@times(4, 100)
def test_a_full_disk_is_one_line_and_loses_no_checkpoint(
    tmp_path: Path, table: Rows, count: int
) -> None:
    drawn = draw("full")
    done = told = 0
    for attempt in range(1, count + 1):
        said = until_full(tmp_path, attempt, drawn.randrange(3 * UNITS_OF_A_SAVE))
        steps = [int(line) for line in said if line.isdecimal()]
        told += re.search(FULL, said[-1]) is not None
        if steps:
            assert steps[0] in {done, done + 1}
            done = steps[-1]
    assert Gang(tmp_path, count + 1).resume() in {done, done + 1}
    assert told == count
    said_of = f"{told} of {count} told, {done} steps saved; all resumed from the newest"
    table.append(("disk full at a random byte", said_of))


@pytest.mark.chaos
def test_a_disk_that_is_really_full_is_one_line(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    try:
        gang = Gang(disk, 1, keep=99)
        gang.resume()
        with pytest.raises(OrchestratorError, match=FULL):
            gang.save_all(range(1, 20))
        last = max(int(path.name.split("-")[1]) for path in (disk / PREFIX).glob("step-*[0-9]"))
        assert last > 1
        with pytest.raises(OrchestratorError, match=FULL):
            Gang(disk, 2).resume()
        more = ["mount", "-o", "remount,size=200k", str(disk)]
        subprocess.run(more, check=True)
        assert Gang(disk, 3).resume() == last
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607


# --- a writer that was given up -----------------------------------------------------------------


def stopped_writer(root: Path, limit: int, at_seal: int) -> tuple[int, int]:
    """Let attempt 1 save until it stands still: at a unit, or between last look and rename."""

    def work(report: Report) -> None:
        seal = LocalPlace.seal

        def stand_still(place: LocalPlace, name: str, manifest: bytes) -> None:
            if at_seal and f"step-{at_seal:010d}" in name:
                stop()
            seal(place, name, manifest)

        LocalPlace.seal = stand_still  # type: ignore[method-assign]
        gang = Gang(root, 1)
        gang.resume()
        if not at_seal:
            Meter(limit, stop)
        try:
            for step in range(1, 9):
                gang.save(step)
                report(f"{step}")
        except OrchestratorError as error:
            report(type(error).__name__)

    return forked(work)


@times(4, 100)
def test_a_writer_that_was_given_up_is_never_gone_on_from(
    tmp_path: Path, table: Rows, count: int
) -> None:
    drawn = draw("stale")
    slipped = refused = gone_on = 0
    for number in range(count):
        root = tmp_path / str(number)
        at_seal = drawn.randrange(2, 7) if number % 2 else 0
        child, reading = stopped_writer(root, drawn.randrange(6 * UNITS_OF_A_SAVE), at_seal)
        _, status = os.waitpid(child, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        second = Gang(root, 2)
        first = second.resume()
        before = drawn.randrange(2)  # what the second saves removes what the first has begun
        second.save_all(range(first + 1, first + 1 + before))
        os.kill(child, signal.SIGCONT)
        os.waitpid(child, 0)
        said = reported(reading)
        refused += said[-1:] == ["StaleAttemptError"]
        stale = [path.name for path in (root / PREFIX).glob("step-*-0001-0001")]
        slipped += any(int(name.split("-")[1]) > first for name in stale)
        second.save_all(range(first + 1 + before, first + 3))
        third = Gang(root, 3)
        third.resume()
        gone_on += third.source != name_of(first + 2, 2)
        third.save_all(range(first + 3, first + 5))
        left = {path.name for path in (root / PREFIX).glob("step-*")}
        assert left == {name_of(first + 2, 2), name_of(first + 3, 3), name_of(first + 4, 3)}
    assert (refused, gone_on) == (count, 0)
    if count > 10:
        assert slipped > count // 4
    said_of = f"{refused} of {count} refused, {slipped} one rename late; {gone_on} gone on from"
    table.append(("a writer that was given up", said_of))
