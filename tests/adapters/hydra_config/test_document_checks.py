"""Bounds of figures, names of tags: what types can't say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import product
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from orchestrator.adapters.hydra_config.document import FROM_KEY, Document, type_at
from orchestrator.adapters.hydra_config.document_checks import BOUNDS
from orchestrator.core.errors import Problem
from orchestrator.core.settings import Settings

Compose = Callable[..., Settings]
Refused = Callable[..., Sequence[Problem]]

STAGE = "pipeline.stages.learn"
# Of these any whole number is meant.
UNBOUNDED = {"fleet.pools.*.emulation.faults.*.seed", "signatures.*.priority"}


def figures(kind: Any, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the paths of all numbers in a type, `*` for any name or place."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in {Union, UnionType, Annotated}:
        for one in args:
            yield from figures(one, path)
    elif isinstance(kind, type) and is_dataclass(kind):
        hints = get_type_hints(kind, include_extras=True)
        names = {field.name for field in fields(kind)} - {FROM_KEY.get(kind)}
        for name in names:
            yield from figures(hints[name], (*path, name))
    elif origin is tuple:
        yield from figures(args[0], (*path, "*"))
    elif args and origin not in {Literal, NoneType}:
        yield from figures(args[1], (*path, "*"))
    elif kind in {int, float}:
        yield ".".join(path)


def test_every_figure_of_a_config_has_bounds() -> None:
    known = set(figures(Document, ()))
    assert known - UNBOUNDED - BOUNDS.keys() == set()
    assert BOUNDS.keys() - known == set(), "bounds of what is no figure"
    assert type_at(("seed",)) is int


def test_no_bounds_let_an_endless_or_unordered_figure_through() -> None:
    for (low, high), value in product(BOUNDS.values(), (math.nan, math.inf, -math.inf)):
        assert not low <= value <= high


def test_figures_that_are_none_are_refused_all_at_once_each_with_its_path(
    refused: Refused,
) -> None:
    words = {
        "cost_limit": "nan",
        "time_limit": "0",
        "attempt_limit": "0",
        f"{STAGE}.limits.timeout": "0",
        f"{STAGE}.limits.cost": "-1",
        f"{STAGE}.limits.pending": "inf",
        f"{STAGE}.watch.hang": "nan",
        f"{STAGE}.watch.deviations": "0",
        f"{STAGE}.recovery.rate": "0",
        f"{STAGE}.needs.cpus": "-inf",
        f"{STAGE}.needs.memory_gb": "nan",
        "fleet.pools.nvidia.accelerator.link_gbs": "inf",
    }
    problems = refused(*(f"{path}={value}" for path, value in words.items()))
    assert sorted(problem.path for problem in problems) == sorted(words)


@pytest.mark.parametrize(
    "name", ["mlflow.runName", "mlflow.parentRunId", "mlflow.user", "orchestrator.key", "state"]
)
def test_a_tag_that_is_taken_is_refused_with_the_way_out(refused: Refused, name: str) -> None:
    (problem,) = refused(f"tags={{{name}: x}}")
    assert problem.path == f"tags.{name}"
    assert "rename it" in problem.hint


def test_the_description_of_a_run_is_the_users_and_a_long_tag_is_refused(
    compose: Compose, refused: Refused
) -> None:
    note = {"mlflow.note.content": "why"}
    assert compose("tags={mlflow.note.content: why}").tags == note
    (problem,) = refused(f"tags={{{'t' * 251}: x}}")
    assert problem.hint == "use up to 250 characters"
