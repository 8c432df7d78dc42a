"""Configs with a tag: `kind` says which of several things, and that has fields of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

KIND = "kind"


def fields_of(
    name: str, config: Mapping[str, object], kinds: Mapping[str, Sequence[str]]
) -> tuple[str, dict[str, object]]:
    """Return the kind of a config, the first of `kinds` where it says none, and its fields.

    Raises:
        ValueError: There is no such kind, or it has no such field.
    """
    kind = config.get(KIND, next(iter(kinds)))
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{name}.{KIND}={kind!r} is none of {', '.join(map(repr, kinds))}")
    values = {key: value for key, value in config.items() if key != KIND}
    for key in values.keys() - set(kinds[kind]):
        raise ValueError(f"{name} {kind!r} has no field {key!r}; it has {', '.join(kinds[kind])}")
    return kind, values


def number(name: str, value: object, *, most: float, whole: bool = False) -> float:
    """Return a number from 0 to `most`. Raises `ValueError` where it is none."""
    plain = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not plain or not 0 <= value <= most:  # type: ignore[operator] # it is a number there
        what = "a whole number" if whole else "a number"
        end = f", at most {most:g}" if most < float("inf") else ""
        raise ValueError(f"{name}={value!r}: give {what}, at least 0{end}")
    return float(value)  # type: ignore[arg-type] # as above
