"""What types can't say of a config: the bounds of its figures, and names that must differ.

Works on plain data, so that a wrong type elsewhere hides nothing; what has a wrong type itself is
passed over here. What a pipeline needs to make sense is the plan's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from orchestrator.adapters.hydra_config import emulated, gateway_checks
from orchestrator.core.errors import Problem, shown
from orchestrator.core.spec.bounds import BOUNDS, MOST
from orchestrator.core.spec.stages import Json

# Tags by which MLflow, and what writes there, know a run; a user's own would stand in their place.
OURS = frozenset(
    {"run.id", "level", "pipeline", "fleet", "emulated", "state", "pools", "summary", "overrides"}
)
RESERVED = ("mlflow.", "orchestrator.", "pool.", "reused.", "failure.")
LAWFUL = frozenset({"mlflow.note.content"})
LONGEST_TAG = 250  # characters of a tag's name that MLflow takes

PATTERNS = (
    "fleet.pools.*.accelerator.diagnostic_failed",
    "fleet.pools.*.accelerator.memory_errors_pattern",
)


def problems(data: Mapping[str, Json]) -> Iterator[Problem]:
    """Yield what is wrong with a config beside its types."""
    for pattern, (low, high) in BOUNDS.items():
        for path, value in _matches(data, pattern.split("."), ()):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not low <= value <= high:  # type: ignore[operator]
                hint = f"at least {low}" if high is MOST else f"{low} to {high}"
                yield Problem(path, f"{shown(value)} is out of bounds", hint)
    for pattern in PATTERNS:
        for path, value in _matches(data, pattern.split("."), ()):
            if isinstance(value, str) and not _compiles(value):
                what = f"{shown(value)} is no regular expression"
                yield Problem(path, what, "escape what it means")
    yield from emulated.problems(_mapping(_mapping(data.get("fleet")).get("pools")))
    yield from gateway_checks.problems(_mapping(data.get("gateway")))
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


def _matches(data: Json, pattern: list[str], path: tuple[str, ...]) -> Iterator[tuple[str, Json]]:
    if not pattern:
        yield ".".join(path), data
        return
    holder = _holder(data)
    for key in holder if pattern[0] == "*" else [pattern[0]]:
        if key in holder:
            yield from _matches(holder[key], pattern[1:], (*path, key))


def _holder(data: Json) -> Mapping[str, Json]:
    """Return what `data` holds by key, or by number where it is a list."""
    if isinstance(data, list):
        return {str(number): item for number, item in enumerate(data)}
    return _mapping(data)


def _mapping(data: Json) -> Mapping[str, Json]:
    return data if isinstance(data, dict) else {}
