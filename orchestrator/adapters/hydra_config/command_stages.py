"""A stage that is a command is written by keys of its own; inside it is the job that runs it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.errors import Problem
from orchestrator.core.spec.stages import Json

JOB = "jobs.commands.stage.run"
# The parameters of that job, which are keys of a stage with a command.
KEYS = ("command", "processes", "workdir", "resume", "checkpoints", "metrics", "result", "grace")


def as_jobs(stages: dict[str, Json]) -> Iterator[Problem]:
    """Turn stages with a `command` into stages of its job; yield where they say two things."""
    for name, stage in stages.items():
        if not isinstance(stage, dict) or "command" not in stage:
            continue
        params = _taken(stage)
        for differs in _mappings(stage.get("on")):
            own = differs.get("params")
            differs["params"] = {**_taken(differs), **(own if isinstance(own, dict) else {})}
        for other in ("job", "endpoint", "params"):
            if stage.get(other):
                path = f"pipeline.stages.{name}.{other}"
                yield Problem(path, "stands beside a command", "leave one of them out")
        stage |= {"job": JOB, "params": params, "endpoint": None}
        stage.setdefault("role", "train")


def _taken(holder: dict[str, Json]) -> dict[str, Json]:
    return {key: holder.pop(key) for key in KEYS if key in holder}


def _mappings(by_pool: Json) -> list[dict[str, Json]]:
    values = by_pool.values() if isinstance(by_pool, dict) else ()
    return [value for value in values if isinstance(value, dict)]
