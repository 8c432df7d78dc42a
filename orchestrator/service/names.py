"""Names of what there is, for who completes a word. Nothing is made: not even a home."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import wiring


def has_any() -> bool:
    """Return whether this home has anything yet."""
    return wiring.has_database(wiring.home_path())


def runs(limit: int) -> Sequence[str]:
    """Return the newest runs, at most `limit`."""
    return [header.run for header in wiring.database(wiring.home_path()).runs(limit)]


def stages(run: str) -> Sequence[str]:
    """Return the stages of a run."""
    header = wiring.database(wiring.home_path()).header(run)
    return [planned.stage.name for planned in header.plan.stages]


def endpoints() -> Sequence[str]:
    """Return the endpoints."""
    return sorted(wiring.database(wiring.home_path()).endpoints())


def keys() -> Sequence[str]:
    """Return the API keys."""
    return [key.name for key in wiring.database(wiring.home_path()).api_keys()]


def pools(overrides: Sequence[str]) -> Sequence[str]:
    """Return the pools of the fleet that overrides choose."""
    return wiring.configs.pools(overrides)


def overrides(words: Sequence[str]) -> Sequence[str]:
    """Return what may stand for the last of `words`, which are the overrides typed so far."""
    return wiring.configs.complete(words)
