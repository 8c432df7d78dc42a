"""What the torture of checkpoints did, how often, and what came of it."""

from __future__ import annotations

import random

import pytest

SEED = 20251125
Rows = list[tuple[str, str]]


def draw(name: str) -> random.Random:
    """Return what the torture `name` draws from."""
    return random.Random(f"{SEED} {name}")  # noqa: S311 - no secret


def times(short: int, full: int) -> pytest.MarkDecorator:
    """Do it `short` times, or in full by hand."""
    by_hand = pytest.param(full, marks=[pytest.mark.chaos, pytest.mark.timeout(1200)])
    return pytest.mark.parametrize("count", [short, by_hand])


def show(config: pytest.Config, rows: Rows) -> None:
    """Print the table, where it was done in full."""
    asked = config.option.markexpr
    if rows and "chaos" in asked and "not chaos" not in asked:
        capture = config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled():
            print()
            for what, came in rows:
                print(f"{what:32} {came}")
