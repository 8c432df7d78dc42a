"""Room at replicas, and the queue for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from orchestrator.serving.errors import ApiError
from orchestrator.serving.limits import Limits
from orchestrator.serving.routes import EndpointRoute
from orchestrator.serving.slots import Slots
from tests.serving.http_server import Board, revision

ONE = EndpointRoute(name="e", revisions=(revision("r1", "a"),), concurrency=1, queue=1)
SHORT = Limits(absent_seconds=0.1, gone_seconds=0.1, queue_seconds=0.2)


def slots_of(route: EndpointRoute, limits: Limits = SHORT) -> tuple[Slots, Board]:
    board = Board(route)
    return Slots(board, limits, Random(0)), board  # noqa: S311 - no secret


def test_the_replica_with_the_fewest_requests_is_next() -> None:
    async def play() -> None:
        slots, _ = slots_of(replace(ONE, revisions=(revision("r1", "a", "b"),), concurrency=9))
        taken = [await slots.take("e", "") for _ in range(6)]
        assert slots.taken == {"a": 3, "b": 3}
        for slot in taken:
            if slot.url == "a":
                slots.release(slot)
        assert [(await slots.take("e", "")).url for _ in range(3)] == ["a"] * 3

    asyncio.run(play())


def test_what_finds_no_room_waits_in_turn_and_the_next_is_refused() -> None:
    async def play() -> None:
        slots, _ = slots_of(ONE, Limits())
        slot = await slots.take("e", "")
        waiting = asyncio.ensure_future(slots.take("e", ""))
        await asyncio.sleep(0)
        assert slots.waiting() == {"e": 1}
        with pytest.raises(ApiError, match="1 requests wait") as error:
            await slots.take("e", "")
        assert (error.value.status, error.value.retry_after) == (429, 1)
        slots.release(slot)
        assert (await waiting).url == "a"

    asyncio.run(play())


def test_nobody_waits_for_ever() -> None:
    async def play() -> None:
        slots, _ = slots_of(ONE)
        await slots.take("e", "")
        with pytest.raises(ApiError, match="no room") as error:
            await slots.take("e", "")
        assert error.value.status == 429

    asyncio.run(play())


def test_one_who_leaves_the_queue_takes_no_slot_along() -> None:
    async def play() -> None:
        slots, _ = slots_of(ONE, Limits())
        slot = await slots.take("e", "")
        waiting = asyncio.ensure_future(slots.take("e", ""))
        await asyncio.sleep(0)
        slots.release(slot)  # given to the one who waits, who leaves at this moment
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert slots.taken == {}

    asyncio.run(play())


def test_overflow_takes_what_finds_no_room() -> None:
    async def play() -> None:
        both = (revision("r1", "a"), revision("r2", "b", share=0))
        slots, _ = slots_of(replace(ONE, revisions=both, overflow="r2"))
        assert [(await slots.take("e", "")).url for _ in range(2)] == ["a", "b"]

    asyncio.run(play())


def test_those_who_wait_go_where_traffic_has_moved() -> None:
    async def play() -> None:
        slots, board = slots_of(ONE, Limits())
        await slots.take("e", "")
        waiting = asyncio.ensure_future(slots.take("e", ""))
        await asyncio.sleep(0)
        board.put(replace(ONE, revisions=(revision("r1", "a", share=0), revision("r2", "b"))))
        assert (await waiting).revision.name == "r2"

    asyncio.run(play())


def test_those_who_wait_for_an_endpoint_that_goes_are_told() -> None:
    async def play() -> None:
        slots, board = slots_of(ONE, Limits())
        await slots.take("e", "")
        waiting = asyncio.ensure_future(slots.take("e", ""))
        await asyncio.sleep(0)
        board.remove("e")
        with pytest.raises(ApiError) as error:
            await waiting
        assert error.value.status == 404

    asyncio.run(play())


def test_a_replica_that_failed_rests_longer_each_time_until_it_answers() -> None:
    async def play() -> None:
        slots, _ = slots_of(replace(ONE, revisions=(revision("r1", "a", "b"),), concurrency=9))
        slots.eject("a")
        assert {(await slots.take("e", "")).url for _ in range(4)} == {"b"}
        slots.readmit("a")
        assert "a" in {(await slots.take("e", "")).url for _ in range(4)}

    asyncio.run(play())


@pytest.mark.parametrize(
    ("rests", "limits"),
    [
        (True, Limits(absent_seconds=0.0, gone_seconds=0.0, queue_seconds=0.5)),
        (False, Limits(absent_seconds=0.0, gone_seconds=0.5)),
    ],
    ids=["started for the request", "started again"],
)
def test_a_replica_that_is_on_its_way_is_waited_for(*, rests: bool, limits: Limits) -> None:
    async def play() -> None:
        route = replace(ONE, revisions=(revision("r1"),), rests=rests)
        slots, board = slots_of(route, limits)
        waiting = asyncio.ensure_future(slots.take("e", ""))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        board.put(ONE)
        assert (await waiting).url == "a"
        board.put(route)
        with pytest.raises(ApiError, match="no replica at the moment") as error:
            await slots.take("e", "")
        assert error.value.status == 503

    asyncio.run(play())
