"""Tags, params and metric names of the MLflow runs that show a run and its attempts.

Pure functions. Every value is cut and every name mended to what MLflow takes, so that nothing that
a user wrote can make it refuse a request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache

from orchestrator.adapters.mlflow_tracker.tracked_run import TrackedRun
from orchestrator.adapters.mlflow_tracker.words import description, sentence
from orchestrator.core.runs.run import Attempt, Run
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.stages import Json

MAX_TAG = 8000
MAX_PARAM = 6000
MAX_NAME = 250
KEY = "orchestrator.key"
PARENT = "mlflow.parentRunId"
_BAD = re.compile(r"[^\w\-./: ]")
_CUT = " [cut]"
_NOTE = "mlflow.note.content"


@lru_cache(maxsize=4096)
def name(text: str) -> str:
    """Return `text` as a name that MLflow takes for a metric, a param or a tag."""
    parts = _BAD.sub("_", text)[:MAX_NAME].split("/")
    clean = "/".join(part for part in parts if part not in {"", ".", ".."})
    return (clean.lstrip(".") if clean.startswith("..") else clean) or "_"


def cut(text: str, limit: int) -> str:
    """Return `text`, no longer than `limit` characters."""
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def run_params(config: Mapping[str, Json]) -> dict[str, str]:
    """Return the params of a run; the signatures, which few change, are in its artifact alone."""
    return params({key: value for key, value in config.items() if key != "signatures"})


def attempt_key(run: str, stage: str, number: int) -> str:
    """Return the key of an attempt; the key of a run is its id."""
    return f"{run}/{stage}/{number}"


def params(config: Mapping[str, Json]) -> dict[str, str]:
    """Return `config` flat: dotted names, values as text."""
    return {name(path): cut(text, MAX_PARAM) for path, text in _flat("", config)}


def run_tags(tracked: TrackedRun, now: float) -> dict[str, str]:
    """Return the tags of the MLflow run that shows the whole run."""
    run = tracked.run
    plan, header = run.plan, run.header
    tags = {
        KEY: header.run,
        "run.id": header.run,
        "level": "run",
        "pipeline": plan.pipeline,
        "fleet": plan.fleet,
        "emulated": _yes(plan.emulated),
        "code": header.code.digest if header.code else "",
        "state": str(run.state),
        "pools": _route(run),
        "summary": sentence(tracked, now),
        _NOTE: description(tracked, now),
        **{f"pool.{role}": pool for role, pool in _pools_by_role(run).items()},
        **{f"reused.{s.name}": s.reused_from for s in run.stages.values() if s.reused_from},
        **header.tags,
    }
    if header.overrides:
        tags["overrides"] = " ".join(header.overrides)
    if tracked.failure:
        tags |= _failure_tags(tracked.failure)
    return _clean(tags)


def attempt_tags(tracked: TrackedRun, attempt: Attempt) -> dict[str, str]:
    """Return the tags of the MLflow run that shows an attempt."""
    run = tracked.run
    planned = run.plan[attempt.stage]
    pool = run.plan.pools[attempt.pool]
    tags = {
        KEY: attempt_key(run.header.run, attempt.stage, attempt.number),
        "run.id": run.header.run,
        "level": "attempt",
        "pipeline": run.plan.pipeline,
        "stage": attempt.stage,
        "attempt": str(attempt.number),
        "state": str(attempt.state),
        "role": str(planned.stage.role),
        **_hardware(pool),
        "devices": str(planned.devices),
        "node": ", ".join(dict.fromkeys(attempt.nodes)),
        **{f"software.{name}": version for name, version in attempt.software.items()},
        "job": planned.stage.job
        or (planned.stage.endpoint.engine if planned.stage.endpoint else ""),
        "decision": attempt.followed,
    }
    if attempt.failure:
        tags |= _failure_tags(attempt)
        tags[_NOTE] = f"{attempt.failure.kind}: {attempt.failure.evidence}"
    return _clean(tags)


def _hardware(pool: Pool) -> dict[str, str]:
    return {
        "pool": pool.name,
        "accelerator": pool.accelerator.name,
        "vendor": pool.accelerator.vendor,
        "emulated": _yes(pool.emulated),
        "emulation": pool.emulation_mode,
    }


def _failure_tags(attempt: Attempt) -> dict[str, str]:
    failure = attempt.failure
    if failure is None:
        return {}
    tags = {
        "failure.kind": str(failure.kind),
        "failure.evidence": failure.evidence,
        "failure.stage": attempt.stage,
        "failure.pool": attempt.pool,
        "failure.node": failure.node or "",
        "failure.at": _timestamp(attempt.ended),
    }
    numbers = {"failure.rank": failure.rank, "failure.step": failure.step}
    return tags | {key: str(value) for key, value in numbers.items() if value is not None}


def _pools_by_role(run: Run) -> dict[str, str]:
    """Return where each role ended up: the pool of its last stage in the plan."""
    return {str(stage.planned.stage.role): stage.pool for stage in run.stages.values()}


def _route(run: Run) -> str:
    """Return the way that training and serving took over the pools, on one line."""
    routes: dict[str, list[str]] = {}
    stages = [s for s in run.stages.values() if s.planned.stage.role is not Role.PREPARE]
    for stage in stages or run.stages.values():
        seen = routes.setdefault(str(stage.planned.stage.role), [])
        for pool in [attempt.pool for attempt in stage.attempts] or [stage.pool]:
            if seen[-1:] != [pool]:
                seen.append(pool)
    return ", ".join(f"{role} {' → '.join(pools)}" for role, pools in routes.items())


def _clean(tags: Mapping[str, str]) -> dict[str, str]:
    return {name(key): cut(str(value), MAX_TAG) for key, value in tags.items() if value != ""}


def _flat(path: str, value: Json) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    elif path:
        yield path, value if isinstance(value, str) else json.dumps(value, default=str)


def _timestamp(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _yes(value: bool) -> str:  # noqa: FBT001 - the one argument is what it says
    return "true" if value else "false"
