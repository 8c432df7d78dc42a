"""Which stages must pass before an endpoint serves, and by which engine they ask its model.

A guard of an endpoint is a job of role `serve` that reads the model of the endpoint and that the
endpoint's stage comes after. Its parameter `engine: auto` means the engine of the endpoint, where
that is a class; what an engine server will read is compared by the job's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from orchestrator.core.hardware import Role
from orchestrator.core.spec import Pipeline, Stage

ENGINE, OPTIONS, AUTO = "engine", "options", "auto"


def guards(stages: Iterable[Stage], serving: Stage) -> tuple[Stage, ...]:
    """Return the stages that must pass before `serving` begins, of all `stages`."""
    if serving.endpoint is None:
        return ()
    model, before = serving.inputs.get(serving.endpoint.model), set(serving.upstream)
    return tuple(
        stage
        for stage in stages
        if stage.job
        and stage.role is Role.SERVE
        and stage.name in before
        and model in stage.inputs.values()
    )


def with_engines(pipeline: Pipeline) -> Pipeline:
    """Return `pipeline` with the engine of an endpoint in place of each `auto` of its guards."""
    stages = pipeline.by_name
    engines = {
        guard.name: serving.endpoint
        for serving in pipeline.stages
        if serving.endpoint and serving.endpoint.server is None
        for guard in guards((stages[n] for n in serving.upstream if n in stages), serving)
        if guard.params.get(ENGINE) == AUTO
    }
    changed = tuple(
        replace(
            stage,
            params={
                OPTIONS: dict(endpoint.engine_options),
                **stage.params,
                ENGINE: endpoint.engine,
            },
        )
        if (endpoint := engines.get(stage.name))
        else stage
        for stage in pipeline.stages
    )
    return replace(pipeline, stages=changed)
