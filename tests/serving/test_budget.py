"""Memory for bodies is bounded over all requests together."""

from __future__ import annotations

import pytest

from orchestrator.serving.gateway.budget import Budget
from orchestrator.serving.http.api_errors import ApiError


def test_what_is_over_the_budget_is_refused_and_what_is_given_back_can_be_had() -> None:
    budget = Budget(100)
    with budget.holding() as held:
        held.add(60)
        with pytest.raises(ApiError) as busy, budget.holding() as other:
            other.add(50)
        assert busy.value.status == 503
        held.add(-40)
        with budget.holding() as other:
            other.add(50)
            assert budget.held_bytes == 70
        with pytest.raises(ApiError):
            held.add(81)
        assert budget.held_bytes == 20
    assert budget.held_bytes == 0
