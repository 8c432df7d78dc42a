"""Overrides of a switch in full: people write `pool=POOL`, and rules of a rollout by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from orchestrator.core.runs.run import Run
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.policy import Rollout
from orchestrator.core.spec.stages import Endpoint


def in_full(overrides: Sequence[str], earlier: Run, endpoint: str = "") -> tuple[str, ...]:
    """Return overrides in full: a pool serves, and `error_rate=1e-3` is of the rollout.

    Both are for `endpoint`, or for all that the earlier run serves. Stages that have the role to
    serve and name the endpoint's own pool go along to another one.
    """
    return tuple(full for word in overrides for full in _longer(word, earlier, endpoint))


def _longer(word: str, earlier: Run, endpoint: str) -> Iterator[str]:
    key, equals, value = word.partition("=")
    stages = [stage.planned.stage for stage in earlier.stages.values()]
    serving = [stage for stage in stages if stage.endpoint and _is(endpoint, stage.endpoint)]
    if key == "pool" and equals:
        yield f"roles.{Role.SERVE}={value}"
        going = {stage.pool for stage in serving if stage.pool}
        for stage in stages:
            if stage.role is Role.SERVE and stage.pool in going and _is(endpoint, stage.endpoint):
                yield f"pipeline.stages.{stage.name}.pool={value}"
    elif key in {field.name for field in fields(Rollout)} and len(serving) == 1:
        yield f"pipeline.stages.{serving[0].name}.endpoint.rollout.{word}"
    else:
        yield word


def _is(named: str, endpoint: Endpoint | None) -> bool:
    """Whether a stage goes along: it serves the endpoint that is named, or serves none itself."""
    return endpoint is None or named in {"", endpoint.name}
