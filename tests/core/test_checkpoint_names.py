"""Which checkpoints count, whatever attempts of a stage do, and in whatever order."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.runs.checkpoint_names import (
    CheckpointId,
    Claim,
    Proposal,
    Token,
    counting,
    fenced_off,
    parse_claim,
    parse_id,
    parse_proposal,
    proposed_last,
    surplus,
)

FIRST, SECOND, THIRD = Token(1, 1), Token(1, 2), Token(2, 3)


def at(step: int, token: Token = FIRST) -> CheckpointId:
    return CheckpointId(step, token)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        (Claim(SECOND, open=True), "0001-0002-open"),
        (Claim(SECOND), "0001-0002-anew"),
        (Claim(THIRD, at(40, SECOND)), "0002-0003-from-step-0000000040-0001-0002"),
    ],
)
def test_a_claim_is_all_in_its_name(claim: Claim, name: str) -> None:
    assert str(claim) == name
    assert parse_claim(name) == claim


@given(st.integers(0, 10**12), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_checkpoint_is_all_in_its_name(step: int, epoch: int, attempt: int) -> None:
    one = at(step, Token(epoch, attempt))
    assert parse_id(str(one)) == one
    assert parse_claim(str(Claim(one.token, one))) == Claim(one.token, one)


@pytest.mark.parametrize(
    "name", ["", "claims", "step-1", "step-0000000001", "step-0000000001-0001-0001.x", "0001-0001"]
)
def test_other_names_are_neither(name: str) -> None:
    assert parse_id(name) is None
    assert parse_claim(name) is None


@pytest.mark.parametrize(
    ("continued", "name"),
    [
        (False, "0003-0002-proposes-step-0000000010-0003-0001"),
        (True, "0003-0002-proposes-step-0000000010-0003-0001-continued"),
    ],
)
def test_a_proposal_is_all_in_its_name_and_no_claim(name: str, *, continued: bool) -> None:
    proposal = Proposal(Token(3, 2), CheckpointId(10, Token(3, 1)), continued)
    assert str(proposal) == name
    assert parse_proposal(name) == proposal
    assert (parse_claim(name), parse_id(name)) == (None, None)
    assert parse_proposal(f"{name}-else") is None


def test_the_last_proposal_of_an_attempt_is_the_oldest_and_an_earlier_run_comes_last() -> None:
    ours, others = Token(3, 2), Token(3, 1)
    own = [Proposal(ours, CheckpointId(step, others)) for step in (9, 7, 8)]
    continued = Proposal(ours, CheckpointId(30, others), continued=True)
    stranger = Proposal(others, CheckpointId(1, others))

    assert proposed_last([stranger], ours) is None
    assert proposed_last([*own, stranger], ours) == own[1]
    assert proposed_last([*own, continued, stranger], ours) == continued


def test_names_sort_as_what_they_name() -> None:
    ones = [at(2, THIRD), at(10, FIRST), at(10, SECOND), at(9, THIRD)]
    assert [parse_id(name) for name in sorted(map(str, ones))] == sorted(ones)


# --- which count --------------------------------------------------------------------------------


def test_without_a_claim_nothing_counts() -> None:
    assert counting([at(1)], []) == []


def test_an_attempt_goes_on_from_all_that_the_one_before_made() -> None:
    assert counting([at(10), at(20)], [Claim(FIRST)]) == [at(20), at(10)]


def test_what_a_stale_attempt_writes_after_it_was_followed_does_not_count() -> None:
    claims = [Claim(FIRST), Claim(SECOND, at(20))]
    found = [at(10), at(20), at(30), at(25, SECOND)]
    assert counting(found, claims) == [at(25, SECOND), at(20), at(10)]


def test_an_open_claim_voids_nothing_yet() -> None:
    claims = [Claim(FIRST), Claim(SECOND, open=True)]
    assert counting([at(10)], claims) == [at(10)]
    assert fenced_off(FIRST, claims) == Claim(SECOND, open=True)
    assert fenced_off(SECOND, claims) is None


def test_rolling_back_voids_what_came_after() -> None:
    claims = [Claim(FIRST)]
    found = [at(10), at(20), at(30)]
    assert counting(found, claims, before=30) == [at(20), at(10)]
    claims.append(Claim(SECOND, at(20)))
    assert counting(found, claims) == [at(20), at(10)]


def test_beginning_anew_voids_everything_before() -> None:
    assert counting([at(10)], [Claim(FIRST), Claim(SECOND)]) == []


def test_a_late_claim_of_a_stale_attempt_voids_nothing() -> None:
    claims = [Claim(FIRST), Claim(THIRD, at(20)), Claim(SECOND, at(10))]
    assert counting([at(10), at(20)], claims) == [at(20), at(10)]


def test_claims_that_lead_in_a_circle_lead_nowhere() -> None:
    claims = [Claim(SECOND, at(10, THIRD)), Claim(THIRD, at(20, SECOND))]
    assert counting([at(10, THIRD), at(20, SECOND)], claims) == [at(20, SECOND), at(10, THIRD)]


# --- what is removed ----------------------------------------------------------------------------


def test_what_is_old_stale_or_torn_is_surplus() -> None:
    found = [at(10), at(20), at(30), at(15, SECOND), at(25, SECOND), at(35, SECOND)]
    claims = [Claim(FIRST), Claim(SECOND, at(10))]
    kept, newest = [at(25, SECOND)], at(25, SECOND)
    assert surplus(found, claims, kept, newest) == [at(15, SECOND), at(20), at(30)]


def test_what_belongs_to_a_newer_attempt_is_left_to_it() -> None:
    assert surplus([at(1, SECOND), at(9)], [], [], at(5)) == []


# --- all histories ------------------------------------------------------------------------------


@dataclass
class Attempt:
    token: Token
    source: CheckpointId | None
    saved: list[CheckpointId] = field(default_factory=list)


@dataclass
class Stage:
    """Attempts that begin, and go on saving after they were followed, past every look."""

    attempts: list[Attempt] = field(default_factory=list)

    @property
    def found(self) -> list[CheckpointId]:
        return [one for attempt in self.attempts for one in attempt.saved]

    @property
    def claims(self) -> list[Claim]:
        return [Claim(attempt.token, attempt.source) for attempt in self.attempts]

    def begin(self, back: int) -> None:
        counted = counting(self.found, self.claims)
        before = counted[min(back, len(counted)) - 1].step if counted and back else None
        chosen = counting(self.found, self.claims, before)
        token = Token(1 + len(self.attempts) // 3, len(self.attempts) + 1)
        self.attempts.append(Attempt(token, chosen[0] if chosen else None))

    def save(self, which: int, steps: int) -> None:
        if self.attempts:
            attempt = self.attempts[which % len(self.attempts)]
            last = attempt.saved[-1] if attempt.saved else attempt.source
            step = (last.step if last else 0) + steps
            attempt.saved.append(CheckpointId(step, attempt.token))


ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("save"), st.integers(0, 9), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(ACTS)
def test_the_newest_that_counts_is_what_the_last_attempt_made_or_went_on_from(
    acts: list[tuple[str, int, int]],
) -> None:
    stage = Stage()
    for act, one, other in acts:
        stage.begin(one) if act == "begin" else stage.save(one, other)
    counted = counting(stage.found, stage.claims)
    last = stage.attempts[-1] if stage.attempts else Attempt(FIRST, None)
    expected = last.saved[-1] if last.saved else last.source
    assert (counted[0] if counted else None) == expected
    of = {attempt.token: attempt for attempt in stage.attempts}
    for newer, older in pairwise(counted):
        own = [one for one in of[newer.token].saved if one < newer]
        assert older == (own[-1] if own else of[newer.token].source)
