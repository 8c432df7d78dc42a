"""What others do, or a database loses, while a rollout is on its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.endpoints.life import (
    Deployment,
    EndpointEvent,
    EndpointLife,
    RevisionAdded,
    RevisionRetired,
    RevisionState,
    SharesMoved,
)
from orchestrator.core.endpoints.probes import Probe, ProbeAnswer
from orchestrator.core.errors import StoreError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.endpoints.revisions import end
from orchestrator.endpoints.rollout import Rollouts
from orchestrator.messages import Failed, LogLine, Message, Succeeded
from tests.build import deployment
from tests.endpoints.bench import RULES, Bench, failure
from tests.interposed import Interposed
from tests.serving_fakes import FakeTraffic, MemoryEndpoints


class Forgetful(MemoryEndpoints):
    """A store that has what it was given, and whose answer is lost, at some of its commits."""

    def __init__(self, lost: Sequence[int] = ()) -> None:
        super().__init__()
        self.lost, self.commits = set(lost), 0

    def follow(self, life: EndpointLife, events: Sequence[EndpointEvent], at: float) -> None:
        super().follow(life, events, at)
        self.commits += 1
        if self.commits in self.lost:
            raise StoreError("the connection is gone")


class Meanwhile(FakeTraffic):
    """Has somebody act in the middle of a probe of the new revision."""

    def __init__(self) -> None:
        super().__init__()
        self.acts: list[Callable[[], None]] = []
        self.during = "chat.r2"

    def ask(self, url: str, token: str, probe: Probe) -> ProbeAnswer:
        if self.acts and url.endswith(self.during):
            self.acts.pop(0)()
        return super().ask(url, token, probe)


def move(bench: Bench, shares: Mapping[int, int]) -> None:
    life = bench.store.endpoint("chat")
    bench.store.follow(life, [SharesMoved(shares, "by ann")], bench.clock.now())


@pytest.fixture
def meanwhile(bench: Bench) -> Meanwhile:
    bench.traffic = Meanwhile()
    bench.rollouts = bench.again()
    return bench.traffic


def test_a_rollback_while_the_new_one_is_probed_is_not_moved_over(
    bench: Bench, meanwhile: Meanwhile
) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 10.5)
    assert bench.shares == {1: 90, 2: 10}
    meanwhile.acts.append(lambda: move(bench, {1: 100}))
    kind, evidence = failure(bench.on(asked))
    assert kind is FailureKind.ROLLED_BACK
    assert "somebody took its traffic away" in evidence
    assert [dict(one.shares) for one in bench.store.endpoint("chat").moves][-1] == {1: 100}


def test_traffic_that_is_moved_before_the_first_step_is_not_moved_back(
    bench: Bench, meanwhile: Meanwhile
) -> None:
    second = bench.asked("c", 2, replace(RULES, steps=()))
    assert isinstance(bench.go(second)[-1], Succeeded)
    meanwhile.during = "chat.r3"
    meanwhile.acts.append(lambda: move(bench, {2: 100}))
    assert isinstance(bench.go(bench.asked("b", 3))[-1], Succeeded)
    moves = [dict(one.shares) for one in bench.store.endpoint("chat").moves]
    assert moves == [{1: 100}, {2: 100}, {2: 90, 3: 10}, {2: 50, 3: 50}, {3: 100}]


@pytest.mark.parametrize("shares", [{1: 100}, {1: 20, 2: 80}])
def test_a_revision_that_gets_traffic_back_at_the_last_moment_is_not_retired(
    bench: Bench, shares: dict[int, int]
) -> None:
    acts = [lambda: move(bench, shares)]

    def first(_life: object, events: Sequence[EndpointEvent], _at: float) -> None:
        if acts and any(isinstance(event, RevisionRetired) for event in events):
            acts.pop()()

    store = Interposed(bench.store, follow=first)
    bench.rollouts = Rollouts(bench.replicas, store, bench.traffic, bench.clock)  # type: ignore[arg-type]
    said = bench.go(bench.asked("b", 2), 200.0)
    assert isinstance(said[-1], Succeeded | Failed)
    assert (bench.shares, bench.states["r1"]) == (shares, "ready")


def test_a_failed_deployment_is_told_though_the_store_was_away_when_it_failed(
    bench: Bench,
) -> None:
    away = [3]

    def down(_life: object, events: Sequence[EndpointEvent], _at: float) -> None:
        if away[0] and any(isinstance(event, RevisionRetired) for event in events):
            away[0] -= 1
            raise StoreError("the database is away")

    store = Interposed(bench.store, follow=down)
    bench.rollouts = Rollouts(bench.replicas, store, bench.traffic, bench.clock)  # type: ignore[arg-type]
    kind, evidence = failure(bench.go(bench.asked("broken", 2)))
    assert (kind, evidence) == (FailureKind.SERVING, "no kernel")
    assert bench.states["r2"] == "retired"


@pytest.mark.parametrize("rules", [RULES, replace(RULES, steps=()), replace(RULES, shadow=True)])
def test_a_revision_that_is_retired_on_its_way_ends_its_rollout(
    bench: Bench, rules: object
) -> None:
    asked = bench.asked("b", 2, rules)  # type: ignore[arg-type]
    bench.rollouts.start(asked)
    while len(bench.store.endpoint("chat").revisions) < 2:
        bench.rollouts.poll(asked.key)
    bench.store.follow(bench.store.endpoint("chat"), [RevisionRetired(2, "by ann")], 1.0)
    kind, evidence = failure(bench.on(asked, 20.0))
    assert (kind, evidence) == (
        FailureKind.ROLLED_BACK,
        "chat.r2: somebody has retired it",
    )
    assert list(bench.replicas.there) == ["chat.r1"]
    assert bench.store.replicas().keys() == {("chat", 1)}


def test_one_that_gets_copies_alone_notices_that_it_was_retired(bench: Bench) -> None:
    asked = bench.asked("b", 2, replace(RULES, shadow=True, hold=60.0))
    bench.go(asked, 5.0)
    bench.store.follow(bench.store.endpoint("chat"), [RevisionRetired(2, "by ann")], 1.0)
    kind, evidence = failure(bench.on(asked, 5.0))
    assert (kind, "somebody has retired it" in evidence) == (FailureKind.ROLLED_BACK, True)


def test_an_endpoint_that_is_ended_in_the_middle_of_a_rollout_stays_ended(bench: Bench) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 5.0)
    end(bench.store, bench.store.endpoint("chat"), "stopped", 1.0)
    failure(bench.on(asked, 20.0))
    assert (bench.shares, bench.states) == ({}, {"r1": "retired", "r2": "retired"})
    assert "chat.r2" not in bench.replicas.there


def test_an_endpoint_is_ended_though_somebody_changes_it_at_this_moment(bench: Bench) -> None:
    bench.go(bench.asked("b", 2), 5.0)
    life = bench.store.endpoint("chat")
    added = RevisionAdded(3, deployment("chat", revision=3, run="other"))
    bench.store.follow(life, [added], 1.0)
    end(bench.store, life, "stopped", 1.0)
    assert bench.store.endpoint("chat").live == ()


# --- the old one dies -------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 500, 503])
def test_an_old_revision_that_answers_nothing_keeps_no_new_one_back(
    bench: Bench, status: int
) -> None:
    bench.traffic.status_of["chat.r1"] = status
    assert isinstance(bench.go(bench.asked("b", 2))[-1], Succeeded)
    assert bench.shares == {2: 100}


def test_an_old_revision_that_dies_while_both_are_compared_keeps_no_new_one_back(
    bench: Bench, meanwhile: Meanwhile
) -> None:
    meanwhile.acts.append(lambda: bench.store.note_replicas("chat", 1, ()))
    assert isinstance(bench.go(bench.asked("b", 2))[-1], Succeeded)
    assert bench.shares == {2: 100}


def test_where_the_old_one_has_died_the_new_one_gets_all_at_its_next_step(bench: Bench) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 5.0)
    bench.store.note_replicas("chat", 1, ())
    assert isinstance(bench.on(asked)[-1], Succeeded)
    moves = [dict(one.shares) for one in bench.store.endpoint("chat").moves]
    assert moves == [{1: 100}, {1: 90, 2: 10}, {2: 100}]


def test_once_the_others_are_going_a_bad_minute_takes_nothing_back(bench: Bench) -> None:
    asked = bench.asked("b", 2)
    away = [1]

    def down(_name: str, number: int, _urls: object) -> None:
        if number == 1 and away and away.pop():
            bench.traffic.status_of["chat.r2"] = 500
            raise StoreError("the database is away")

    bench.go(asked, 3.0)
    store = Interposed(bench.store, note_replicas=down)
    bench.rollouts._revisions._store = store  # type: ignore[assignment]
    assert isinstance(bench.on(asked, 200.0)[-1], Succeeded)
    assert (bench.shares, bench.states) == ({2: 100}, {"r1": "retired", "r2": "ready"})


def test_a_rollout_that_is_cancelled_when_the_others_are_gone_leaves_who_serves(
    bench: Bench,
) -> None:
    asked = bench.asked("b", 2)
    bench.go(asked, 31.0)
    assert bench.shares == {2: 100}
    life = bench.store.endpoint("chat")
    bench.store.follow(life, [RevisionRetired(1, "replaced by r2")], 1.0)
    bench.rollouts.cancel(asked.key)
    assert (bench.shares, bench.states["r2"]) == ({2: 100}, "ready")


# --- endpoints without replicas ---------------------------------------------------------------


def with_idle(made: Deployment) -> Deployment:
    return replace(made, endpoint=replace(made.endpoint, idle=60.0))


def test_an_endpoint_at_rest_keeps_its_revision_until_the_new_one_serves() -> None:
    bench = Bench(broken=("broken",))
    assert isinstance(bench.go(with_idle(bench.asked("a", 1)))[-1], Succeeded)
    bench.replicas.there.clear()  # scaled to zero
    bench.store.note_replicas("chat", 1, ())
    failure(bench.go(with_idle(bench.asked("broken", 2))))
    assert (bench.shares, bench.states["r1"]) == ({1: 100}, "ready")
    waits = with_idle(bench.asked("b", 3, replace(RULES, steps=())))
    assert isinstance(bench.go(waits)[-1], Succeeded)
    assert bench.shares == {1: 100}
    assert isinstance(bench.go(with_idle(bench.asked("b", 4)))[-1], Succeeded)
    assert bench.shares == {4: 100}


def test_two_who_launch_an_endpoint_for_the_first_time_both_deploy_one() -> None:
    bench = Bench()
    first, second = bench.asked("a", 1), bench.asked("b", 2)
    bench.rollouts.start(first)
    bench.rollouts.poll(first.key)  # added, and not on the cluster yet
    bench.rollouts.start(second)
    bench.rollouts.poll(second.key)
    assert bench.states == {"r1": "starting", "r2": "starting"}
    assert isinstance(bench.on(first)[-1], Succeeded)
    assert isinstance(bench.on(second)[-1], Succeeded)
    assert bench.shares == {2: 100}


# --- answers of the store that are lost -------------------------------------------------------


@settings(max_examples=40)
@given(lost=st.sets(st.integers(1, 9), max_size=4), doubt=st.booleans())
def test_answers_of_the_store_that_are_lost_change_nothing(lost: set[int], doubt: bool) -> None:  # noqa: FBT001 - an example's value
    bench = Bench()
    bench.store = Forgetful(sorted(lost))
    bench.rollouts = bench.again()
    assert isinstance(bench.go(bench.asked("a", 1), 400.0)[-1], Succeeded)
    rules = replace(RULES, shadow=doubt)
    assert isinstance(bench.go(bench.asked("b", 2, rules), 400.0)[-1], Succeeded)
    assert (bench.shares, bench.states) == ({2: 100}, {"r1": "retired", "r2": "ready"})
    life = bench.store.endpoint("chat")
    assert all(r.state is not RevisionState.STARTING for r in life.revisions.values())
    steps = [one.shares.get(2, 0) for one in life.moves]
    assert steps == sorted(steps)


def both(
    bench: Bench, seconds: float, driven: Sequence[tuple[Rollouts, Deployment]], *bad: int
) -> list[list[Message]]:
    """Drive rollouts side by side; return what each said. `bad` ones fail once they are asked."""
    said: list[list[Message]] = [[] for _ in driven]
    until = bench.clock.now() + seconds
    while bench.clock.now() < until:
        for heard, (rollouts, asked) in zip(said, driven, strict=True):
            heard.extend(rollouts.poll(asked.key))
        failing = {f"chat.r{number}": 500 for number in bad if bench.shares.get(number)}
        bench.traffic.status_of.update(failing)
        bench.clock.sleep(0.5)
    return said


@pytest.mark.parametrize("first_is_bad", [False, True])
@pytest.mark.parametrize("second_is_bad", [False, True])
def test_of_two_rollouts_at_once_the_second_waits_for_its_turn(
    bench: Bench, *, first_is_bad: bool, second_is_bad: bool
) -> None:
    """Neither moves the share of the other, and each is judged beside who leads in its turn."""
    one, two = bench.asked("b", 2), bench.asked("c", 3)
    bench.go(one, 5.0)
    assert bench.shares == {1: 90, 2: 10}
    another = bench.again()
    another.start(two)
    driven = [(bench.rollouts, one), (another, two)]
    early = both(bench, 4.0, driven)
    assert bench.shares == {1: 90, 2: 10}
    lines = [line.text for line in early[1] if isinstance(line, LogLine)]
    assert lines[-1] == "chat.r3 waits for the rollout of r2"
    bad = [number for number, is_bad in ((2, first_is_bad), (3, second_is_bad)) if is_bad]
    said = both(bench, 200.0, driven, *bad)
    assert [type(heard[-1]) for heard in said] == [
        Failed if bad else Succeeded for bad in (first_is_bad, second_is_bad)
    ]
    leads = 1 if first_is_bad else 2
    assert bench.shares == ({leads: 100} if second_is_bad else {3: 100})
    assert lines.count(lines[-1]) == 1


def test_a_rollout_whose_controller_is_gone_holds_up_no_other_for_ever(bench: Bench) -> None:
    bench.go(bench.asked("b", 2), 5.0)
    two = bench.asked("c", 3)
    bench.rollouts = bench.again()
    bench.go(two, 600.0)
    assert bench.shares == {1: 90, 2: 10}
    bench.on(two, 75.0)
    assert set(bench.shares) == {1, 2, 3}
    bench.rollouts.cancel(two.key)
    assert bench.shares == {1: 90, 2: 10}, "the first has its part again"


def test_what_gets_no_share_by_itself_waits_for_no_rollout(bench: Bench) -> None:
    bench.go(bench.asked("b", 2), 5.0)
    bench.rollouts = bench.again()
    for attempt, rules in ((3, replace(RULES, steps=())), (4, replace(RULES, overflow=True))):
        assert isinstance(bench.go(bench.asked("c", attempt, rules), 40.0)[-1], Succeeded)
    assert bench.shares == {1: 90, 2: 10}
