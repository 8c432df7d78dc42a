"""A config of an earlier run, with some values changed: what a switch starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import yaml

from orchestrator.adapters.hydra_config import weighing
from orchestrator.core.errors import ConfigError, Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec import Json


def changed(config: Mapping[str, Json], overrides: Sequence[str]) -> Mapping[str, Json]:
    """Return `config`, composed before, with `KEY=VALUE` of `overrides` in place of what it says.

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
        fault = next(weighing.faults(text), None)
        if fault is None:
            holder[last] = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return Problem(path, f"{shown(text)} is no value", "quote it")
    return Problem(path, fault.what, fault.hint) if fault else None
