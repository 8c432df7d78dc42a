"""When the result of a stage may stand for another: equal keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict

from orchestrator.core.run import Run, StageRun


def never_reuse(run: Run, stage: StageRun) -> str | None:  # noqa: ARG001 - the form of a reuse key
    """Return no key: every stage runs."""
    return None


def reuse_key_with(source_of: Callable[[str], str]) -> Callable[[Run, StageRun], str | None]:
    """Return the function that gives a stage its key, or `None` where it may not be reused.

    Two stages have one key when job, source of the job (`source_of(dotted name)`), parameters,
    contents of the inputs, seed, size, accelerator and its emulation are equal. What a stage made
    on one chip never stands for what it would make on another.
    """

    def key(run: Run, stage: StageRun) -> str | None:
        planned = stage.planned.stage
        if planned.job is None or not planned.cache:
            return None
        made = {name: run.stages[source].artifact for name, source in planned.inputs.items()}
        pool = run.plan.pools[stage.planned.pools[0]]
        parts = {
            "job": planned.job,
            "source": source_of(planned.job),
            "params": planned.params,
            "inputs": {name: ref.digest for name, ref in made.items() if ref},
            "seed": run.plan.seed,
            "needs": asdict(planned.needs),
            "accelerator": pool.accelerator.name,
            "emulation": asdict(pool.emulation) if pool.emulation else None,
        }
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    return key
