"""Counts what is asked of the file system in memory, which stands in for a remote storage."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from fsspec.implementations.memory import MemoryFileSystem


def counted_calls(monkeypatch: pytest.MonkeyPatch, names: Iterable[str]) -> Counter[str]:
    """Count the calls of these methods, by whoever calls from outside of the file system."""
    counts: Counter[str] = Counter()
    inside = threading.local()

    def counted(name: str, method: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(method)
        def call(*arguments: object, **named: object) -> object:
            depth = getattr(inside, "depth", 0)
            counts[name] += not depth
            inside.depth = depth + 1
            try:
                return method(*arguments, **named)
            finally:
                inside.depth = depth

        return call

    for name in names:
        monkeypatch.setattr(MemoryFileSystem, name, counted(name, getattr(MemoryFileSystem, name)))
    return counts
