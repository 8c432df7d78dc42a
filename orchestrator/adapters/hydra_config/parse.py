"""From a composed config, as plain data, to frozen values. Reports every problem at once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from functools import cache

from pydantic import TypeAdapter, ValidationError

from orchestrator.adapters.hydra_config import command_keys, document_checks, moved, translation
from orchestrator.adapters.hydra_config.document import NAMED, Document
from orchestrator.core.errors import ConfigError, Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.settings import CommonSettings, Settings
from orchestrator.core.spec.engine_checks import problems_of_spec
from orchestrator.core.spec.engines import EngineSpec, is_server
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.policy import Bounds
from orchestrator.core.spec.stages import Bindings, Endpoint, Json, Pipeline, Stage

TEXTS = (
    ("tags",),
    ("fleet", "pools", "*", "labels"),
    ("fleet", "pools", "*", "env"),
    ("fleet", "pools", "*", "accelerator", "env"),
    ("pipeline", "stages", "*", "env"),
)


def parse(config: Mapping[str, Json]) -> Settings:
    """Return the settings that `config`, composed and resolved before, says.

    It may be of an earlier version, as that of a run that is resumed.

    Raises:
        ConfigError: With all problems.
    """
    config, settings_moved = moved.with_settings(config)
    config, jobs_moved = moved.with_jobs(config)
    settings, problems = try_parse(config)
    if settings is None or problems:
        raise ConfigError(problems)
    return replace(settings, resolved=config, renamed=(*settings_moved, *jobs_moved))


def try_parse(config: Mapping[str, Json]) -> tuple[Settings | None, list[Problem]]:
    """Return the settings, `None` where the config has not their shape, and all problems."""
    data = json.loads(json.dumps(config, default=str))
    named = list(_name_by_key(data))
    named += command_keys.as_jobs(_mapping_at(data, ("pipeline", "stages")))
    for path in TEXTS:
        _as_text(data, path)
    _spread_workers(data)
    _fill_in_by_pool(data)
    document, wrong = _validate(data)
    misshapen = {problem.path for problem in wrong}
    bounds = (
        problem for problem in document_checks.problems(data) if problem.path not in misshapen
    )
    settings = None if document is None else _settings(document)
    engines = [] if document is None else [*_engine_problems(document)]
    return settings, [*wrong, *named, *bounds, *_patterns(document), *engines]


def _validate(data: Json) -> tuple[Document | None, list[Problem]]:
    """Check the shape, as JSON in strict mode.

    That is what a config file means: a list is a tuple and a name an enum, but text is no number
    and `true` is not 1.
    """
    try:
        return _adapter().validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return None, list(translation.problems(error.errors(include_url=False)))


@cache
def _adapter() -> TypeAdapter[Document]:
    return TypeAdapter(Document)


def _patterns(document: Document | None) -> Iterator[Problem]:
    """Refuse signatures that are no regular expressions."""
    for name, signature in document.signatures.items() if document else ():
        try:
            re.compile(signature.pattern)
        except re.error as error:
            what = f"{signature.pattern!r} is no regular expression: {error}"
            yield Problem(f"signatures.{name}.pattern", what, "mend it")


def _engine_problems(document: Document) -> Iterator[Problem]:
    """Refuse engine servers that can't be started, and names that are none's."""
    for name, spec in document.engines.items():
        yield from problems_of_spec(f"engines.{name}", spec)
    for name, stage in document.pipeline.stages.items():
        path, endpoint = f"pipeline.stages.{name}.endpoint", stage.endpoint
        if endpoint is None:
            continue
        if endpoint.server is not None:
            what = "is filled in by the name that `engine` has"
            yield Problem(f"{path}.server", what, "write it as a file of the group engine")
        if is_server(endpoint.engine) and endpoint.engine not in document.engines:
            hint = choices(endpoint.engine, document.engines, "engine servers")
            what = f"{shown(endpoint.engine)} is no engine server, and no dotted name of a class"
            yield Problem(f"{path}.engine", what, f"{hint}; add one by +engine@engines.NAME=NAME")


def _stages(document: Document) -> tuple[Stage, ...]:
    """Return the stages, with the server of each engine that is one, and how long each drains."""
    longest = document.gateway.limits.get("request_seconds")
    return tuple(
        replace(stage, endpoint=_filled(stage.endpoint, document.engines, longest))
        if stage.endpoint
        else stage
        for stage in document.pipeline.stages.values()
    )


def _filled(
    endpoint: Endpoint, engines: Mapping[str, EngineSpec], longest: float | None
) -> Endpoint:
    drain = longest if endpoint.drain is None else endpoint.drain
    return replace(endpoint, server=engines.get(endpoint.engine), drain=drain)


def _settings(document: Document) -> Settings:
    common = {group.name: getattr(document, group.name) for group in fields(CommonSettings)}
    common["signatures"] = {
        name: replace(signature, name=name) for name, signature in document.signatures.items()
    }
    return Settings(
        pipeline=Pipeline(name=document.pipeline.name, stages=_stages(document)),
        fleet=Fleet(name=document.fleet.name, pools=document.fleet.pools),
        bindings=Bindings(roles=document.roles, fallbacks=document.fallbacks),
        bounds=Bounds(
            cost=document.cost_limit, time=document.time_limit, attempts=document.attempt_limit
        ),
        **common,
    )


def _name_by_key(data: Json) -> Iterator[Problem]:
    """Fill in the names of stages and pools, which are their keys."""
    for path in NAMED:
        for name, item in _mapping_at(data, path).items():
            if not isinstance(item, dict):
                continue
            given = item.setdefault("name", name)
            if given != name:
                where = ".".join((*path, name, "name"))
                yield Problem(where, f"{shown(given)} differs from its key", "rename the key")
                item["name"] = name


def _spread_workers(data: Json) -> None:
    """Turn `workers: {min: 1, max: 4}` of an elastic gang into the two fields that hold it."""
    for stage in _mapping_at(data, ("pipeline", "stages")).values():
        for holder in (stage, *_mapping_at(stage, ("on",)).values()):
            needs = _mapping_at(holder, ("needs",))
            span = needs.get("workers")
            if isinstance(span, dict) and span.keys() == {"min", "max"}:
                needs["workers"], needs["min_workers"] = span["max"], span["min"]


def _fill_in_by_pool(data: Json) -> None:
    """Complete what a stage says of its needs and its watch on some pools by what it says else.

    Who names a number of workers there means that number, also where the gang is elastic else.
    """
    for stage in _mapping_at(data, ("pipeline", "stages")).values():
        for differs in _mapping_at(stage, ("on",)).values():
            needs = _mapping_at(differs, ("needs",))
            if "workers" in needs:
                needs.setdefault("min_workers", None)
            for section in ("needs", "watch"):
                inside = _mapping_at(differs, (section,))
                for key, value in _mapping_at(stage, (section,)).items() if inside else ():
                    inside.setdefault(key, value)


def _as_text(data: Json, path: tuple[str, ...]) -> None:
    """Turn numbers and truth values at `path` into the text that was written."""
    head, *rest = path
    holder = data if isinstance(data, dict) else {}
    if rest:
        for key in list(holder) if head == "*" else [head]:
            _as_text(holder.get(key), tuple(rest))
        return
    section = holder.get(head)
    if isinstance(section, dict):
        plain = {k: v for k, v in section.items() if isinstance(v, (bool, int, float))}
        section.update({k: json.dumps(v) for k, v in plain.items()})


def _mapping_at(data: Json, path: Iterable[str]) -> dict[str, Json]:
    for part in path:
        data = data.get(part) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}
