"""A change that nobody has made yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """What a use case would do, in lines, and what does it."""

    what: str
    make: Callable[[], T]
