"""Replicas whose engines fail: left alone after failures in a row, not for a request."""

from __future__ import annotations

from orchestrator.serving.gateway.breaker import Breaker


def test_three_failures_in_a_row_are_enough_and_an_answer_begins_anew() -> None:
    breaker = Breaker()
    assert [breaker.failed("a") for _ in range(2)] == [False, False]
    breaker.answered("a")
    assert [breaker.failed("a") for _ in range(4)] == [False, False, True, True]


def test_how_many_failures_are_enough_is_a_setting() -> None:
    breaker = Breaker(5)
    assert [breaker.failed("a") for _ in range(5)] == [False] * 4 + [True]


def test_a_request_that_fails_at_two_replicas_is_blamed_on_neither() -> None:
    breaker = Breaker()
    for _ in range(10):
        assert not breaker.failed("a")
        assert not breaker.failed("b")
        breaker.forgive(["a", "b"])


def test_replicas_that_have_gone_are_forgotten_in_time() -> None:
    breaker = Breaker()
    for number in range(10_000):
        breaker.failed(f"http://gone/{number}")
        breaker.failed("http://here")
    assert len(breaker._failures) < 5000
    assert breaker.failed("http://here")
