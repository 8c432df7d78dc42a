"""How the processes of a command start and end, and which of them says how it has failed."""

from __future__ import annotations

import sys
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from jobs.commands.processes import CommandNotFoundError, Ending, Line, Processes
from tests.worker.commands import gone


def test_a_process_with_a_telling_code_goes_before_those_that_it_brought_down(
    tmp_path: Path,
) -> None:
    command = ["/bin/sh", "-c", "echo $RANK; exit $CODE"]
    environments = [{"RANK": "0", "CODE": "1"}, {"RANK": "1", "CODE": "77"}]
    processes = Processes(command, environments, tmp_path)
    while processes.running():
        Event().wait(0.01)
    processes.rest()
    assert processes.failed() == 0
    telling = processes.failed({77})
    assert telling == 1
    assert processes.ending(telling) == Ending(77, "process 1 of '/bin/sh' ended with 77: 1")
    processes.end(0.0)


def test_what_has_not_ended_has_not_succeeded(tmp_path: Path) -> None:
    """As a process that even SIGKILL can't end: it may still write."""
    processes = Processes(
        ["/bin/sh", "-c", "exec sleep $FOR"], [{"FOR": "0"}, {"FOR": "60"}], tmp_path
    )
    assert processes.failed() is None
    assert not processes.succeeded()
    processes.end(0.0)
    assert not processes.succeeded()
    ended = Processes(["/bin/true"], [{}, {}], tmp_path)
    while ended.running():
        Event().wait(0.01)
    assert ended.succeeded()
    ended.end(0.0)


def lines_until(processes: Processes, text: str) -> list[str]:
    said: list[str] = []
    while text not in said:
        said += [line.text for line in processes.lines(0.1)]
    return said


def test_grace_is_given_to_what_the_first_process_has_started(tmp_path: Path) -> None:
    """A line for the shell is no trainer: bash ends at once when it is asked to."""
    trainer = (
        "import signal, time, pathlib\n"
        "def save(*_): time.sleep(0.5); pathlib.Path('saved').touch(); raise SystemExit\n"
        "signal.signal(signal.SIGTERM, save); print('trains', flush=True); time.sleep(60)\n"
    )
    (tmp_path / "train.py").write_text(trainer)
    line = f"{sys.executable} -u train.py | cat"
    processes = Processes(["bash", "-c", line], [{}], tmp_path)
    lines_until(processes, "trains")
    processes.end(30.0)
    assert (tmp_path / "saved").exists()


LOUD_TRAINER = (
    "import signal, time, pathlib\n"
    "def save(*_):\n"
    "    for number in range(10_000): print(number, 'x' * 100)\n"
    "    pathlib.Path('saved').touch(); print('saved', flush=True); raise SystemExit\n"
    "signal.signal(signal.SIGTERM, save); print('trains', flush=True); time.sleep(60)\n"
)


def test_what_is_said_by_what_ends_is_heard_to_the_last_line(tmp_path: Path) -> None:
    processes = Processes([sys.executable, "-c", LOUD_TRAINER], [{}], tmp_path)
    lines_until(processes, "trains")
    heard: list[Line] = []
    processes.end(30.0, heard.extend)
    assert (tmp_path / "saved").exists()
    assert len(heard) == 10_001
    assert heard[-1].text == "saved"


def test_what_ends_has_its_time_though_who_hears_it_breaks_off(tmp_path: Path) -> None:
    processes = Processes([sys.executable, "-c", LOUD_TRAINER], [{}], tmp_path)
    lines_until(processes, "trains")

    def refuse(_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        processes.end(30.0, refuse)
    assert (tmp_path / "saved").exists()


def test_what_ignores_that_it_shall_end_is_killed_after_the_grace(tmp_path: Path) -> None:
    stubborn = "trap '' TERM; echo $BASHPID > pid; echo ready; while true; do sleep 0.1; done"
    line = f"({stubborn}) & exec cat"
    processes = Processes(["bash", "-c", line], [{}], tmp_path)
    lines_until(processes, "ready")
    began = monotonic()
    processes.end(0.5)
    assert monotonic() - began >= 0.5
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_has_made_a_session_of_its_own_ends_with_the_command(tmp_path: Path) -> None:
    apart = "setsid sh -c 'echo $$ > pid; exec sleep 600' > /dev/null 2>&1"
    line = f"{apart} & until [ -s pid ]; do :; done"
    processes = Processes(["bash", "-c", line], [{}], tmp_path)
    while processes.running():
        Event().wait(0.01)
    assert processes.succeeded()
    pid = int((tmp_path / "pid").read_text())
    assert not gone(pid)
    processes.end(5.0)
    assert gone(pid)


def test_a_long_line_is_one_and_shown_in_parts(tmp_path: Path) -> None:
    processes = Processes([sys.executable, "-c", "print('x' * 20_000)"], [{}], tmp_path)
    (line,) = processes.rest()
    assert line.text == "x" * 20_000
    assert [len(part) for part in line.parts()] == [8_000, 8_000, 4_000]
    assert Line(0, "").parts() == [""]
    processes.end(0.0)


def test_a_host_that_can_t_start_it_now_is_no_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Argument list too long"):
        Processes(["true", "x" * 3_000_000], [{}], tmp_path)
    with pytest.raises(CommandNotFoundError, match="No such file"):
        Processes(["no-such"], [{}], tmp_path)
