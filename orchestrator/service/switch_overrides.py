"""Overrides of a switch in full: people write `pool=POOL`, and rules of a rollout by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from orchestrator.core.runs.run import Run
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.policy import Rollout


def in_full(overrides: Sequence[str], earlier: Run, endpoint: str = "") -> tuple[str, ...]:
    """Return overrides in full: a pool serves, and `error_rate=1e-3` is of the rollout.

    A pool is for `endpoint`, or for all that the earlier run serves.
    """
    return tuple(full for word in overrides for full in _longer(word, earlier, endpoint))


def _longer(word: str, earlier: Run, endpoint: str) -> Iterator[str]:
    key, equals, value = word.partition("=")
    serving = [name for name, stage in earlier.stages.items() if stage.planned.stage.endpoint]
    if key == "pool" and equals:
        yield f"roles.{Role.SERVE}={value}"
        for stage in _that_name_their_pool(earlier, endpoint):
            yield f"pipeline.stages.{stage}.pool={value}"
    elif key in {field.name for field in fields(Rollout)} and len(serving) == 1:
        yield f"pipeline.stages.{serving[0]}.endpoint.rollout.{word}"
    else:
        yield word


def _that_name_their_pool(earlier: Run, endpoint: str) -> Iterator[str]:
    """Yield the stages that go along to another pool: the endpoint's, and what works for it there.

    Those have the role to serve, and name the same pool.
    """
    stages = [stage.planned.stage for stage in earlier.stages.values()]
    going = {
        stage.pool
        for stage in stages
        if stage.endpoint and stage.pool and endpoint in {"", stage.endpoint.name}
    }
    for stage in stages:
        mine = stage.endpoint is None or endpoint in {"", stage.endpoint.name}
        if stage.role is Role.SERVE and stage.pool in going and mine:
            yield stage.name
