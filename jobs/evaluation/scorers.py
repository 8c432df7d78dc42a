"""Which answers are right: by the task's own scorer, or as mathematics."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jobs.data.reasoning import scorer

Example = Mapping[str, Any]
Scorer = Literal["task", "math_verify"]


def scores(
    kind: Scorer, task: str, items: Sequence[Example], answers: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Return how right each answer to each question is, from 0 to 1.

    `task` is reasoning-gym's own scorer of the task. `math_verify` takes what is equal as
    mathematics (`1/2` for `0.5`); its time limits are signals, which only the main
    thread of a process takes, so it has a process of its own.

    Raises:
        ValueError: There is no such scorer, or it is not installed.
    """
    if kind == "task":
        score = scorer(task)
        return [
            [float(score(text, item)) for text in texts]
            for item, texts in zip(items, answers, strict=True)
        ]
    if kind != "math_verify":
        raise ValueError(f"scorer={kind!r} is none of 'task', 'math_verify'")
    pairs = [
        (str(item["answer"]), text)
        for item, texts in zip(items, answers, strict=True)
        for text in texts
    ]
    with multiprocessing.get_context("spawn").Pool(1) as process:
        verdicts = iter(process.map(_equal, pairs))
    return [[next(verdicts) for _ in texts] for texts in answers]


def _equal(pair: tuple[str, str]) -> float:
    """Whether two texts end in equal answers: the right one, and the one that was given."""
    try:
        from math_verify import parse, verify
    except ModuleNotFoundError as error:
        raise ValueError(
            "scorer='math_verify' needs math-verify: install orchestrator[evaluation] in the "
            "Python of this pool"
        ) from error
    right, given = (parse(text) for text in pair)
    return float(verify(right, given))
