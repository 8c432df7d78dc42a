"""The fixture that the tests of rollouts share."""

from __future__ import annotations

import pytest

from orchestrator.messages import Succeeded
from tests.endpoints.bench import Bench


@pytest.fixture
def bench() -> Bench:
    """An endpoint whose first revision serves on pool `a`."""
    made = Bench(broken=("broken",))
    said = made.go(made.asked("a", 1))
    assert isinstance(said[-1], Succeeded), said
    return made
