"""What the makers' collectives say of a number type that they don't reduce.

Which types those are is a fact of the chip (`reduces`); the words stand in `reductions.yaml`.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

import yaml

# torch's name of a type in its own messages.
_ATEN: Mapping[str, str] = MappingProxyType(
    {
        "bool": "Bool",
        "uint8": "Byte",
        "int8": "Char",
        "int16": "Short",
        "int32": "Int",
        "int64": "Long",
        "float16": "Half",
        "bfloat16": "BFloat16",
        "float32": "Float",
        "float64": "Double",
        "complex64": "ComplexFloat",
        "complex128": "ComplexDouble",
        "float8_e4m3fn": "Float8_e4m3fn",
        "float8_e5m2": "Float8_e5m2",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """How a backend refuses a number type.

    Attributes:
        text: What the exception says; `{type}` is torch's name of the type.
        source: Where it stands.
        error: The exception, by its name in Python.
        texts: What it says of some types, by their names.
    """

    text: str
    source: str
    error: str = "RuntimeError"
    texts: Mapping[str, str] = field(default_factory=dict)

    def of(self, dtype: str) -> Exception:
        """Return what is raised for a type, as torch names it (`uint8`)."""
        kind: type[Exception] = getattr(builtins, self.error)
        return kind(self.texts.get(dtype, self.text).format(type=_ATEN.get(dtype, dtype)))


@dataclass(frozen=True, slots=True)
class Reductions:
    """The types that a backend reduces; where none is known, it refuses none."""

    backend: str
    types: frozenset[str]

    def check(self, dtype: str) -> None:
        """Refuse a type, as torch names it (`uint8`), in the words of the backend's maker."""
        if self.types and dtype not in self.types:
            raise refusals().get(self.backend, _UNTOLD).of(dtype)


# Of a backend whose words are not known.
_UNTOLD = Refusal(text="the backend reduces no {type}", source="emulated")


@cache
def refusals() -> Mapping[str, Refusal]:
    """Return how each backend refuses."""
    text = Path(__file__).with_suffix(".yaml").read_text("utf-8")
    return {name: Refusal(**facts) for name, facts in yaml.safe_load(text).items()}
