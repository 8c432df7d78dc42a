"""What a controller asks of a pool: the request of an attempt, the deployment of an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.classify import Signature
from orchestrator.core.decide import Start
from orchestrator.core.endpoints import Deployment
from orchestrator.core.run import Run, StageRun
from orchestrator.messages import AttemptRequest, Succeeded


@dataclass(frozen=True, slots=True, kw_only=True)
class Workbench:
    """What every attempt of the run is given, beside its stage.

    `reuse_key` returns the key under which the result of a stage may be reused, or `None`. `kept`
    has results that stand whatever their key: those of the run that a switch starts from, with
    its id.
    """

    packages: tuple[str, ...]
    code: tuple[str, ...]
    storage: str
    reuse_key: Callable[[Run, StageRun], str | None]
    signatures: tuple[Signature, ...] = ()
    kept: Mapping[str, tuple[Succeeded, str]] = field(default_factory=dict)


def attempt_request(
    run: Run, bench: Workbench, command: Start, inputs: Mapping[str, ArtifactRef]
) -> AttemptRequest:
    """Return the request of the attempt of a job that `command` starts."""
    found = run.stages[command.stage]
    stage = found.planned.stage
    return AttemptRequest(
        run=run.header.run,
        stage=stage.name,
        attempt=command.number,
        epoch=run.epoch,
        job=stage.job or "",
        params=stage.params,
        packages=bench.packages,
        code=bench.code,
        inputs=inputs,
        storage=bench.storage,
        seed=run.plan.seed,
        pool=run.plan.pools[command.pool],
        needs=stage.needs,
        adjust=found.adjust,
        avoid=found.avoid if command.pool == found.pool else (),
        keep=stage.recovery.kept,
        watch=stage.watch,
        signatures=bench.signatures,
    )


def deployment(run: Run, bench: Workbench, command: Start, model: ArtifactRef) -> Deployment:
    """Return the deployment of `model` that `command` starts."""
    planned = run.stages[command.stage].planned
    endpoint = planned.stage.endpoint
    assert endpoint is not None, "only a stage with an endpoint is deployed"  # noqa: S101
    return Deployment(
        run=run.header.run,
        stage=command.stage,
        attempt=command.number,
        endpoint=endpoint.on(command.pool),
        model=model,
        format=planned.formats[planned.pools.index(command.pool)],
        fallbacks=planned.pools[planned.pools.index(command.pool) + 1 :],
        pool=run.plan.pools[command.pool],
        needs=planned.stage.needs,
        packages=bench.packages,
        code=bench.code,
        storage=bench.storage,
    )
