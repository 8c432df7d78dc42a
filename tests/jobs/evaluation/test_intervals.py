"""Figures of evaluations: counting by hand, and scipy, are the judges."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from jobs.evaluation.intervals import interval, majority, pass_at_k, wilson, with_interval


def test_pass_at_k_is_the_share_of_all_choices_of_k_answers_with_a_right_one() -> None:
    for samples in range(1, 8):
        for right in range(samples + 1):
            answers = [True] * right + [False] * (samples - right)
            for k in range(1, samples + 1):
                choices = list(combinations(answers, k))
                share = sum(map(any, choices)) / len(choices)
                assert pass_at_k(samples, right, k) == pytest.approx(share)


def test_pass_at_k_is_the_reference_formula_of_its_authors() -> None:
    for samples, right, k in [(200, 3, 100), (200, 0, 1), (1000, 997, 10), (64, 20, 8)]:
        terms = 1.0 - k / np.arange(samples - right + 1, samples + 1)
        wanted = 1.0 if samples - right < k else 1.0 - np.prod(terms)
        assert pass_at_k(samples, right, k) == pytest.approx(wanted)


@pytest.mark.parametrize("k", [0, 5, -1])
def test_pass_at_k_needs_k_answers(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k={k} is not from 1 to samples=4"):
        pass_at_k(4, 2, k)


@pytest.mark.parametrize(("right", "count"), [(0, 10), (3, 10), (10, 10), (431, 1000), (1, 1)])
def test_the_interval_of_right_and_wrong_is_that_of_scipy(right: int, count: int) -> None:
    theirs = scipy.stats.binomtest(right, count).proportion_ci(0.95, method="wilson")
    assert wilson(right, count) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    values = [1.0] * right + [0.0] * (count - right)
    assert interval(values) == wilson(right, count)


def test_the_interval_of_all_right_or_all_wrong_ends_there() -> None:
    for count in range(1, 200):
        assert wilson(0, count)[0] == 0.0
        assert wilson(count, count)[1] == 1.0


def test_the_interval_of_shares_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).random(200)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=5000, rng=2
    ).confidence_interval
    assert interval(values.tolist()) == pytest.approx((theirs.low, theirs.high), abs=0.004)
    assert interval(values.tolist()) == interval(values.tolist())


def test_nothing_is_known_of_no_answers() -> None:
    assert with_interval("x", []) == {"x": 0.0, "x_low": 0.0, "x_high": 1.0}


def test_the_answer_that_most_agree_on_is_taken_and_the_first_of_several() -> None:
    assert majority(["7", "8", "8", "7", "8"]) == 1
    assert majority(["9", "8", "7"]) == 0
