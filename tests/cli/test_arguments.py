"""What is typed for numbers and words of any verb is within bounds, or refused with one line."""

from __future__ import annotations

import argparse

import pytest

from orchestrator.cli import parser
from tests.conftest import Command

NONSENSE = ("nan", "inf", "-inf", "1e308", "-1", "ten", "", "9" * 400, "0x10", "\udcff", "1\n2")
# A command line up to each flag that takes a number.
WHOLE = (
    ("status", "-n"),
    ("ask", "2 + 2?", "--max-tokens"),
    ("keys", "add", "ann", "--requests"),
    ("keys", "add", "ann", "--tokens"),
    ("promote", "chat"),
)
NUMBERS = (
    ("keys", "add", "ann", "--days"),
    ("ask", "2 + 2?", "--temperature"),
    ("qualify", "nvidia", "--soak"),
)


@pytest.mark.parametrize("words", [*WHOLE, *NUMBERS])
@pytest.mark.parametrize("value", NONSENSE)
def test_nonsense_is_refused_before_anything_is_done(
    within: Command, words: tuple[str, ...], value: str
) -> None:
    done = within(*words, value)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "error: " in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()[-1]) < 250


@pytest.mark.parametrize("words", [*WHOLE, NUMBERS[0]])
@pytest.mark.parametrize("value", ["0", "0.0", "-0"])
def test_nothing_of_what_is_counted_is_refused(
    within: Command, words: tuple[str, ...], value: str
) -> None:
    assert within(*words, value).returncode == 2


def test_a_refusal_says_what_to_write(within: Command) -> None:
    last = within("keys", "add", "ann", "--days", "1e308").stderr.splitlines()[-1]
    assert last.endswith("'1e308' is no number of days; write above 0 to 36525")
    last = within("status", "-n", "0").stderr.splitlines()[-1]
    assert last.endswith("'0' is no number of runs; write 1 to 1000000")


@pytest.mark.parametrize("name", ["\n", " ", "a\nb", "x" * 251, "\udcff", "\x1b[2J"])
@pytest.mark.parametrize(
    "words",
    [("keys", "add"), ("pools", "drain", "nvidia", "--reason"), ("promote", "m", "--force")],
)
def test_a_word_that_can_not_be_shown_on_a_line_is_refused(
    within: Command, words: tuple[str, ...], name: str
) -> None:
    assert within(*words, name).returncode == 2


def test_every_number_has_bounds() -> None:
    verbs = next(a for a in parser.build()._actions if isinstance(a, argparse._SubParsersAction))
    unbounded = [
        f"{verb} {action.dest}"
        for verb, one in verbs.choices.items()
        for action in one._actions
        if action.type in {int, float}
    ]
    assert unbounded == []


@pytest.mark.parametrize(
    "words",
    [
        *(("status",), ("logs",), ("resume",), ("cancel",), ("rollback",), ("undeploy",)),
        *(("promote",), ("models",), ("switch",), ("deploy",), ("launch", "--continue")),
    ],
)
def test_a_name_that_is_no_text_is_refused_before_anything_is_asked_for_it(
    within: Command, words: tuple[str, ...]
) -> None:
    done = within(*words, "r\udcff")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith(r"'r\udcff' is no text in UTF-8")
