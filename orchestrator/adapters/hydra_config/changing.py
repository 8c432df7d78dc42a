"""A config of an earlier run, with some values changed: what a switch starts from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy

from orchestrator.adapters.hydra_config.absolute_paths import anchored
from orchestrator.adapters.hydra_config.document import names_at
from orchestrator.core.errors import ConfigError, Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec.stages import Json


def changed(config: Mapping[str, Json], overrides: Sequence[str]) -> Mapping[str, Json]:
    """Return `config`, composed before, with `KEY=VALUE` of `overrides` in place of what it says.

    Values follow Hydra's grammar, as those of `launch` do: `1e-3` is a number.

    Raises:
        ConfigError: Something is no override, or names a place that is not there.
    """
    copy = deepcopy(dict(config))
    problems = [problem for word in overrides if (problem := _set(copy, config, word))]
    if problems:
        raise ConfigError(problems)
    return copy


def replaced(config: Mapping[str, Json], values: Iterable[tuple[str, Json]]) -> Mapping[str, Json]:
    """Return `config` with values of ours in place of what it says, by path.

    Raises:
        ConfigError: A path names a place that is not there.
    """
    copy = deepcopy(dict(config))
    problems = [problem for path, value in values if (problem := _put(copy, config, path, value))]
    if problems:
        raise ConfigError(problems)
    return copy


def _set(target: dict[str, Json], config: Mapping[str, Json], word: str) -> Problem | None:
    """Set one value; what is no key of its place, the parser will say."""
    path, equals, text = word.lstrip("+").partition("=")  # a key may be new in any case
    if not equals or not path:
        return Problem(
            "", f"{shown(word)} is no override", "write KEY=VALUE, as roles.serve=ascend"
        )
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from orchestrator.adapters.hydra_config.overriding import UNPARSED

    try:
        override = OverridesParser.create().parse_override(f"value={text}")
    except UNPARSED:
        return Problem(path, f"{shown(text)} is no value", "quote it")
    if override.is_sweep_override():
        return Problem(path, f"{shown(text)} has several values", "write a list as [a,b]")
    return _put(target, config, path, anchored(path, override.value()))


def _put(
    target: dict[str, Json], config: Mapping[str, Json], path: str, value: Json
) -> Problem | None:
    *parents, last = path.split(".")
    holder: Json = target
    for part in parents:
        holder = holder.setdefault(part, {}) if isinstance(holder, dict) else None
    section, known = path.partition(".")[0], {*config, *(names_at(()) or ())}
    if not isinstance(holder, dict) or section not in known:
        hint = choices(section, config, "keys of the config")
        return Problem(path, "there is no such place in the run's config", hint)
    holder[last] = value
    return None
