"""Overrides, one by one: which can be read, which choose a file, which set a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from orchestrator.adapters.hydra_config import translation
from orchestrator.adapters.hydra_config.document import NAMED
from orchestrator.core.errors import ConfigError, Problem, shown
from orchestrator.core.nearest import choices

# A name longer than this is no file: to ask for it would be an error of the operating system.
LONGEST = 200
# What Hydra's parser raises: of a number with thousands of digits a ValueError.
UNPARSED = (HydraException, ValueError, RecursionError)
HOW = "write KEY=VALUE, and quote special characters"


def parse(
    loader: ConfigLoaderImpl, overrides: Iterable[str]
) -> tuple[list[Override], list[Problem]]:
    """Return the overrides that follow Hydra's grammar, and what is wrong with the others."""
    parser = OverridesParser.create(config_loader=loader)
    parsed: list[Override] = []
    problems: list[Problem] = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except UNPARSED as error:
            reason = (
                "nested too deep"
                if isinstance(error, RecursionError)
                else translation.first_line(error)
            )
            what = f"{shown(text)} is no override: {reason}"
            problems.append(Problem("", what, HOW))
            continue
        override.config_loader = loader  # a sweep by glob(...) asks it for names
        if override.key_or_group:
            parsed.append(override)
        else:
            problems.append(Problem("", f"{shown(text)} is no override: it has no key", HOW))
    return parsed, problems


def split(
    repository: IConfigRepository, overrides: Iterable[Override]
) -> tuple[list[Override], list[Override]]:
    """Return those that choose files (or concern Hydra itself), and those that set values."""
    choosing: list[Override] = []
    setting: list[Override] = []
    for override in overrides:
        chooses = (
            _is_group(repository, override.key_or_group)
            or override.package is not None
            or override.is_hydra_override()
        )
        (choosing if chooses else setting).append(override)
    return choosing, setting


def sweeps(overrides: Iterable[Override]) -> Iterator[Problem]:
    """Yield a problem for each override that has several values."""
    for override in overrides:
        if override.is_sweep_override():
            what = f"{shown(override.input_line)} has several values"
            hint = "sweep over them with -m, or write a list as [a,b] and text as 'a,b'"
            yield Problem(override.key_or_group, what, hint)


def unknown_options(
    repository: IConfigRepository, choosing: Iterable[Override]
) -> Iterator[tuple[Override, Problem]]:
    """Yield each override that chooses a file which does not exist."""
    for override in choosing:
        if override.is_hydra_override() or override.is_delete():
            continue
        group, value = override.key_or_group, override.value()
        path = override.get_key_element().lstrip("+")
        known = repository.get_group_options(group) if _is_group(repository, group) else []
        for name in value if isinstance(value, list) else [value]:
            if name is None:
                yield override, Problem(path, "null chooses no config", f"remove it: ~{path}")
            elif not _is_config(repository, f"{group}/{name}"):
                what = f"{shown(str(name))} is not one of the configs in {group}/"
                yield override, Problem(path, what, choices(str(name), known, "configs"))


def _is_group(repository: IConfigRepository, name: str) -> bool:
    return len(name) <= LONGEST and bool(repository.group_exists(name))


def _is_config(repository: IConfigRepository, name: str) -> bool:
    return len(name) <= LONGEST and bool(repository.config_exists(name))


def path_of(override: Override) -> tuple[str, ...]:
    """Return the keys that `override` goes down."""
    keys = override.key_or_group.replace("[", ".").replace("]", "")
    return tuple(key for key in keys.split(".") if key)


def with_hint(override: Override, problem: Problem, config: DictConfig | None) -> Problem:
    """Return `problem` with the names that exist, or the override that was meant."""
    path = tuple(problem.path.split("."))
    if path[:-1] in NAMED and config is not None:
        known = [str(key) for key in OmegaConf.select(config, ".".join(path[:-1])) or ()]
        hint = f"{choices(path[-1], known, path[-2])}; a new one is added with +"
        return Problem(problem.path, problem.what, hint)
    keys = path_of(override)
    if keys[0] in translation.ROLE_LIKE and len(keys) > 1:
        value = override.get_value_element_as_str()
        hint = f"a role is bound to a pool by roles.{keys[1]}={value}"
        return Problem(".".join(keys), f"unknown key {shown(keys[0])}", hint)
    return problem


def combinations(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """Return every combination of the values of a sweep, as Hydra's own sweeper orders them.

    Raises:
        ConfigError: A sweep has no list of values.
    """
    endless = [o for o in overrides if o.is_sweep_override() and not o.is_discrete_sweep()]
    if endless:
        raise ConfigError(
            Problem(
                o.key_or_group, f"{shown(o.input_line)} has no end of values", "use range(...)"
            )
            for o in endless
        )
    lines = {override.get_key_element(): _lines(override) for override in overrides}
    return list(product(*lines.values()))


def _lines(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={v}" for v in override.sweep_string_iterator()]


def forced(override: Override) -> str:
    """Return an override that sets a value, so that Hydra takes it where the key is new, too."""
    line = str(override.input_line)
    return line if line.startswith(("+", "~")) else f"++{line}"
