"""From OmegaConf to plain data, with every missing value and every bad interpolation found."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.adapters.hydra_config import messages
from orchestrator.core.errors import Problem
from orchestrator.core.spec import Json


def to_plain(config: DictConfig) -> tuple[dict[str, Json], list[Problem]]:
    """Return `config` resolved, less what has no value, and a problem for each of those."""
    problems: list[Problem] = []
    try:
        return _mapping(config, (), problems), problems
    except RecursionError:
        return {}, [Problem("", "the config refers to itself", "look for ${...} in a circle")]


def _mapping(node: DictConfig, path: tuple[str, ...], problems: list[Problem]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for key in node:
        if path or key != "hydra":
            problem = _unset(node, key, (*path, str(key)))
            if problem:
                problems.append(problem)
            else:
                found[str(key)] = _value(node[key], (*path, str(key)), problems)
    return found


def _list(node: ListConfig, path: tuple[str, ...], problems: list[Problem]) -> list[Json]:
    found: list[Json] = []
    for index in range(len(node)):
        problem = _unset(node, index, (*path, str(index)))
        if problem:
            problems.append(problem)
        else:
            found.append(_value(node[index], (*path, str(index)), problems))
    return found


def _value(value: Json, path: tuple[str, ...], problems: list[Problem]) -> Json:
    if isinstance(value, DictConfig):
        return _mapping(value, path, problems)
    return _list(value, path, problems) if isinstance(value, ListConfig) else value


def _unset(node: DictConfig | ListConfig, key: object, path: tuple[str, ...]) -> Problem | None:
    where = ".".join(path)
    if OmegaConf.is_missing(node, key):
        return Problem(where, "is missing", f"set {where}=VALUE")
    if not OmegaConf.is_interpolation(node, key):
        return None
    try:
        node[key]
    except OmegaConfBaseException as error:
        return Problem(where, messages.first_line(error), "mend the ${...}")
    return None
