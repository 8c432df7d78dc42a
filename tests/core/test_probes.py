"""What a rollout asks of revisions, and how far apart their answers are."""

from __future__ import annotations

import math

import pytest

from orchestrator.core.endpoints.probes import (
    ProbeAnswer,
    angle,
    apart,
    disagreement,
    distance,
    limit,
    scores_of,
    text_of,
    turned,
    vector_of,
)
from orchestrator.core.spec.hardware import Format


def test_texts_and_scores_are_read_from_either_route_and_from_nonsense() -> None:
    told = {"logprobs": {"token_logprobs": [None, -1.0, -2]}, "text": "abc"}
    assert text_of(ProbeAnswer(200, 0.1, {"choices": [told]})) == "abc"
    assert scores_of(ProbeAnswer(200, 0.1, {"choices": [told]})) == (-1.0, -2.0)
    chat = {"choices": [{"message": {"content": "hello"}, "logprobs": None}]}
    assert text_of(ProbeAnswer(200, 0.1, chat)) == "hello"
    for body in (None, "text", [], {}, {"choices": []}, {"choices": ["x"]}, {"choices": [{}]}):
        assert (text_of(ProbeAnswer(200, 0.1, body)), scores_of(ProbeAnswer(200, 0.1, body))) == (
            "",
            (),
        )
    assert text_of(ProbeAnswer(400, 0.1, chat)) == ""


def test_embeddings_are_compared_by_their_angle() -> None:
    body = {"data": [{"embedding": [3, 4.0]}]}
    assert vector_of(ProbeAnswer(200, 0.1, body)) == (3.0, 4.0)
    for other in (None, "x", {}, {"data": []}, {"data": ["x"]}, {"data": [{"embedding": "AA"}]}):
        assert vector_of(ProbeAnswer(200, 0.1, other)) == ()
    assert vector_of(ProbeAnswer(500, 0.1, body)) == ()
    assert angle((1.0, 0.0), (2.0, 0.0)) == 0.0
    assert angle((1.0, 0.0), (0.0, 1.0)) == pytest.approx(math.pi / 2)
    for unlike in ((), (0.0, 0.0), (math.nan, 1.0)):
        assert angle((1.0, 0.0), unlike) == math.inf
    near, most = [(1.0, 0.05)], 2 * limit("bf16", {})
    assert turned([(1.0, 0.0)], near, most) == ""
    assert turned([], [], most) == ""
    said = turned([(1.0, 0.0)], [(1.0, 1.0)], most)
    assert said == "embeddings of 1 texts are 0.785 radians apart, 0.0894 are allowed"


def test_rounding_is_no_difference_and_another_model_is() -> None:
    text = [-0.1, -2.0, -1.0, -0.5, -3.0]
    rounded = [value + 0.02 * (-1) ** n for n, value in enumerate(text)]
    most = 2 * limit("bf16", {})
    assert most == pytest.approx(2 * math.sqrt(2e-3))
    assert apart([text], [rounded], most) == ""
    other = apart([text], [[-5.0, -1.0, -6.0, -4.0, -0.1]], most)
    assert other.startswith("log-probabilities of 1 texts are 3.46 nats")


def test_each_format_allows_its_own_distance_and_a_pipeline_may_say_another() -> None:
    assert limit("fp8", {}) > limit("bf16", {})
    assert limit("bf16", {"bf16": 0.5}) == 1.0


def test_what_the_gate_derived_for_a_model_counts_up_to_what_it_allows_any() -> None:
    allowed: dict[Format, float] = {"bf16": 0.02}
    assert limit("bf16", allowed, 0.0008) == pytest.approx(0.04)
    assert limit("bf16", allowed, 0.5) == limit("bf16", allowed) == pytest.approx(0.2)
    assert limit("fp32", {}, 0.5) == limit("fp32", {})


def test_texts_that_are_encoded_otherwise_and_scores_that_are_no_numbers_are_far_apart() -> None:
    assert distance([-1.0], [-1.0, -2.0]) == math.inf
    assert distance([-1.0], [math.nan]) == math.inf
    assert distance([math.nan], [math.nan]) == math.inf
    assert distance([-1.0, -math.inf], [-1.0, -9.0]) == math.inf
    assert distance([-1.0, -math.inf], [-1.5, -math.inf]) == 0.25
    assert distance([], []) == 0.0


def test_tokens_that_nobody_expects_do_not_count_beside_others() -> None:
    likely = [-1.0] * 4
    assert distance([*likely, -12.0], [*likely, -14.0]) == 0.0
    assert distance([-12.0], [-14.0]) == 2.0


def test_without_log_probabilities_greedy_answers_must_agree() -> None:
    assert disagreement(0.9, [], []) == ""
    assert disagreement(0.9, ["a"] * 10, ["a"] * 9 + ["b"]) == ""
    assert "8 of 10" in disagreement(0.9, ["a"] * 10, ["a"] * 8 + ["b"] * 2)
