"""An endpoint is the fold of its events, and refuses what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import (
    EndpointEvent,
    EndpointLife,
    OverflowSet,
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    RevisionState,
    RevisionUpdated,
    ShadowSet,
    SharesMoved,
    TrafficMoved,
    follow,
)
from orchestrator.core.errors import TransitionError
from orchestrator.core.spec.outside_servers import Outside
from tests.build import deployment

OUTSIDE = Outside(address="http://far/v1", model="m")
NEW = ArtifactRef("file:///artifacts/new", "1" * 64, 20)


def life(*events: EndpointEvent) -> EndpointLife:
    found = EndpointLife(name="chat")
    for at, event in enumerate(events):
        found = follow(found, event, float(at))
    return found


def added(number: int) -> RevisionAdded:
    return RevisionAdded(number, deployment("chat", revision=number))


FAR = (RevisionAdded(1, outside=OUTSIDE), RevisionReady(1))
TWO = (added(1), RevisionReady(1), TrafficMoved({1: 100}, "first"), added(2), RevisionReady(2))


def test_traffic_goes_by_shares_and_the_largest_leads() -> None:
    found = life(*TWO, TrafficMoved({1: 90, 2: 10}, "canary"))
    assert found.leading is found.revisions[1]
    assert found.before is None
    later = follow(found, TrafficMoved({2: 100}, "all"), 9.0)
    assert later.leading is not None
    assert (later.leading.name, later.before) == ("r2", later.revisions[1])
    assert [move.shares for move in later.moves] == [{1: 100}, {1: 90, 2: 10}, {2: 100}]


@pytest.mark.parametrize(
    ("leaders", "before"),
    [
        ((1, 2), 1),
        ((1, 2, 1), None),  # r2 has failed its rollout, or was rolled back
        ((1, 2, 3), 2),
        ((1, 2, 3, 2), 1),
        ((1, 2, 3, 2, 1), None),
        ((1, 2, 1, 3), 1),
    ],
)
def test_before_who_leads_was_who_led_when_it_came(
    leaders: tuple[int, ...], before: int | None
) -> None:
    moves = [TrafficMoved({number: 100}, "") for number in leaders]
    found = life(*TWO, added(3), RevisionReady(3), *moves)
    assert (found.before and found.before.number) == before


def test_a_retired_revision_is_no_longer_live() -> None:
    found = life(*TWO, TrafficMoved({2: 100}, "all"), RevisionRetired(1, "replaced by r2"))
    assert [revision.name for revision in found.live] == ["r2"]
    assert found.revisions[1].state is RevisionState.RETIRED
    assert found.next_number == 3
    ended = follow(found, RevisionRetired(2, "down"), 9.0)
    assert (ended.shares, ended.leading) == ({}, None)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ((added(2),), "r2 can't be added, r1 can"),
        ((RevisionAdded(1),), "one of ours or one outside"),
        ((RevisionAdded(1, deployment("chat"), OUTSIDE),), "one of ours or one outside"),
        ((added(1), TrafficMoved({1: 100}, "")), "r1 is starting, and only ready"),
        ((TrafficMoved({4: 100}, ""),), "r4 is unknown"),
        ((*TWO, TrafficMoved({1: 50, 2: 40}, "")), "are not 100 percent"),
        ((*TWO, TrafficMoved({1: 110, 2: -10}, "")), "are not 100 percent"),
        ((*TWO, TrafficMoved({1: 100}, "", shadow=3)), "r3 is unknown"),
        ((*TWO, RevisionReady(2)), "r2 is ready, not starting"),
        ((*TWO, TrafficMoved({1: 5, 2: 95}, ""), RevisionRetired(1, "")), "takes traffic"),
        ((RevisionRetired(1, ""),), "no live revision r1"),
        ((added(1), RevisionUpdated(1, NEW, "v2")), "r1 is starting, and only ready"),
        ((RevisionUpdated(4, NEW, "v2"),), "r4 is unknown"),
        ((*TWO, RevisionRetired(2, ""), RevisionUpdated(2, NEW, "v2")), "r2 is retired"),
        ((*TWO, RevisionUpdated(1, NEW, "")), "the new weights of r1 have no name"),
        ((*FAR, RevisionUpdated(1, NEW, "v2")), "r1 is outside: its weights are somebody else's"),
    ],
)
def test_what_does_not_fit_is_refused(events: tuple[EndpointEvent, ...], why: str) -> None:
    with pytest.raises(TransitionError, match=why):
        life(*events)


def test_one_outside_has_an_address_for_a_pool() -> None:
    found = life(RevisionAdded(1, outside=OUTSIDE), RevisionReady(1))
    assert found.revisions[1].pool == "http://far/v1"
    beside = TrafficMoved({1: 100}, "", shadow=2, overflow=2)
    taking = life(*TWO, beside).taking
    assert [revision.name for revision in taking] == ["r1", "r2"]
    shadowed = life(*TWO, beside, RevisionRetired(2, "enough"))
    assert (shadowed.shadow, shadowed.overflow) == (None, None)


numbers = st.integers(1, 3)
any_event = st.one_of(
    numbers.map(added),
    numbers.map(RevisionReady),
    numbers.map(lambda number: RevisionRetired(number, "")),
    st.builds(RevisionUpdated, numbers, st.just(NEW), st.sampled_from(("v2", "v3", "v4"))),
    st.dictionaries(numbers, st.sampled_from((0, 40, 60, 100))).map(lambda s: TrafficMoved(s, "")),
)


@given(st.lists(any_event, max_size=30))
def test_whatever_happens_only_ready_revisions_share_the_whole(
    events: list[EndpointEvent],
) -> None:
    found = life()
    for at, event in enumerate(events):
        try:
            found = follow(found, event, float(at))
        except TransitionError:
            continue
        assert sum(found.shares.values()) in (0, 100)
        ready = {n for n, r in found.revisions.items() if r.state is RevisionState.READY}
        assert set(found.shares) <= ready


@given(st.lists(any_event, max_size=30))
def test_whatever_happens_a_revision_is_deployed_with_what_it_was_updated_to_last(
    events: list[EndpointEvent],
) -> None:
    found, last = life(), {}
    for at, event in enumerate(events):
        try:
            found = follow(found, event, float(at))
        except TransitionError:
            continue
        if isinstance(event, RevisionUpdated):
            last[event.number] = (event.model, event.version)
        for number, revision in found.revisions.items():
            first = deployment("chat", revision=number)
            model, version = last.get(number, (first.model, ""))
            assert revision.deployment == replace(first, model=model, version=version)


def test_weights_are_named_by_revision_and_model_until_they_are_updated() -> None:
    found = life(*TWO)
    assert [r.deployment.weights for r in found.live if r.deployment] == [
        "r1-00000000",
        "r2-00000000",
    ]
    later = follow(found, RevisionUpdated(1, NEW, "chat/7"), 9.0)
    updated = later.revisions[1]
    assert updated.deployment is not None
    assert (updated.deployment.weights, updated.deployment.model) == ("chat/7", NEW)
    assert (updated.updated, later.revisions[2]) == (9.0, found.revisions[2])


def test_shares_shadow_and_overflow_change_one_at_a_time() -> None:
    three = (*TWO, added(3), RevisionReady(3), OverflowSet(3, "help"), ShadowSet(2, "copies"))
    moved = life(*three, SharesMoved({1: 100}, "by hand"))
    assert (moved.shares, moved.shadow, moved.overflow) == ({1: 100}, 2, 3)
    taken = follow(moved, ShadowSet(None, "enough"), 9.0)
    assert (taken.shares, taken.shadow, taken.overflow) == ({1: 100}, None, 3)
    alone = follow(taken, OverflowSet(None, "enough"), 9.0)
    assert (alone.shadow, alone.overflow) == (None, None)
    assert moved.helped_by(3) == 1


def test_a_shadow_that_gets_a_share_is_no_shadow_any_more() -> None:
    asked = life(*TWO, ShadowSet(2, "copies"), SharesMoved({1: 90, 2: 10}, "canary"))
    assert asked.shadow is None


def test_events_of_the_first_version_say_all_three_at_once() -> None:
    old = life(*TWO, OverflowSet(2, "help"), TrafficMoved({1: 100}, "first"))
    assert (old.shares, old.overflow) == ({1: 100}, None)


@pytest.mark.parametrize("event", [ShadowSet(9, "x"), OverflowSet(9, "x"), SharesMoved({}, "x")])
def test_a_change_of_traffic_that_does_not_fit_is_refused(event: EndpointEvent) -> None:
    with pytest.raises(TransitionError):
        life(*TWO, event)
