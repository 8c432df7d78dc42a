"""Figures, shares and verdicts of a rollout."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.endpoints.promotion import (
    NOTHING,
    CanaryStanding,
    CanaryVerdict,
    RevisionEvidence,
    Times,
    TrafficFigures,
    bayes_factor,
    judge,
    shares,
    times_of,
)
from orchestrator.core.spec.policy import Rollout

RULES = Rollout(requests=10)


def counted(requests: float, errors: float = 0.0, **statuses: float) -> TrafficFigures:
    refused = {int(name.removeprefix("of_")): float(n) for name, n in statuses.items()}
    good = requests - errors - sum(refused.values())
    return TrafficFigures(requests=requests, errors=errors, statuses={200: good, **refused})


def times(seconds: float, count: int) -> Times:
    total = Times()
    for _ in range(count):
        total = total.plus(times_of(seconds))
    return total


def evidence(
    traffic: TrafficFigures = NOTHING, probes: TrafficFigures = NOTHING
) -> RevisionEvidence:
    return RevisionEvidence(traffic=traffic, step=traffic, probes=probes)


def verdict(old: TrafficFigures, new: TrafficFigures, rules: Rollout = RULES) -> CanaryVerdict:
    return judge(rules, evidence(old), evidence(new))


def test_figures_count_from_a_moment_and_a_gateway_that_began_anew_from_nothing() -> None:
    early = TrafficFigures(
        requests=10, errors=1, statuses={200: 9.0}, first=Times(9, 1.0, ((1.0, 9.0),))
    )
    late = TrafficFigures(
        requests=30, errors=2, statuses={200: 26.0, 400: 2.0}, first=Times(26, 5.0, ((1.0, 20.0),))
    )
    assert late.since(early) == TrafficFigures(
        requests=20,
        errors=1,
        statuses={200: 17.0, 400: 2.0},
        first=Times(17, 4.0, ((1.0, 11.0),)),
    )
    assert early.since(late) == early
    assert late.since(early).error_rate == pytest.approx(3 / 20)
    assert (NOTHING.error_rate, NOTHING.to_first, NOTHING.per_token) == (0.0, 0.0, 0.0)


def test_quantiles_lie_in_their_bucket() -> None:
    some = Times(100, 30.0, ((0.1, 50.0), (0.5, 90.0), (1.0, 99.0)))
    assert some.bucket(0.5) == (0.0, 0.1)
    assert some.quantile(0.7) == pytest.approx(0.3)
    assert some.quantile(0.999) == 1.0, "beyond the last bound nothing else is known"
    assert Times().quantile(0.5) == 0.0


def test_three_failures_of_three_are_enough_where_the_old_revision_has_none() -> None:
    assert verdict(counted(20), counted(2, errors=2)).standing is CanaryStanding.UNSURE
    worse = verdict(counted(20), counted(3, errors=3))
    assert worse.standing is CanaryStanding.WORSE
    assert worse.reason == "100.0% of 3 requests failed, 0.0% at the old revision"


def test_few_requests_are_no_verdict_and_say_how_many_are_missing() -> None:
    assert verdict(counted(200), counted(4)) == CanaryVerdict(
        CanaryStanding.UNSURE, "4 of the 10 requests that a verdict takes"
    )
    made_up = judge(RULES, evidence(counted(200)), evidence(counted(4), probes=counted(6)))
    assert made_up.standing is CanaryStanding.EQUAL


def test_refusals_that_the_old_revision_does_not_give_count_as_failures() -> None:
    worse = verdict(counted(1000), counted(1000, of_400=1000))
    assert worse.standing is CanaryStanding.WORSE
    assert "refused (most by 400)" in worse.reason
    assert (
        verdict(counted(1000, of_400=300), counted(1000, of_400=300)).standing
        is CanaryStanding.EQUAL
    )
    other = verdict(counted(500, of_404=200), counted(500, of_400=200))
    assert other.reason.startswith("40.0% of 500 requests were answered by 400")


def test_clients_that_left_are_nobodys_failure() -> None:
    assert verdict(counted(100), counted(100, of_499=60)).standing is CanaryStanding.EQUAL


def test_clients_who_ask_nonsense_of_both_are_not_held_against_the_new_one() -> None:
    bad = counted(100, of_400=100)
    assert judge(RULES, evidence(bad, counted(4)), evidence(bad, counted(4))) == CanaryVerdict(
        CanaryStanding.EQUAL
    )


def test_what_has_answered_nothing_is_never_equal() -> None:
    bad = counted(100, of_400=100)
    assert verdict(bad, bad).standing is CanaryStanding.WORSE
    silent = judge(RULES, evidence(probes=counted(3)), evidence(probes=counted(3, errors=3)))
    assert silent.standing is CanaryStanding.WORSE


def test_a_doubt_that_is_not_certain_holds_the_rollout() -> None:
    held = verdict(counted(100), counted(10, errors=1))
    assert (held.standing, held.doubtful) == (CanaryStanding.UNSURE, True)


def test_whole_answers_have_times_too() -> None:
    def whole(seconds: float, count: int = 30) -> TrafficFigures:
        return TrafficFigures(requests=count, statuses={200: count}, whole=times(seconds, count))

    slow = verdict(whole(0.1), whole(1.0))
    assert slow.standing is CanaryStanding.WORSE
    assert "time of an answer is 1000.0 ms in the mean, 100.0 ms at the old" in slow.reason
    assert verdict(whole(0.1), whole(0.15)).standing is CanaryStanding.EQUAL
    probes = judge(RULES, evidence(probes=whole(0.1)), evidence(probes=whole(1.0)))
    assert probes.standing is CanaryStanding.WORSE, "where clients are few"


def test_one_answer_that_took_long_is_no_verdict_and_a_slow_tail_is() -> None:
    def mixed(fast: int, slow: int) -> TrafficFigures:
        both = times(0.1, fast).plus(times(20.0, slow)) if slow else times(0.1, fast)
        return TrafficFigures(requests=fast + slow, statuses={200: fast + slow}, whole=both)

    assert verdict(mixed(20, 0), mixed(19, 1)).standing is CanaryStanding.WORSE, (
        "twice in the mean"
    )
    assert verdict(mixed(200, 0), mixed(199, 1)).standing is CanaryStanding.EQUAL
    tail = verdict(mixed(2000, 0), mixed(1800, 200))
    assert tail.standing is CanaryStanding.WORSE


def test_milliseconds_that_a_busy_host_makes_are_no_verdict() -> None:
    def whole(seconds: float, count: int) -> TrafficFigures:
        return TrafficFigures(requests=count, statuses={200: count}, whole=times(seconds, count))

    assert verdict(whole(0.003, 50), whole(0.009, 50)).standing is CanaryStanding.EQUAL
    assert verdict(whole(0.1, 19), whole(1.0, 19)).standing is CanaryStanding.EQUAL, (
        "too few of them"
    )


def test_times_are_compared_only_where_the_old_revision_has_enough_of_them() -> None:
    slow = TrafficFigures(requests=20, statuses={200: 20}, first=times(1.0, 20))
    fast = TrafficFigures(requests=5, statuses={200: 5}, first=times(0.02, 5))
    assert verdict(fast, slow).standing is CanaryStanding.EQUAL
    many = TrafficFigures(requests=50, statuses={200: 50}, first=times(0.02, 50))
    assert "time to the first token" in verdict(many, slow).reason


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.2, 0.5])
def test_looking_after_every_request_seldom_takes_an_equal_revision_for_worse(rate: float) -> None:
    dice, wrong = random.Random(7), 0  # noqa: S311 - a test's dice
    for _ in range(100):
        counts = {"old": [0, 0], "new": [0, 0]}
        for _ in range(400):
            name = "new" if dice.random() < 0.25 else "old"
            counts[name][0] += 1
            counts[name][1] += dice.random() < rate
            old, new = (counted(n, errors=bad) for n, bad in counts.values())
            if new.error_rate > old.error_rate and bayes_factor(old, new) >= Rollout().certainty:
                wrong += 1
                break
    assert wrong <= 2


@given(
    st.integers(1, 100),
    st.dictionaries(st.integers(1, 5), st.integers(1, 100), max_size=4),
)
def test_shares_are_a_hundred_together(step: int, old: dict[int, int]) -> None:
    found = shares(step, 9, old)
    assert sum(found.values()) == 100
    assert all(share > 0 for share in found.values())
    assert found[9] == (step if old else 100)
