"""Which of the processes of a command says how it has failed."""

from __future__ import annotations

from pathlib import Path
from threading import Event

from jobs.commands.processes import Ending, Processes


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
