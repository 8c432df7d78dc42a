"""Something that stands before a port, and may refuse a call before it goes through."""

from __future__ import annotations

from collections.abc import Callable


class Interposed:
    """Behaves as `inner`; each of `before` is called before its method, as that is."""

    def __init__(self, inner: object, **before: Callable[..., object]) -> None:
        self._inner = inner
        self._before = before

    def __getattr__(self, name: str) -> object:
        found = getattr(self._inner, name)
        hook = self._before.get(name)
        if hook is None:
            return found

        def call(*given: object, **named: object) -> object:
            hook(*given, **named)
            return found(*given, **named)

        return call
