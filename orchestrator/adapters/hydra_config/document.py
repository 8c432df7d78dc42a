"""The shape of a config, and which keys may stand where.

The values are those of `core`; the documents here differ from them only where a config is written
otherwise: stages and pools are named by their keys, roles stand at the top.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    ClassVar,
    Literal,
    TypeAlias,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import ConfigDict, Field

from orchestrator.core.failures.signatures import Signature
from orchestrator.core.settings import CommonSettings
from orchestrator.core.spec import command_stages
from orchestrator.core.spec.checks import LONGEST_NAME
from orchestrator.core.spec.engines import EngineSpec
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.stages import Endpoint, OnPool, Stage

NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$"
Name: TypeAlias = Annotated[str, Field(pattern=NAME_PATTERN, max_length=LONGEST_NAME)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineDocument:
    """A pipeline as it is written: stages by name, in order."""

    name: Name
    stages: Mapping[Name, Stage]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetDocument:
    """A fleet as it is written: pools by name."""

    name: Name
    pools: Mapping[Name, Pool]


@dataclass(frozen=True, kw_only=True)
class Document(CommonSettings):
    """A whole config as it is written. The values inside inherit the refusal of other keys."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    pipeline: PipelineDocument
    fleet: FleetDocument
    roles: Mapping[Role, str] = field(default_factory=dict)
    fallbacks: Mapping[Role, tuple[str, ...]] = field(default_factory=dict)
    cost_limit: float | None = None
    time_limit: float | None = None
    attempt_limit: int | None = None
    engines: Mapping[Name, EngineSpec] = field(default_factory=dict)


# Mappings of things that a config names itself: a new one is written in a file or added with `+`,
# never made by a mistyped override.
NAMED = (("pipeline", "stages"), ("fleet", "pools"), ("engines",))

# What the key in such a mapping says, or another name; it is not written again.
FROM_KEY: Mapping[object, str] = {
    Stage: "name",
    Pool: "name",
    Signature: "name",
    EngineSpec: "name",
    Endpoint: "server",
}


def names_at(path: Sequence[str]) -> tuple[str, ...] | None:
    """Return the keys that may stand under `path`, or `None` where any may, or none at all."""
    kind = type_at(path)
    if isinstance(kind, type) and is_dataclass(kind):
        more = command_stages.KEYS if kind in {Stage, OnPool} else ()
        return (*(f.name for f in fields(kind) if f.name != FROM_KEY.get(kind)), *more)
    key, _ = _mapping(kind)
    return tuple(role.value for role in Role) if key is Role else None


def type_at(path: Sequence[str]) -> object:
    """Return the type of the value at `path`, `None` where there is no such place."""
    kind: object = Document
    for part in path:
        kind = _bare(_inside(kind, part))
    return kind


def _inside(holder: object, part: str) -> object:
    if isinstance(holder, type) and is_dataclass(holder):
        return _hints(holder).get(part)
    return get_args(holder)[0] if get_origin(holder) is tuple else _mapping(holder)[1]


def _mapping(holder: object) -> tuple[object, object]:
    """Return the key and value type of a mapping, or twice `None`."""
    if get_origin(holder) is not Mapping:
        return None, None
    key, value = get_args(holder)
    return _bare(key), value


def _bare(kind: object) -> object:
    """Return `kind` without `Annotated` and `| None`."""
    if get_origin(kind) is Annotated:
        return _bare(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _bare(next(a for a in get_args(kind) if a is not NoneType))
    return kind


@cache
def _hints(holder: type) -> dict[str, object]:
    return get_type_hints(holder, include_extras=True)


def values_at(path: Sequence[str]) -> tuple[str, ...]:
    """Return the values that the key at `path` may have, empty where they are many."""
    kind = type_at(path)
    if get_origin(kind) is Literal:
        return tuple(str(value) for value in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return tuple(member.value for member in kind)
    return ("true", "false") if kind is bool else ()
