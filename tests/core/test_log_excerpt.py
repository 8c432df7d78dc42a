"""What an excerpt of a log holds: lines, and the exception at its end."""

from __future__ import annotations

import pytest

from orchestrator.core.failures.log_excerpt import parse

CHAIN = """step 1
Traceback (most recent call last):
  File "/code/a.py", line 1, in f
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/venv/lib/python3.11/site-packages/torch/a.py", line 1, in f
RuntimeError: first
second

step 2
"""


def test_lines_alone_are_of_a_worker_that_died_without_a_word() -> None:
    found = parse("step 1\nstep 2\n")
    assert (found.lines, found.raised) == (("step 1", "step 2"), ())


def test_nothing_holds_nothing() -> None:
    assert parse("").lines == ()


def test_a_last_line_with_a_type_is_an_exception() -> None:
    found = parse("step 1\nRuntimeError: boom\n\n")
    assert found.lines == ("step 1",)
    assert found.raised[0].types == ("RuntimeError", "Exception", "BaseException")
    assert found.raised[0].message == "boom"


def test_a_traceback_is_read_with_what_caused_it_and_all_its_lines() -> None:
    found = parse(CHAIN)
    assert found.lines == ("step 1",)
    error, cause = found.raised
    assert error.message.splitlines()[:2] == ["first", "second"]
    assert (error.library, error.explicit) == (True, True)
    assert (cause.types[0], cause.message, cause.library) == ("KeyError", "'x'", False)


def test_what_was_handled_is_told_from_what_caused() -> None:
    text = CHAIN.replace(
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    )
    assert [one.explicit for one in parse(text).raised] == [True, False]


def test_an_earlier_traceback_that_was_survived_is_lines() -> None:
    earlier = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nKeyError: 1\n'
    found = parse(earlier + "INFO step 2\n" + earlier)
    assert len(found.raised) == 1
    assert found.lines[0] == "Traceback (most recent call last):"


@pytest.mark.parametrize("lines", [5, 6])
def test_a_traceback_after_which_much_follows_was_not_the_end(lines: int) -> None:
    trace = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\nKeyError: 1\n'
    found = parse(trace + "INFO step\n" * lines)
    assert bool(found.raised) is (lines <= 5)


def test_a_traceback_without_an_exception_is_lines() -> None:
    assert parse("Traceback (most recent call last):\n  File 'x'").raised == ()
