"""A stage that is a command is written by keys of its own; inside it is the job that runs it."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.errors import Problem
from orchestrator.core.spec.command_stages import JOB, KEYS, spread_layout
from orchestrator.core.spec.stages import Json

TO_LEAVE = 5.0  # seconds that a worker has to leave once its command has ended, or was killed
USUAL_GRACE = 30.0
GRACE = "grace"


def as_jobs(stages: dict[str, Json]) -> Iterator[Problem]:
    """Turn stages with a `command` into stages of its job; yield where they say two things."""
    for name, stage in stages.items():
        if not isinstance(stage, dict):
            continue
        params = stage.get("params")
        if "command" in stage:
            yield from _as_job(name, stage)
        elif stage.get("job") == JOB and isinstance(params, dict):  # built in Python
            params |= _command_params(dict(params))
        else:
            yield from _misplaced(name, stage)


def _as_job(name: str, stage: dict[str, Json]) -> Iterator[Problem]:
    params = _command_params(stage)
    for differs in _mappings(stage.get("on")):
        own = differs.get("params")
        differs["params"] = {**_command_params(differs), **(own if isinstance(own, dict) else {})}
    for other in ("job", "endpoint", "params"):
        if stage.get(other):
            path = f"pipeline.stages.{name}.{other}"
            yield Problem(path, "stands beside a command", "leave one of them out")
    stage |= {"job": JOB, "params": params, "endpoint": None}
    stage.setdefault("role", "train")
    _agree_on_grace(stage, params)


def _misplaced(name: str, stage: dict[str, Json]) -> Iterator[Problem]:
    """Take keys of a command from a stage that is none, and say so."""
    for key in _command_params(stage):
        what = "is a key of a stage with a command, and this one has none"
        yield Problem(f"pipeline.stages.{name}.{key}", what, "write `command`, or leave it out")


def _agree_on_grace(stage: dict[str, Json], params: dict[str, Json]) -> None:
    """Fill in what is not said of two: seconds that the command has to end, and its worker."""
    limits = stage.setdefault("limits", {})
    if not isinstance(limits, dict):
        return
    by_pool = (differs.get("params") for differs in _mappings(stage.get("on")))
    holders = [holder for holder in (params, *by_pool) if isinstance(holder, dict)]
    graces = [holder[GRACE] for holder in holders if isinstance(holder.get(GRACE), int | float)]
    kill_after = limits.get("kill_after")
    if kill_after is None:
        limits["kill_after"] = max(graces, default=USUAL_GRACE) + TO_LEAVE
    elif not graces and isinstance(kill_after, int | float):
        params[GRACE] = max(0.0, kill_after - TO_LEAVE)


def _command_params(holder: dict[str, Json]) -> dict[str, Json]:
    params = {key: holder.pop(key) for key in KEYS if key in holder}
    if "checkpoints" in params:
        params["checkpoints"] = spread_layout(params["checkpoints"])
    return params


def _mappings(by_pool: Json) -> list[dict[str, Json]]:
    values = by_pool.values() if isinstance(by_pool, dict) else ()
    return [value for value in values if isinstance(value, dict)]
