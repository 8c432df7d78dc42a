"""The kinds of failure and what they lead to."""

from __future__ import annotations

from orchestrator.core.failures.kinds import (
    DEFAULT_ACTIONS,
    GUESSED,
    OF_A_NODE,
    UNCOUNTED,
    WHERE,
    Action,
    Failure,
    FailureKind,
    default_action,
)


def test_every_kind_of_failure_has_a_default_action() -> None:
    assert set(DEFAULT_ACTIONS) == set(FailureKind)


def test_every_kind_of_failure_lies_somewhere() -> None:
    assert set(WHERE) == set(FailureKind)


def test_what_another_pool_can_not_mend_stops() -> None:
    stops = {kind for kind, action in DEFAULT_ACTIONS.items() if action is Action.STOP}
    assert stops == {
        FailureKind.USER_CODE,
        FailureKind.SET_UP,
        FailureKind.DATA,
        FailureKind.PARITY,
        FailureKind.ROLLED_BACK,
        FailureKind.CANCELLED,
    }


def test_what_no_attempt_can_help_never_stops_a_stage() -> None:
    assert all(DEFAULT_ACTIONS[kind] is not Action.STOP for kind in UNCOUNTED)


def test_what_is_bound_to_a_node_leads_to_other_nodes() -> None:
    assert {DEFAULT_ACTIONS[kind] for kind in OF_A_NODE} == {Action.OTHER_NODES}


def test_what_is_a_guess_alone_neither_stops_nor_leaves_a_pool_at_once() -> None:
    assert {FailureKind.SET_UP, FailureKind.DATA, FailureKind.SOFTWARE} < GUESSED
    for kind in GUESSED:
        assert default_action(Failure(kind=kind, evidence="x", certain=False)) is Action.ESCALATE
        assert default_action(Failure(kind=kind, evidence="x")) is DEFAULT_ACTIONS[kind]
