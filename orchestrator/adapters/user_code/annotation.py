"""Where a value is not of the type that a source writes. A type that is not known here fits."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.spec.stages import Json

_PLAIN: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "None": (type(None),),
}


@dataclass(frozen=True, slots=True)
class Misfit:
    """A value at `path` that is not of type `kind`; `allowed` are the values that are, if few."""

    path: str
    value: Json
    kind: str
    allowed: tuple[object, ...] = ()


def misfits(path: str, value: Json, kind: ast.expr) -> Iterator[Misfit]:
    """Yield what of the value at `path` is not of type `kind`: itself, or parts of it."""
    kinds = list(_either(kind))
    if any(not [*_of_one(path, value, member)] for member in kinds):
        return
    if len(kinds) == 1:
        yield from _of_one(path, value, kind)
    else:
        yield Misfit(path, value, ast.unparse(kind))


def _either(kind: ast.expr) -> Iterator[ast.expr]:
    if isinstance(kind, ast.BinOp) and isinstance(kind.op, ast.BitOr):
        yield from _either(kind.left)
        yield from _either(kind.right)
    else:
        yield kind


def _of_one(path: str, value: Json, kind: ast.expr) -> Iterator[Misfit]:
    parts: Mapping[str, Json] | None = {}
    known: tuple[object, ...] = ()
    fits, inner = True, kind
    match kind:
        case ast.Name(id=name) if name in _PLAIN:
            fits = _is_plain(value, name)
        case ast.Constant(value=None):
            fits = value is None
        case ast.Subscript(value=ast.Name(id="Literal"), slice=listed):
            known = _constants(listed)
            fits = value in known
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            parts = dict(_numbered(value)) if isinstance(value, list) else None
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, inner])):
            parts = value if isinstance(value, dict) else None
    if not fits or parts is None:
        yield Misfit(path, value, ast.unparse(kind), known)
        return
    for name, part in parts.items():
        yield from misfits(f"{path}.{name}", part, inner)


def _is_plain(value: Json, name: str) -> bool:
    """Return whether a value is of a plain type; truth is no number."""
    return isinstance(value, _PLAIN[name]) and (name == "bool" or not isinstance(value, bool))


def _constants(listed: ast.expr) -> tuple[object, ...]:
    several = listed.elts if isinstance(listed, ast.Tuple) else [listed]
    return tuple(element.value for element in several if isinstance(element, ast.Constant))


def _numbered(values: Sequence[Json]) -> Iterator[tuple[str, Json]]:
    return ((str(number), value) for number, value in enumerate(values))
