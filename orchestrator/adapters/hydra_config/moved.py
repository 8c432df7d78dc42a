"""Settings and jobs that have another name than in an earlier version.

Whoever writes the old name is told the new one; a config that is stored with a run is read on, and
so is a job of before in any config.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.core.errors import shown
from orchestrator.core.spec.moved_jobs import job_of_today
from orchestrator.core.spec.stages import Json

MOVED: Mapping[tuple[str, str], tuple[str, str]] = {("cluster", "serve_port"): ("gateway", "port")}


def forward(config: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return `config` with its settings under the names of today."""
    whole = dict(config)
    for (group, key), (new_group, new_key) in MOVED.items():
        holder = whole.get(group)
        if isinstance(holder, Mapping) and key in holder:
            whole[group] = {name: value for name, value in holder.items() if name != key}
            now = whole.get(new_group)
            before = now if isinstance(now, Mapping) else {}
            whole[new_group] = {**before, new_key: holder[key]}
    return whole


def with_jobs(config: Mapping[str, Json]) -> tuple[Mapping[str, Json], tuple[str, ...]]:
    """Return `config` with its jobs under the names of today, and a line for each that moved."""
    pipeline = config.get("pipeline")
    stages = pipeline.get("stages") if isinstance(pipeline, Mapping) else None
    if not isinstance(pipeline, Mapping) or not isinstance(stages, Mapping):
        return config, ()
    moved: dict[str, Json] = {}
    lines: list[str] = []
    for name, stage in stages.items():
        job = stage.get("job") if isinstance(stage, Mapping) else None
        if isinstance(job, str) and (new := job_of_today(job)) != job:
            moved[name] = {**stage, "job": new}
            lines.append(f"pipeline.stages.{name}.job: {shown(job)} is {new} now")
    return {**config, "pipeline": {**pipeline, "stages": {**stages, **moved}}}, tuple(lines)


def hint(path: tuple[str, ...]) -> str:
    """Return what the setting at `path` is called today, as the way out; empty if it never was."""
    new = MOVED.get((path[0], path[-1])) if len(path) > 1 else None
    return "" if new is None else f"it is {'.'.join(new)} now"
