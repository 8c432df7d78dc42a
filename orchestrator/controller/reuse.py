"""When the result of a stage may stand for another: equal keys.

Rule: a key is that of the attempt itself. What a stage made on one chip, or with other parameters
after a failure, never stands for what it would make on another one, or as planned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace

from orchestrator.core.artifact import ShippedCode
from orchestrator.core.runs.decide import Start
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.runs.states import StageReused
from orchestrator.core.spec.policy import AS_PLANNED
from orchestrator.core.spec.stages import Stage
from orchestrator.messages import Succeeded


def never_reuse(run: Run, stage: StageRun) -> str | None:  # noqa: ARG001 - the form of a reuse key
    """Return no key: every stage runs."""
    return None


def reuse_key_with(
    source_of: Callable[[Stage, ShippedCode | None], str],
) -> Callable[[Run, StageRun], str | None]:
    """Return the function that gives a stage its key, or `None` where it may not be reused.

    Two stages have one key when job, all code that the job can import (`source_of` the stage and
    the code of its run), parameters, contents of the inputs, seed and size are equal, and their
    latest attempts had an equal accelerator, emulation, Python, environment variables of the pool
    and number of workers, and were adjusted alike. A stage without an attempt is as its first one
    would be.
    """

    def key(run: Run, stage: StageRun) -> str | None:
        planned = stage.planned.stage.on_pool(stage.pool)
        if planned.job is None or not planned.cache:
            return None
        artifacts = {name: run.stages[source].artifact for name, source in planned.inputs.items()}
        pool = run.plan.pools[stage.pool]
        parts = {
            "job": planned.job,
            "source": source_of(planned, run.header.code),
            "params": planned.params,
            "inputs": {name: ref.digest for name, ref in artifacts.items() if ref},
            "seed": run.plan.seed,
            "needs": asdict(planned.needs),
            **({"env": dict(planned.env)} if planned.env else {}),
            "workers": workers(stage),
            "adjust": asdict(stage.adjust),
            "accelerator": pool.accelerator.name,
            **({"pool env": pool.variables} if pool.variables else {}),
            "python": pool.python,
            "emulation": asdict(pool.emulation) if pool.emulation else None,
        }
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    return key


def workers(stage: StageRun) -> int:
    """Return how many workers its latest attempt has; an elastic gang may have shrunk."""
    needs = stage.planned.stage.on_pool(stage.pool).needs
    if needs.min_workers is None or not stage.attempts or not stage.attempts[-1].nodes:
        return needs.workers
    return len(stage.attempts[-1].nodes)


def entering(run: Run, command: Start) -> StageRun:
    """Return the stage as the attempt that `command` starts would find it."""
    stage = run.stages[command.stage]
    return replace(stage, pool=command.pool, adjust=AS_PLANNED, attempts=())


def credit(result: Succeeded, stage: StageRun) -> Succeeded:
    """Return the result of a stage with where and how it was made."""
    return replace(result, pool=stage.pool, adjust=stage.adjust, workers=workers(stage))


def standing_for(command: Start, result: Succeeded, run: str) -> StageReused:
    """Return the event: what `run` made stands for what `command` would start."""
    return StageReused(
        stage=command.stage,
        artifact=result.artifact,
        metrics=result.metrics,
        from_run=run,
        pool=result.pool or command.pool,
        adjust=result.adjust,
    )
