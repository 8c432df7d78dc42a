"""Settings and jobs that have another name than in an earlier version.

Whoever writes the old name, as an override or in a file, is told the new one in a line, and gets
what was meant; so does a config that is stored with a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.core.errors import shown
from orchestrator.core.spec.moved_jobs import job_of_today
from orchestrator.core.spec.stages import Json

MOVED: Mapping[tuple[str, str], tuple[str, str]] = {("cluster", "serve_port"): ("gateway", "port")}


def overrides_of_today(overrides: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return `overrides` under the names of today, and a line for each that has another one."""
    words: list[str] = []
    lines: list[str] = []
    for word in overrides:
        key, mark, value = word.partition("=")
        group, _, name = key.lstrip("+").partition(".")
        new = MOVED.get((group, name))
        words.append(word if new is None else ".".join(new) + mark + value)
        lines += [] if new is None else [_line((group, name), new)]
    return tuple(words), tuple(lines)


def with_settings(
    config: Mapping[str, Json], overrides: Sequence[str] = ()
) -> tuple[Mapping[str, Json], tuple[str, ...]]:
    """Return `config` with its settings under the names of today, and a line for each that moved.

    What one of `overrides` sets by the name of today goes before the old name.
    """
    whole = dict(config)
    lines: list[str] = []
    chosen = {word.partition("=")[0].lstrip("+") for word in overrides}
    for (group, key), new in MOVED.items():
        holder = whole.get(group)
        if isinstance(holder, Mapping) and key in holder:
            lines.append(_line((group, key), new))
            whole[group] = {name: value for name, value in holder.items() if name != key}
            now = whole.get(new[0])
            before = now if isinstance(now, Mapping) else {}
            if ".".join(new) not in chosen:
                whole[new[0]] = {**before, new[1]: holder[key]}
    return whole, tuple(lines)


def _line(old: tuple[str, str], new: tuple[str, str]) -> str:
    return f"{'.'.join(old)} is {'.'.join(new)} now"


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
