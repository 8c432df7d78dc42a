"""What types can't say of a config: the bounds of its figures, and names that must differ.

Works on plain data, so that a wrong type elsewhere hides nothing; what has a wrong type itself is
passed over here. What a pipeline needs to make sense is the plan's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from orchestrator.adapters.hydra_config import emulated, gateway
from orchestrator.core.bounds import MOMENT, MOST
from orchestrator.core.errors import Problem, shown
from orchestrator.core.spec import Json

# The least and the most that a figure may be; "not a number" is refused with both.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "cost_limit": (0, MOST),
    "time_limit": (MOMENT, MOST),
    "attempt_limit": (1, 1_000_000),
    "priority": (-1000, 1000),
    "tracking.system_seconds": (0, 86_400),
    "database.patience": (0, 86_400),
    "gateway.port": (1, 65_535),
    "gateway.metrics.port": (1, 65_535),
    "gateway.limits.*": (MOMENT, MOST),
    "cluster.object_store_mb": (75, MOST),
    "cluster.patience": (1, MOST),
    "qualification.days": (0, 36_500),
    "fleet.pools.*.nodes": (1, 1_000_000),
    "fleet.pools.*.devices_per_node": (0, 1024),
    "fleet.pools.*.cpus_per_node": (1, 4096),
    "fleet.pools.*.price_per_hour": (0, MOST),
    "fleet.pools.*.emulation.faults.*.at_step": (0, MOST),
    "fleet.pools.*.emulation.faults.*.rate": (0, 1),
    "fleet.pools.*.emulation.faults.*.rank": (0, 1_000_000),
    "fleet.pools.*.emulation.faults.*.attempts": (1, 1000),
    "fleet.pools.*.emulation.faults.*.steps": (1, MOST),
    "fleet.pools.*.emulation.faults.*.code": (0, 255),
    "fleet.pools.*.emulation.faults.*.factor": (1, 1_000_000),
    "fleet.pools.*.emulation.faults.*.seconds": (0, 86_400),
    "fleet.pools.*.accelerator.memory_gb": (0, MOST),
    "fleet.pools.*.accelerator.bandwidth_tbs": (0, MOST),
    "fleet.pools.*.accelerator.bf16_tflops": (0, MOST),
    "fleet.pools.*.accelerator.fp8_tflops": (0, MOST),
    "fleet.pools.*.accelerator.link_gbs": (0, MOST),
    "fleet.pools.*.accelerator.price_per_hour": (0, MOST),
    "engines.*.at_once": (1, 100_000),
    "engines.*.probe_seconds": (0.1, 86_400),
    "engines.*.deadline": (0.1, 86_400),
    "engines.*.grace": (0, 86_400),
    "pipeline.stages.*.hours": (0, 1_000_000),
    "pipeline.stages.*.needs.workers": (1, 1_000_000),
    "pipeline.stages.*.needs.min_workers": (1, 1_000_000),
    "pipeline.stages.*.needs.devices": (0, 1024),
    "pipeline.stages.*.needs.cpus": (0, 4096),
    "pipeline.stages.*.needs.memory_gb": (0, MOST),
    "pipeline.stages.*.limits.attempts": (1, 1000),
    "pipeline.stages.*.limits.tries": (1, 1000),
    "pipeline.stages.*.limits.timeout": (MOMENT, MOST),
    "pipeline.stages.*.limits.total": (1, 1_000_000),
    "pipeline.stages.*.limits.grace": (0, MOST),
    "pipeline.stages.*.limits.queued": (0, MOST),
    "pipeline.stages.*.limits.pending": (0, MOST),
    "pipeline.stages.*.limits.cost": (0, MOST),
    "pipeline.stages.*.limits.backoff": (0, 86_400),
    "pipeline.stages.*.recovery.checkpoints": (1, 1000),
    "pipeline.stages.*.recovery.rate": (0.000001, 1.0),
    "pipeline.stages.*.recovery.accumulate": (2, 64),
    "pipeline.stages.*.recovery.keep": (1, 1000),
    "pipeline.stages.*.watch.hang": (1, MOST),
    "pipeline.stages.*.watch.window": (0, 100_000),
    "pipeline.stages.*.watch.deviations": (1, 1000),
    "pipeline.stages.*.watch.patience": (1, 1000),
    "pipeline.stages.*.gate.least": (1, MOST),
    "pipeline.stages.*.endpoint.max_replicas": (1, 10_000),
    "pipeline.stages.*.endpoint.scale.*.replicas": (1, 10_000),
    "pipeline.stages.*.endpoint.scale.*.max_replicas": (1, 10_000),
    "pipeline.stages.*.endpoint.target_requests": (0.1, 100_000),
    "pipeline.stages.*.endpoint.target_tokens": (1, MOST),
    "pipeline.stages.*.endpoint.idle": (1, MOST),
    "pipeline.stages.*.endpoint.ready": (1, MOST),
    "pipeline.stages.*.endpoint.drain": (1, MOST),
    "pipeline.stages.*.endpoint.concurrency": (1, 100_000),
    "pipeline.stages.*.endpoint.queue": (0, 1_000_000),
    "pipeline.stages.*.endpoint.rollout.steps.*": (1, 100),
    "pipeline.stages.*.endpoint.rollout.hold": (0, 86_400),
    "pipeline.stages.*.endpoint.rollout.requests": (1, MOST),
    "pipeline.stages.*.endpoint.rollout.error_rate": (0, 1),
    "pipeline.stages.*.endpoint.rollout.slower": (1, 1000),
    "pipeline.stages.*.endpoint.rollout.agreement": (0, 1),
    "pipeline.stages.*.gate.deadline": (0, MOST),
    "pipeline.stages.*.endpoint.replicas": (1, 10_000),
}

# Tags by which MLflow, and what writes there, know a run; a user's own would stand in their place.
OURS = frozenset(
    {"run.id", "level", "pipeline", "fleet", "emulated", "state", "pools", "summary", "overrides"}
)
RESERVED = ("mlflow.", "orchestrator.", "pool.", "reused.", "failure.")
LAWFUL = frozenset({"mlflow.note.content"})
LONGEST_TAG = 250  # characters of a tag's name that MLflow takes

PATTERN = "fleet.pools.*.accelerator.diagnostic_failed"


def problems(data: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield what is wrong with a config beside its types."""
    for pattern, (low, high) in BOUNDS.items():
        for path, value in _at(data, pattern.split("."), ()):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not low <= value <= high:  # type: ignore[operator]
                hint = f"at least {low}" if high is MOST else f"{low} to {high}"
                yield Problem(path, f"{shown(value)} is out of bounds", hint)
    for path, value in _at(data, PATTERN.split("."), ()):
        if isinstance(value, str) and not _compiles(value):
            yield Problem(path, f"{shown(value)} is no regular expression", "escape what it means")
    yield from emulated.problems(_mapping(_mapping(data.get("fleet")).get("pools")))
    yield from gateway.problems(_mapping(data.get("gateway")))
    yield from _tag_problems(_mapping(data.get("tags")))
    yield from _endpoint_names(_mapping(_mapping(data.get("pipeline")).get("stages")))


def _tag_problems(tags: Mapping[str, Json]) -> Iterator[Problem]:
    for name in tags:
        if len(name) > LONGEST_TAG:
            what = f"{shown(name)} is too long for the name of a tag"
            yield Problem(f"tags.{name}", what, f"use up to {LONGEST_TAG} characters")
        elif name in OURS or (name.startswith(RESERVED) and name not in LAWFUL):
            whose = "MLflow's own" if name.startswith("mlflow.") else "taken: runs are found by it"
            hint = "rename it; mlflow.note.content is the description, pipeline.name names a run"
            yield Problem(f"tags.{name}", f"the tag {shown(name)} is {whose}", hint)


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _endpoint_names(stages: Mapping[str, Json]) -> Iterator[Problem]:
    seen: dict[Json, str] = {}
    for name, stage in stages.items():
        endpoint = _mapping(_mapping(stage).get("endpoint")).get("name")
        if isinstance(endpoint, str) and seen.setdefault(endpoint, name) != name:
            what = f"{shown(endpoint)} is the endpoint of stage {seen[endpoint]!r} too"
            yield Problem(f"pipeline.stages.{name}.endpoint.name", what, "rename one")


def _at(data: Json, pattern: list[str], path: tuple[str, ...]) -> Iterator[tuple[str, Json]]:
    if not pattern:
        yield ".".join(path), data
        return
    holder = _holder(data)
    for key in holder if pattern[0] == "*" else [pattern[0]]:
        if key in holder:
            yield from _at(holder[key], pattern[1:], (*path, key))


def _holder(data: Json) -> Mapping[str, Json]:
    """Return what `data` holds by key, or by number where it is a list."""
    if isinstance(data, list):
        return {str(number): item for number, item in enumerate(data)}
    return _mapping(data)


def _mapping(data: Json) -> Mapping[str, Json]:
    return data if isinstance(data, dict) else {}
