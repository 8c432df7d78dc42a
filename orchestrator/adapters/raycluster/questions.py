"""Small questions to the hosts of pools, before anything runs there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import ray

from orchestrator.adapters.raycluster import faults, nodes, process
from orchestrator.adapters.rayqueries import tables
from orchestrator.core.spec.hardware import Pool


def ask(
    pools: Mapping[str, Pool],
    question: Callable[[Pool], Callable[[], str]],
    seconds: float,
    to_begin: float,
) -> Mapping[str, tuple[str, str]]:
    """Have a live node of each pool call its `question`; return the node and the answer, by pool.

    It is asked as a process of the pool, which holds none of its chips. Once that has begun it has
    so many `seconds`, and that it does not answer in them is its answer, too. A pool without a
    live node is left out, and so is one whose node is lost meanwhile, or too busy for the process
    to begin within the seconds `to_begin`: its silence says nothing.
    """
    live = tables.live()
    at = {name: nodes.of_pool(pool, live) for name, pool in pools.items()}
    asked = {
        name: (ours[0], _task(pools[name], ours[0].id, question(pools[name])))
        for name, ours in at.items()
        if ours
    }
    begun = _said([stream for _, stream in asked.values()], to_begin)
    for stream in begun:
        next(stream, None)
    answered = _said(begun, seconds)
    answers: dict[str, tuple[str, str]] = {}
    for name, (node, stream) in asked.items():
        if stream in answered:
            with suppress(StopIteration, *faults.ERRORS):
                answers[name] = (node.name, ray.get(next(stream)))
        elif stream in begun:
            answers[name] = (node.name, f"it has not answered within {seconds:.0f} s")
    return answers


def _said(streams: Collection[Any], seconds: float) -> list[Any]:
    """Return those of `streams` that say something more within so many seconds, or end."""
    how = {"num_returns": len(streams), "timeout": seconds, "fetch_local": False}
    said: list[Any] = ray.wait(list(streams), **how)[0] if streams else []
    return said


def _task(pool: Pool, node: str, question: Callable[[], str]) -> Any:  # noqa: ANN401 - Ray's generators have no types
    return process.on(node, _answer, pool.runtime_env(pool.variables)).remote(question)


def _answer(question: Callable[[], str]) -> Iterator[str]:
    """Say that the process has begun, then the answer."""
    yield ""
    yield question()
