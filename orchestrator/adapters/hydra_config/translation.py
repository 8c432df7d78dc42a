"""What is wrong with a config, in words of its user: pydantic's errors and Hydra's, translated.

Each becomes one `Problem`: one line, the offending value, where it stands, and the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.adapters.hydra_config.document import NAME_PATTERN, NAMED, names_at
from orchestrator.core.errors import Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec.checks import LONGEST_NAME
from orchestrator.core.spec.hardware import Role

ROLE_LIKE = ("role", "pool", "pools")

EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
}


def problems(errors: Sequence[Any]) -> Iterator[Problem]:
    """Yield the problems; what is neither a number nor a word that it may be is one problem."""
    words = {error["loc"][:-1] for error in errors if _is_of_words(error)}
    for error in errors:
        if error["loc"][:-1] not in words:
            yield problem(error)
        elif _is_of_words(error):
            path = ".".join(map(str, error["loc"][:-1]))
            what = f"{shown(error['input'])} is neither a number nor {error['ctx']['expected']}"
            yield Problem(path, what)


def _is_of_words(error: Mapping[str, Any]) -> bool:
    """Whether this is what pydantic says of the words beside another type."""
    return bool(error["loc"]) and str(error["loc"][-1]).startswith("literal[")


def problem(error: Mapping[str, Any]) -> Problem:
    """Return the problem that pydantic's `error` tells of."""
    path = tuple(str(part) for part in error["loc"])
    if path and path[-1] == "[key]":
        return _bad_key(path[:-1], error)
    return _BY_TYPE.get(error["type"], _wrong)(path, error)


def unknown_key(path: Sequence[str], exists: Callable[[Sequence[str]], bool]) -> Problem | None:
    """Return what is wrong with the key at `path`, `None` if it may be set.

    `exists` tells whether the config has something at a path.
    """
    for depth, part in enumerate(path):
        before = tuple(path[:depth])
        known = names_at(before)
        if known is not None and part not in known:
            return _unknown((*before, part), known)
        if before in NAMED and not exists((*before, part)):
            return Problem(".".join((*before, part)), f"no such {before[-1][:-1]} {shown(part)}")
    return None


def foreign(error: BaseException) -> Problem:
    """Return what an error of Hydra's or OmegaConf's says."""
    whole = getattr(error, "options", None) is None and not hasattr(error, "full_key")
    what = one_line(error) if whole else first_line(error)
    options = getattr(error, "options", None)
    wanted = str(getattr(error, "missing_cfg_file", None) or "").rsplit("/", 1)[-1]
    path = str(getattr(error, "full_key", None) or "")
    return Problem(path, what, choices(wanted, options, "configs") if options else "")


def one_line(error: BaseException) -> str:
    """Return all that `error` says, on one line."""
    return " ".join(str(error).split())


def first_line(error: BaseException) -> str:
    """Return the first line of what `error` says."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def _unknown(path: tuple[str, ...], keys: Sequence[str]) -> Problem:
    hint = choices(path[-1], keys, "keys")
    if len(path) == 1 and path[0] in (*ROLE_LIKE, *Role):
        roles = ", ".join(f"roles.{role.value}" for role in Role)
        hint = f"a role is bound to a pool by roles.ROLE=POOL: {roles}"
    return Problem(".".join(path), f"unknown key {shown(path[-1])}", hint)


def _unexpected(path: tuple[str, ...], _error: Mapping[str, Any]) -> Problem:
    return _unknown(path, names_at(path[:-1]) or ())


def _missing(path: tuple[str, ...], _error: Mapping[str, Any]) -> Problem:
    where = ".".join(path)
    if path[-1] in {"accelerator", "pipeline", "fleet"}:
        group = path[-1] if len(path) == 1 else f"accelerator@{where}"
        return Problem(where, "is missing", f"choose one: {group}=NAME")
    return Problem(where, "is missing", f"set {where}=VALUE")


def _choice(path: tuple[str, ...], error: Mapping[str, Any]) -> Problem:
    names = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
    return Problem(
        ".".join(path), f"{shown(error['input'])} is none of its values", _choices(error, names)
    )


def _choices(error: Mapping[str, Any], names: Sequence[str]) -> str:
    return choices(str(error["input"]), names, "values")


def _bad_key(path: tuple[str, ...], error: Mapping[str, Any]) -> Problem:
    if error["type"] == "enum":
        names = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return _unknown(path, names)
    return _bad_name(path, error)


def _bad_name(path: tuple[str, ...], error: Mapping[str, Any]) -> Problem:
    what = f"{shown(error['input'])} is no name"
    hint = f"a name matches {NAME_PATTERN}, and has {LONGEST_NAME} characters at most"
    return Problem(".".join(path), what, hint)


def _wrong(path: tuple[str, ...], error: Mapping[str, Any]) -> Problem:
    expected = EXPECTED.get(error["type"])
    given = shown(error["input"])
    if expected is None:
        return Problem(".".join(path), f"{given}: {error['msg']}")
    return Problem(".".join(path), f"{given} is not {expected}")


_BY_TYPE: Mapping[str, Callable[[tuple[str, ...], Mapping[str, Any]], Problem]] = {
    "missing": _missing,
    "unexpected_keyword_argument": _unexpected,
    "enum": _choice,
    "literal_error": _choice,
    "string_pattern_mismatch": _bad_name,
    "string_too_long": _bad_name,
}
