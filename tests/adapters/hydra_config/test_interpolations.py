"""What `${...}` stand for, and when it is too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from orchestrator.core.errors import Problem
from orchestrator.core.settings import Settings

Compose = Callable[..., Settings]
Refused = Callable[..., Sequence[Problem]]
Write = Callable[[str, str], Path]

LEVELS = 30


def doubled(first: str, line: str) -> str:
    """Return tags, of which each is made of two of the one before."""
    lines = [f"a0: {first}", *(line.format(n=n, m=n - 1) for n in range(1, LEVELS))]
    return "\n".join(lines)


TEXTS = [
    doubled("x", "a{n}: '${{tags.a{m}}}${{tags.a{m}}}'"),
    doubled("x", "a{n}: '${{.a{m}}} and ${{.a{m}}}'"),
    doubled("x", "a{n}: '${{oc.select:tags.a{m}}}${{oc.select:tags.a{m}}}'"),
    doubled("x", "k{n}: a{m}\na{n}: '${{tags.${{.k{n}}}}}${{tags[a{m}]}}'"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_that_double_are_refused_with_their_place(
    refused: Refused, write: Write, text: str
) -> None:
    write("tags/big.yaml", text)
    (problem,) = refused("+tags=big")
    assert problem.path.startswith("tags.a")
    assert problem.what == "its ${...} stand for more than 20,000 values"


def test_lists_that_double_are_refused_with_their_place(refused: Refused, write: Write) -> None:
    whole = "${{pipeline.stages.s.params.a{m}}}"
    lists = doubled("[x]", f"a{{n}}: ['{whole}', '{whole}']").replace("\n", "\n      ")
    text = f"name: big\nstages:\n  s:\n    job: a.b\n    role: train\n    params:\n      {lists}\n"
    write("pipeline/big.yaml", text)
    (problem,) = refused("pipeline=big")
    assert problem.path.startswith("pipeline.stages.s.params.a")
    assert problem.what == "its ${...} stand for more than 20,000 values"


def test_a_long_text_that_is_referred_to_often_counts_by_its_length(
    refused: Refused, write: Write
) -> None:
    write("tags/long.yaml", f"a: '{'x' * 100_000}'\nb: '{'${tags.a}' * 50}'")
    (problem,) = refused("+tags=long")
    assert problem.path == "tags.b"


def test_what_is_meant_is_filled_in(compose: Compose, write: Write) -> None:
    lines = ["team: core", "who: '${.team}/${tags.team}'", "k: team", "same: '${tags.${.k}}'"]
    write("tags/some.yaml", "\n".join(lines))
    tags = compose("+tags=some").tags
    assert (tags["who"], tags["same"]) == ("core/core", "core")
    params = "pipeline.stages.learn.params"
    made = compose(*(f"+{params}.p{n}=${{fleet.pools}}" for n in range(20)))
    assert made.pipeline.stages[1].params["p19"] == made.resolved["fleet"]["pools"]  # type: ignore[index]
