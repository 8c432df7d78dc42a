"""The error tree and the lines that it prints."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import errors
from orchestrator.core.errors import (
    LINE,
    ConfigError,
    OrchestratorError,
    PlanError,
    Problem,
    shown,
)


def test_the_tree_in_the_docstring_names_every_public_error_once() -> None:
    named = [
        name
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, OrchestratorError) and not name.startswith("_")
    ]
    words = (errors.__doc__ or "").split()
    assert {name: words.count(name) for name in named} == dict.fromkeys(named, 1)


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (
            Problem("roles.train", "'x' is no pool", "take 'a'"),
            "roles.train: 'x' is no pool; take 'a'",
        ),
        (Problem("", "'x' is no pool"), "'x' is no pool"),
        (Problem("seed", "'x' is no number"), "seed: 'x' is no number"),
    ],
)
def test_a_problem_is_one_line_with_path_what_and_way_out(problem: Problem, line: str) -> None:
    assert str(problem) == line


@pytest.mark.parametrize("kind", [ConfigError, PlanError])
def test_an_error_carries_all_problems_one_a_line(kind: type[ConfigError | PlanError]) -> None:
    problems = [Problem("a", "bad"), Problem("b", "worse")]
    error = kind(iter(problems))
    assert error.problems == tuple(problems)
    assert str(error) == "a: bad\nb: worse"


@given(path=st.text(max_size=2000), what=st.text(max_size=2000), hint=st.text(max_size=2000))
def test_a_problem_is_one_readable_line_whatever_a_user_wrote(
    path: str, what: str, hint: str
) -> None:
    line = str(Problem(path, what, hint))
    assert len(line) <= LINE
    assert line.isprintable()
    assert len(f"{line}x".splitlines()) == 1


def test_a_value_is_shown_by_its_beginning_and_its_size() -> None:
    assert shown("x") == "'x'"
    assert shown("x" * 100) == f"'{'x' * 80}'... (100 characters)"
    assert shown([1] * 100) == f"[{'1, ' * 26}1..."


def test_a_long_path_and_a_long_reason_keep_their_ends() -> None:
    line = str(Problem("a" * 500 + ".seed", "b" * 500 + " is bad", "mend it"))
    assert ".seed: b" in line
    assert line.endswith(" is bad; mend it")
