"""What types can't say of a config: the bounds of its figures, and names that must differ.

Works on plain data, so that a wrong type elsewhere hides nothing; what has a wrong type itself is
passed over here. What a pipeline needs to make sense is the plan's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from orchestrator.adapters.hydra_config import emulated
from orchestrator.core.errors import Problem
from orchestrator.core.spec import Json

MOST = 10**15  # endless is `null`, never an infinite number

# The least and the most that a figure may be; "not a number" is refused with both.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    "cost_limit": (0, MOST),
    "time_limit": (0, MOST),
    "attempt_limit": (1, 1_000_000),
    "priority": (-1000, 1000),
    "tracking.system_seconds": (0, 86_400),
    "database.patience": (0, 86_400),
    "cluster.serve_port": (1, 65_535),
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
    "fleet.pools.*.accelerator.price_per_hour": (0, MOST),
    "pipeline.stages.*.hours": (0, 1_000_000),
    "pipeline.stages.*.needs.workers": (1, 1_000_000),
    "pipeline.stages.*.needs.min_workers": (1, 1_000_000),
    "pipeline.stages.*.needs.devices": (0, 1024),
    "pipeline.stages.*.needs.cpus": (0, 4096),
    "pipeline.stages.*.needs.memory_gb": (0, MOST),
    "pipeline.stages.*.limits.attempts": (1, 1000),
    "pipeline.stages.*.limits.tries": (1, 1000),
    "pipeline.stages.*.limits.timeout": (0, MOST),
    "pipeline.stages.*.limits.pending": (0, MOST),
    "pipeline.stages.*.limits.cost": (0, MOST),
    "pipeline.stages.*.limits.backoff": (0, 86_400),
    "pipeline.stages.*.recovery.checkpoints": (1, 1000),
    "pipeline.stages.*.recovery.rate": (0.0, 1.0),
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

PATTERN = "fleet.pools.*.accelerator.diagnostic_failed"


def problems(data: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield what is wrong with a config beside its types."""
    for pattern, (low, high) in BOUNDS.items():
        for path, value in _at(data, pattern.split("."), ()):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not low <= value <= high:  # type: ignore[operator]
                hint = f"at least {low}" if high is MOST else f"{low} to {high}"
                yield Problem(path, f"{value!r} is out of bounds", hint)
    for path, value in _at(data, PATTERN.split("."), ()):
        if isinstance(value, str) and not _compiles(value):
            yield Problem(path, f"{value!r} is no regular expression", "escape what it means")
    yield from emulated.problems(_mapping(_mapping(data.get("fleet")).get("pools")))
    yield from _endpoint_names(_mapping(_mapping(data.get("pipeline")).get("stages")))


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
            what = f"{endpoint!r} is the endpoint of stage {seen[endpoint]!r} too"
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
