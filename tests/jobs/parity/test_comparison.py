"""Places and texts of two models: what differs, and what only seems to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from jobs.parity.comparison import Responses, compare, margins
from orchestrator.engine import Score


def score(*probabilities: float, token: int = 0) -> Score:
    """Of all tokens, best first, as a model keeps them."""
    order = sorted(range(len(probabilities)), key=lambda one: -probabilities[one])
    logs = [math.log(probabilities[one]) for one in order]
    return Score(math.log(probabilities[token]), tuple(order), tuple(logs))


def test_a_model_is_no_way_from_itself() -> None:
    responses = Responses(scores=[[score(0.7, 0.2, 0.1)] * 2], answers=["4"], right=[True])
    one = compare(responses, responses)
    assert (one.kl.tolist(), one.shift.tolist(), one.margin.tolist()) == ([0, 0], [0, 0], [0, 0])
    assert (one.same.tolist(), one.differs.tolist(), one.lost.tolist()) == ([1, 1], [0], [0])
    assert one.text.tolist() == [0, 0]
    assert not one.routed.size


def test_each_figure_of_a_place_is_what_it_says() -> None:
    before, after = score(0.5, 0.3, 0.2), score(0.3, 0.5, 0.2)
    one = compare(Responses(scores=[[before]]), Responses(scores=[[after]]))
    kl = 0.5 * math.log(0.5 / 0.3) + 0.3 * math.log(0.3 / 0.5)
    assert one.kl[0] == pytest.approx(kl, rel=1e-5)
    assert one.shift[0] == pytest.approx(math.log(0.5 / 0.3), rel=1e-5)
    assert one.margin[0] == pytest.approx(2 * math.log(0.5 / 0.3), rel=1e-5)
    assert one.same[0] == 0
    assert margins([[before]])[0] == pytest.approx(math.log(0.5 / 0.3), rel=1e-5)


def test_a_score_that_is_no_number_is_very_far_away() -> None:
    broken = Score(math.nan, (0, 1, 2), (-0.1, -1.0, -2.0))
    one = compare(Responses(scores=[[score(0.5, 0.3, 0.2)]]), Responses(scores=[[broken]]))
    assert (one.kl[0], one.same[0]) == (700, 0)
    never = Score(-math.inf, (1, 2, 0), (-0.1, -3.0, -math.inf))
    one = compare(Responses(scores=[[score(0.5, 0.3, 0.2)]]), Responses(scores=[[never]]))
    assert (one.kl[0], one.shift[0]) == (700, 700)


def test_answers_are_lost_and_won() -> None:
    scores = [[score(0.6, 0.4)]] * 3
    before = Responses(scores=scores, answers=["1", "2", "3"], right=[True, False, True])
    after = Responses(scores=scores, answers=["1", "4", "5"], right=[True, True, False])
    one = compare(before, after)
    assert (one.differs.tolist(), one.lost.tolist()) == ([0, 1, 1], [0, -1, 1])


def test_experts_are_compared_as_sets_and_missing_ones_are_none() -> None:
    chosen = np.array([[[0, 1], [2, -1]], [[3, 4], [5, -1]]], np.int32)
    other = np.array([[[1, 0], [2, -1]], [[3, 7], [6, -1]]], np.int32)
    scores = [[score(0.6, 0.4)] * 2]
    responses = Responses(scores=scores, experts=[chosen])
    assert compare(responses, responses).routed.tolist() == [0, 0]
    routed = compare(responses, Responses(scores=scores, experts=[other])).routed
    assert routed.tolist() == pytest.approx([0, 2 / 3])


NEVER = -math.inf
MASKED = Score(NEVER, (1, 0), (0.0, NEVER))  # token 0 is impossible


def test_what_is_impossible_for_both_is_equal_and_for_one_alone_is_far() -> None:
    one = compare(Responses(scores=[[MASKED]]), Responses(scores=[[MASKED]]))
    assert (one.kl[0], one.shift[0], one.margin[0], one.same[0]) == (0, 0, 0, 1)
    both = Score(NEVER, (1, 0), (NEVER, NEVER))
    assert compare(Responses(scores=[[both]]), Responses(scores=[[both]])).margin[0] == 0
    possible = Score(-2.0, (1, 0), (math.log1p(-math.exp(-2.0)), -2.0))
    one = compare(Responses(scores=[[MASKED]]), Responses(scores=[[possible]]))
    assert one.kl[0] == pytest.approx(0.145, abs=1e-3)
    assert one.shift[0] == -700
    assert compare(Responses(scores=[[possible]]), Responses(scores=[[MASKED]])).kl[0] == 700


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_score_that_is_no_log_probability_on_either_side_is_very_far_away(value: float) -> None:
    broken, sound = Score(value, (0, 1), (value, value)), score(0.6, 0.4)
    for before, after in ((sound, broken), (broken, sound), (broken, broken)):
        one = compare(Responses(scores=[[before]]), Responses(scores=[[after]]))
        assert (one.kl[0], one.shift[0], one.margin[0], one.same[0]) == (700, 700, 700, 0)
    assert np.isfinite(margins([[broken]])).all()
