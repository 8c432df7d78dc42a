"""The kinds of failure and what they lead to."""

from __future__ import annotations

from orchestrator.core.failure import DEFAULT_ACTIONS, Action, FailureKind


def test_every_kind_of_failure_has_a_default_action() -> None:
    assert set(DEFAULT_ACTIONS) == set(FailureKind)


def test_what_another_pool_can_not_mend_stops() -> None:
    stops = {kind for kind, action in DEFAULT_ACTIONS.items() if action is Action.STOP}
    assert stops == {
        FailureKind.NUMERICAL_DIVERGENCE,
        FailureKind.USER_CODE,
        FailureKind.DATA,
        FailureKind.BUDGET,
        FailureKind.TIME,
        FailureKind.CANCELLED,
    }
