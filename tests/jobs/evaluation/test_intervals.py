"""Figures of evaluations: counting by hand, and scipy, are the judges."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from jobs.evaluation import intervals
from jobs.evaluation.aggregates import ends_of
from jobs.evaluation.intervals import (
    interval,
    majority,
    pass_at_k,
    ratio_interval,
    strata_interval,
    wilson,
    with_interval,
)


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


def test_the_interval_of_a_ratio_is_that_of_scipy_over_texts_of_any_length() -> None:
    draws = np.random.default_rng(3)
    counts = draws.integers(1, 50, 200)
    totals = counts * (2.0 + draws.random(200))
    theirs = scipy.stats.bootstrap(
        (totals, counts),
        lambda one, other, axis: one.sum(axis) / other.sum(axis),
        method="percentile",
        paired=True,
        vectorized=True,
        n_resamples=5000,
        rng=2,
    ).confidence_interval
    found = ratio_interval(totals.tolist(), counts.tolist())
    assert found == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_of_many_texts_a_part_of_the_rounds_is_drawn_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = np.random.default_rng(3).random(300).tolist()
    at_once = interval(values)
    monkeypatch.setattr(intervals, "_AT_ONCE", 300 * 7)
    assert interval(values) == at_once


@pytest.mark.parametrize("by_size", [True, False])
def test_the_interval_over_tasks_is_as_wide_as_they_are_drawn_each_by_itself(
    by_size: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    draws = np.random.default_rng(5)
    strata = [draws.normal(mean, 1.0, size) for mean, size in ((0.0, 400), (9.0, 100))]
    weights = np.array([0.8, 0.2] if by_size else [0.5, 0.5])
    errors = np.array([values.std() / len(values) ** 0.5 for values in strata])
    half = 1.96 * float(np.sqrt((weights**2 * errors**2).sum()))
    middle = float((weights * [values.mean() for values in strata]).sum())
    found = strata_interval([values.tolist() for values in strata], by_size=by_size)
    assert found == pytest.approx((middle - half, middle + half), abs=0.15 * half)


def test_the_interval_of_one_task_is_its_own_and_of_equal_halves_nearly_that_of_both() -> None:
    for right in (0, 7, 20):
        values = [1.0] * right + [0.0] * (20 - right)
        assert strata_interval([values]) == pytest.approx(wilson(right, 20))
    halves = strata_interval([[1.0, 0.0] * 100] * 2)
    assert halves == pytest.approx(wilson(200, 400), abs=0.001)


def test_figures_of_a_harness_have_the_interval_of_what_makes_them() -> None:
    likelihoods = [(-3.0, 2.0), (-8.0, 5.0), (-2.5, 1.0), (-9.0, 4.0)]
    mean = sum(value for value, _ in likelihoods) / 12.0
    low, high = ratio_interval(*zip(*likelihoods, strict=True))
    for kind in (lambda one: one, lambda one: np.exp(-one), lambda one: -one / np.log(2)):
        expected = tuple(sorted((kind(low), kind(high))))
        assert ends_of(kind(mean), [likelihoods]) == pytest.approx(expected)
    right = [[(1.0, 1.0)] * 3, [(0.0, 1.0)] * 9]
    for mean in (0.25, 0.5):  # of all questions, and of the tasks' means
        ends = ends_of(mean, right)
        assert ends is not None
        assert 0 < ends[0] < mean < ends[1] < 1
    assert ends_of(0.2, [[(0.1, 1.0)], [(0.3, 1.0)]]) == pytest.approx((0.2, 0.2))
    assert ends_of(1.0, right[:1]) == wilson(3, 3)
    assert ends_of(0.3, right) is None
    assert ends_of(0.5, []) is None


def test_nothing_is_known_of_no_answers() -> None:
    assert with_interval("x", []) == {"x": 0.0, "x_low": 0.0, "x_high": 1.0}


def test_the_answer_that_most_agree_on_is_taken_and_the_first_of_several() -> None:
    assert majority(["7", "8", "8", "7", "8"]) == 1
    assert majority(["9", "8", "7"]) == 0
