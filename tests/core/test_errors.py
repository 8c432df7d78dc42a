"""The error tree and the lines that it prints."""

from __future__ import annotations

import inspect

import pytest

from orchestrator.core import errors
from orchestrator.core.errors import ConfigError, OrchestratorError, PlanError, Problem


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
