"""The kinds of failure and what they lead to."""

from __future__ import annotations

import pytest

from orchestrator.core.failure import DEFAULT_ACTIONS, SIGNS, Action, FailureKind, kind_of


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


@pytest.mark.parametrize(
    ("exception", "message", "kind"),
    [
        ("MemoryError", "", FailureKind.OUT_OF_MEMORY),
        ("OutOfMemoryError", "CUDA out of memory", FailureKind.OUT_OF_MEMORY),
        ("RuntimeError", "NPU Out Of Memory: tried to allocate", FailureKind.OUT_OF_MEMORY),
        (
            "NotImplementedError",
            "Could not run 'aten::foo' with arguments from the 'NPU' backend",
            FailureKind.UNSUPPORTED_OPERATOR,
        ),
        ("FloatingPointError", "loss is nan", FailureKind.NUMERICAL_DIVERGENCE),
        ("DistNetworkError", "the client socket has timed out", FailureKind.INTERCONNECT),
        ("DistError", "x", FailureKind.INTERCONNECT),
        (
            "RuntimeError",
            "[../gloo/transport/tcp/pair.cc] Connection closed by peer",
            FailureKind.INTERCONNECT,
        ),
        ("ArtifactError", "torn", FailureKind.DATA),
    ],
)
def test_a_sign_tells_the_kind(exception: str, message: str, kind: FailureKind) -> None:
    assert kind_of(exception, message) is kind


@pytest.mark.parametrize(
    ("exception", "message"),
    [("ValueError", "x"), ("NotImplementedError", "later"), ("KeyError", "'MemoryError'")],
)
def test_what_shows_no_sign_is_the_users_own_code(exception: str, message: str) -> None:
    assert kind_of(exception, message) is FailureKind.USER_CODE


def test_no_sign_blames_user_code_for_that_is_what_is_left() -> None:
    assert FailureKind.USER_CODE not in {sign.kind for sign in SIGNS}
