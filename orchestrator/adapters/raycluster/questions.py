"""Small questions to the hosts of pools, before anything runs there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import ray

from orchestrator.adapters.raycluster import faults, nodes, process
from orchestrator.core.spec.hardware import Pool


def ask(
    pools: Mapping[str, Pool], question: Callable[[Pool], Callable[[], str]], seconds: float
) -> Mapping[str, tuple[str, str]]:
    """Have a live node of each pool call its `question`; return the node and the answer, by pool.

    It is asked as a process of the pool, which holds none of its chips. That one does not answer
    in time is its answer, too. A pool without a live node is left out, and so is one whose node
    is lost meanwhile.
    """
    live = nodes.live()
    at = {name: nodes.of_pool(pool, live) for name, pool in pools.items()}
    asked = {
        name: (ours[0], _task(pools[name], ours[0].id, question(pools[name])))
        for name, ours in at.items()
        if ours
    }
    refs = [ref for _, ref in asked.values()]
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=seconds) if refs else ([], [])
    answers: dict[str, tuple[str, str]] = {}
    for name, (node, ref) in asked.items():
        if ref not in ready:
            answers[name] = (node.name, f"it has not answered within {seconds:.0f} s")
            continue
        with suppress(*faults.ERRORS):
            answers[name] = (node.name, ray.get(ref))
    return answers


def _task(pool: Pool, node: str, question: Callable[[], str]) -> ray.ObjectRef[str]:
    return process.on(node, _answer, pool.runtime_env(pool.variables)).remote(question)


def _answer(question: Callable[[], str]) -> str:
    return question()
