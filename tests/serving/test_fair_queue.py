"""Whose turn it is among those who wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.serving.gateway.fair_queue import FairQueue, Share


def test_flows_take_turns_however_many_of_each_wait() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(1000):
        queue.push(f"a{number}", Share("a"))
    assert [queue.pop() for _ in range(3)] == ["a0", "a1", "a2"]
    queue.push("b0", Share("b"))
    assert "b0" in [queue.pop() for _ in range(2)]


def served_of(share: Share, turns: int) -> int:
    """Return how many of so many turns a flow has beside a plain one; both always wait."""
    queue: FairQueue[int] = FairQueue()
    for number in range(300):
        queue.push(number, Share("plain"))
        queue.push(-number - 1, share)
    return sum(queue.pop() < 0 for _ in range(turns))


def test_a_flow_of_twice_the_weight_gets_twice_as_much() -> None:
    assert abs(served_of(Share("heavy", weight=2.0), turns=300) - 200) <= 2


def test_who_asks_for_more_choices_at_once_gets_as_many_and_no_more() -> None:
    assert abs(served_of(Share("eights", size=8), turns=90) - 10) <= 1


def test_ranks_go_before_turns_and_priorities_hold_within_a_flow_alone() -> None:
    queue: FairQueue[str] = FairQueue()
    for item, share in (
        ("a, later", Share("a", priority=5)),
        ("a, first", Share("a", priority=-9)),
        ("b", Share("b", priority=0)),
        ("batch", Share("batch", rank=1, priority=-100)),
        ("a, second", Share("a", priority=-9)),
    ):
        queue.push(item, share)
    order = [queue.pop() for _ in range(5)]
    assert order == ["a, first", "b", "a, second", "a, later", "batch"]
    with pytest.raises(IndexError):
        queue.pop()


def test_what_is_removed_takes_no_turn_and_no_memory() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.push(-1, Share("other"))
    for number in range(10_000):
        queue.push(number, Share("hasty"))
        assert queue.remove(number)
        assert not queue.remove(number)
    assert (len(queue), queue.peek()) == (1, -1)
    held = len(queue._turns) + sum(len(flow.heap) for flow in queue._flows.values())
    assert held < 200


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("push"),
                st.sampled_from("abc"),
                st.integers(-2, 2),
                st.sampled_from([0.5, 1.0, 3.0]),
            ),
            st.tuples(st.just("pop"), st.just(""), st.just(0), st.just(1.0)),
            st.tuples(st.just("remove"), st.just(""), st.integers(0, 20), st.just(1.0)),
        ),
        max_size=60,
    )
)
def test_each_item_is_served_once_unless_it_was_removed(
    steps: list[tuple[str, str, int, float]],
) -> None:
    queue: FairQueue[int] = FairQueue()
    waiting: list[int] = []
    for number, (what, flow, value, weight) in enumerate(steps):
        if what == "push":
            queue.push(number, Share(flow, weight=weight, priority=value))
            waiting.append(number)
        elif what == "pop" and waiting:
            waiting.remove(queue.pop())
        elif what == "remove" and value < len(waiting):
            assert queue.remove(waiting.pop(value))
        assert queue.items() == waiting
        assert (queue.peek() is None) == (not waiting)
    assert sorted(queue.pop() for _ in waiting) == waiting
