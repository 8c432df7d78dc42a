"""Values to text and back, without loss.

Text is ASCII JSON, so that any string survives in any database, with `NaN` and `Infinity` as
Python writes them. Reading goes through pydantic: a row that does not fit its type is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from orchestrator.core.errors import StoreError, UnstorableError

T = TypeVar("T")


def dump(value: object) -> str:
    """Return `value`, a dataclass of JSON values and dataclasses, as text.

    Raises:
        UnstorableError: It holds something that JSON does not know.
    """
    try:
        return json.dumps(value, default=_plain, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        message = f"{type(value).__name__} can't be stored: {error}; keep to JSON values"
        raise UnstorableError(message) from error


def load(kind: type[T], text: str, where: str) -> T:
    """Return the value of type `kind` that `text`, found at `where`, was made from.

    Raises:
        StoreError: The text is no such value.
    """
    try:
        value: T = _adapter(kind).validate_python(json.loads(text))
    except (ValidationError, ValueError, RecursionError) as error:
        name = kind.__name__
        message = f"{where} is no {name}: {text[:80]!r}; was it written by another version?"
        raise StoreError(message) from error
    return value


def load_kind(kinds: Mapping[str, type[T]], kind: str, text: str, where: str) -> T:
    """Return the value of the kind that is named so, found at `where`.

    Raises:
        StoreError: No such kind is known, or the text is no such value.
    """
    if kind not in kinds:
        message = f"{where} is of unknown kind {kind!r}; was it written by a newer version?"
        raise StoreError(message)
    return load(kinds[kind], text, where)


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Return the parser of `kind`; making one takes longer than parsing a thousand rows."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    message = f"{value!r} is a {type(value).__name__}"
    raise TypeError(message)
