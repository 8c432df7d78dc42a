"""Figures, shares and verdicts of a rollout."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.policy import Rollout
from orchestrator.core.rollout import NOTHING, Figures, disagreement, judge, shares

RULES = Rollout(requests=10)


def test_figures_count_from_a_moment_and_a_gateway_that_began_anew_from_nothing() -> None:
    early = Figures(requests=10, errors=1, first=1.0, firsts=10, each=0.5, eachs=10)
    late = Figures(requests=30, errors=2, first=5.0, firsts=30, each=1.5, eachs=20)
    assert late.since(early) == Figures(
        requests=20, errors=1, first=4.0, firsts=20, each=1.0, eachs=10
    )
    assert early.since(late) == early
    assert (late.since(early).error_rate, late.since(early).to_first) == (0.05, 0.2)
    assert (NOTHING.error_rate, NOTHING.to_first, NOTHING.per_token) == (0.0, 0.0, 0.0)


def test_times_are_compared_only_where_the_old_revision_has_enough_of_them() -> None:
    slow = Figures(requests=20, first=20.0, firsts=20)
    assert judge(RULES, Figures(requests=5, first=0.1, firsts=5), slow) == ""
    assert "time to the first token" in judge(
        RULES, Figures(requests=50, first=1.0, firsts=50), slow
    )


def test_without_probes_there_is_nothing_to_disagree_on() -> None:
    assert disagreement(RULES, [], []) == ""
    assert disagreement(RULES, ["a"] * 10, ["a"] * 9 + ["b"]) == ""
    assert "8 of 10" in disagreement(RULES, ["a"] * 10, ["a"] * 8 + ["b"] * 2)


@given(
    st.integers(1, 100),
    st.dictionaries(st.integers(1, 5), st.integers(1, 100), max_size=4),
)
def test_shares_are_a_hundred_together(step: int, old: dict[int, int]) -> None:
    found = shares(step, 9, old)
    assert sum(found.values()) == 100
    assert all(share > 0 for share in found.values())
    assert found[9] == (step if old else 100)
