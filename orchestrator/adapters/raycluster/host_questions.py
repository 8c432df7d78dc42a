"""Small questions to the hosts of pools, before anything runs there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.adapters.raycluster import nodes, process, ray_errors
from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.core.spec.hardware import Pool

NOBODY: Mapping[str, Collection[str]] = {}


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """What the node of that name has answered as one of `pool`."""

    pool: str
    node: str
    text: str


def ask(
    pools: Mapping[str, Pool],
    question: Callable[[Pool], Callable[[], str]],
    seconds: float,
    to_begin: float,
    but: Mapping[str, Collection[str]] = NOBODY,
) -> list[HostAnswer]:
    """Have each live node of each pool call its `question`, all at once; return their answers.

    It is asked as a process of the pool, which holds none of its chips. Once that has begun it has
    so many `seconds`, and that it does not answer in them is its answer, too. Those that are named
    in `but`, by pool, are not asked. A node that is lost meanwhile is left out, and so is one that
    is too busy for the process to begin within the seconds `to_begin`: its silence says nothing.
    """
    live = cluster_tables.live()
    asked = [
        (name, node, _task(pool, node.id, question(pool)))
        for name, pool in pools.items()
        for node in _sorted(nodes.of_pool(pool, live))
        if node.name not in but.get(name, ())
    ]
    begun = _ready([stream for *_, stream in asked], to_begin)
    for stream in begun:
        next(stream, None)
    answered = _ready(begun, seconds)
    answers: list[HostAnswer] = []
    for name, node, stream in asked:
        if stream in answered:
            with suppress(StopIteration, *ray_errors.ERRORS):
                answers.append(HostAnswer(name, node.name, ray.get(next(stream))))
        elif stream in begun:
            answers.append(
                HostAnswer(name, node.name, f"it has not answered within {seconds:.0f} s")
            )
    return answers


def _sorted(members: Collection[Node]) -> list[Node]:
    return sorted(members, key=lambda node: node.name)


def _ready(streams: Collection[Any], seconds: float) -> list[Any]:
    """Return those of `streams` that say something more within so many seconds, or end."""
    how = {"num_returns": len(streams), "timeout": seconds, "fetch_local": False}
    ready: list[Any] = ray.wait(list(streams), **how)[0] if streams else []
    return ready


def _task(pool: Pool, node: str, question: Callable[[], str]) -> Any:  # noqa: ANN401 - Ray's generators have no types
    return process.on(node, _answer, pool.runtime_env(pool.variables)).remote(question)


def _answer(question: Callable[[], str]) -> Iterator[str]:
    """Say that the process has begun, then the answer."""
    yield ""
    yield question()
