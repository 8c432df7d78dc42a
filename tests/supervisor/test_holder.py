"""The name of a process, and whether it lives."""

from __future__ import annotations

import subprocess
import sys

from orchestrator.supervisor import holder


def test_this_process_lives_and_is_told_in_words() -> None:
    mine = holder.name()
    assert holder.lives(mine) is True
    assert holder.in_words(mine).startswith("process ")


def test_a_process_that_was_killed_does_not_live(environment) -> None:
    say = "from orchestrator.supervisor import holder; print(holder.name(), flush=True); input()"
    argv = [sys.executable, "-c", say]
    with subprocess.Popen(
        argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        name = other.stdout.readline().strip()
        assert holder.lives(name) is True
        other.kill()
    assert holder.lives(name) is False


def test_nothing_is_known_of_a_process_on_another_machine() -> None:
    host, rest = holder.name().split("/", 1)
    assert holder.lives(f"not-{host}/{rest}") is None
    assert holder.lives("") is None
    assert holder.in_words("") == ""
