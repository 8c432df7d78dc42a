"""What an engine does not do yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields

from orchestrator.engine import Sampling

_PLAIN = Sampling()


def check_done(sampling: Sampling, done: Collection[str]) -> None:
    """Refuse a request that sets a field which is not among the `done` ones.

    Raises:
        ValueError: It does.
    """
    for name in (field.name for field in fields(Sampling)):
        value = getattr(sampling, name)
        if name not in done and value != getattr(_PLAIN, name):
            raise ValueError(f"{name}={value!r} is more than this engine can do; leave it out")
