"""A config of an earlier run, with some values changed: what a switch starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from hydra.core.override_parser.overrides_parser import OverridesParser

from orchestrator.adapters.hydra_config import overriding
from orchestrator.core.errors import ConfigError, Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec import Json


def changed(config: Mapping[str, Json], overrides: Sequence[str]) -> Mapping[str, Json]:
    """Return `config`, composed before, with `KEY=VALUE` of `overrides` in place of what it says.

    Values follow Hydra's grammar, as those of `launch` do: `1e-3` is a number.

    Raises:
        ConfigError: Something is no override, or names a place that is not there.
    """
    made = deepcopy(dict(config))
    problems = [problem for word in overrides if (problem := _set(made, config, word))]
    if problems:
        raise ConfigError(problems)
    return made


def _set(made: dict[str, Json], config: Mapping[str, Json], word: str) -> Problem | None:
    """Set one value; what is no key of its place, the parser will say."""
    path, equals, text = word.lstrip("+").partition("=")  # a key may be new in any case
    if not equals or not path:
        return Problem(
            "", f"{shown(word)} is no override", "write KEY=VALUE, as roles.serve=ascend"
        )
    *parents, last = path.split(".")
    holder: Json = made
    for part in parents:
        holder = holder.setdefault(part, {}) if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or path.partition(".")[0] not in config:
        hint = choices(path.partition(".")[0], config, "keys of the config")
        return Problem(path, "there is no such place in the run's config", hint)
    try:
        override = OverridesParser.create().parse_override(f"value={text}")
    except overriding.UNPARSED:
        return Problem(path, f"{shown(text)} is no value", "quote it")
    if override.is_sweep_override():
        return Problem(path, f"{shown(text)} has several values", "write a list as [a,b]")
    holder[last] = override.value()
    return None
