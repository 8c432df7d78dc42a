"""Which exceptions are Python's own words about code, known by their types or by the names alone.

What such an exception says is about the code that raised it, whatever it quotes: its words are
never read as the error of a chip, a link or a driver.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from types import MappingProxyType

PLAIN = frozenset(
    {
        "ValueError",
        "TypeError",
        "KeyError",
        "IndexError",
        "LookupError",
        "AttributeError",
        "AssertionError",
        "NameError",
        "ArithmeticError",
        "StopIteration",
        "StopAsyncIteration",
        "SyntaxError",
        "RecursionError",
        "BufferError",
        "ImportError",
        "FileNotFoundError",
        "FileExistsError",
        "PermissionError",
        "IsADirectoryError",
        "NotADirectoryError",
    }
)
# Exceptions of well-known libraries, where nothing but their names is there.
_BASES: Mapping[str, str] = MappingProxyType(
    {
        "JSONDecodeError": "ValueError",
        "ValidationError": "ValueError",
        "ParserError": "ValueError",
        "LinAlgError": "ValueError",
        "AxisError": "ValueError",
        "ConfigAttributeError": "AttributeError",
        "ConfigKeyError": "KeyError",
        "OutOfMemoryError": "RuntimeError",
        "AcceleratorError": "RuntimeError",
        "DistError": "RuntimeError",
        "DistBackendError": "RuntimeError",
        "DistNetworkError": "RuntimeError",
        "DistStoreError": "RuntimeError",
    }
)


def is_plain(types: Iterable[str]) -> bool:
    """Whether one of `types`, an exception's own and its bases, is plain Python's."""
    return any(name.rpartition(".")[2] in PLAIN for name in types)


def bases(name: str) -> tuple[str, ...]:
    """Return `name` and the bases of the exception that is called so, as far as they are known."""
    short = name.rpartition(".")[2]
    found = getattr(builtins, short, None)
    if isinstance(found, type) and issubclass(found, BaseException):
        return (name, *(base.__name__ for base in found.__mro__[1:-1]))
    known = _BASES.get(short)
    return (name, *bases(known)) if known else (name, "Exception", "BaseException")
