"""Room at replicas, and the queue for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from orchestrator.serving.errors import ApiError
from orchestrator.serving.limits import Limits
from orchestrator.serving.routes import EndpointRoute
from orchestrator.serving.seats import Seats
from tests.serving.http_server import Board, revision

ONE = EndpointRoute(name="e", revisions=(revision("r1", "a"),), concurrency=1, queue=1)
SHORT = Limits(absent_seconds=0.1, gone_seconds=0.1, queue_seconds=0.2)


def seats_of(route: EndpointRoute, limits: Limits = SHORT) -> tuple[Seats, Board]:
    board = Board(route)
    return Seats(board, limits, Random(0)), board  # noqa: S311 - no secret


def test_the_replica_with_the_fewest_requests_is_next() -> None:
    async def play() -> None:
        seats, _ = seats_of(replace(ONE, revisions=(revision("r1", "a", "b"),), concurrency=9))
        taken = [await seats.take("e", "") for _ in range(6)]
        assert seats.taken == {"a": 3, "b": 3}
        for seat in taken:
            if seat.url == "a":
                seats.leave(seat)
        assert [(await seats.take("e", "")).url for _ in range(3)] == ["a"] * 3

    asyncio.run(play())


def test_what_finds_no_room_waits_in_turn_and_the_next_is_refused() -> None:
    async def play() -> None:
        seats, _ = seats_of(ONE, Limits())
        seat = await seats.take("e", "")
        waiting = asyncio.ensure_future(seats.take("e", ""))
        await asyncio.sleep(0)
        assert seats.waiting() == {"e": 1}
        with pytest.raises(ApiError, match="1 requests wait") as error:
            await seats.take("e", "")
        assert (error.value.status, error.value.retry_after) == (429, 1)
        seats.leave(seat)
        assert (await waiting).url == "a"

    asyncio.run(play())


def test_nobody_waits_for_ever() -> None:
    async def play() -> None:
        seats, _ = seats_of(ONE)
        await seats.take("e", "")
        with pytest.raises(ApiError, match="no room") as error:
            await seats.take("e", "")
        assert error.value.status == 429

    asyncio.run(play())


def test_one_who_leaves_the_queue_takes_no_seat_along() -> None:
    async def play() -> None:
        seats, _ = seats_of(ONE, Limits())
        seat = await seats.take("e", "")
        waiting = asyncio.ensure_future(seats.take("e", ""))
        await asyncio.sleep(0)
        seats.leave(seat)  # given to the one who waits, who leaves at this moment
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert seats.taken == {}

    asyncio.run(play())


def test_overflow_takes_what_finds_no_room() -> None:
    async def play() -> None:
        both = (revision("r1", "a"), revision("r2", "b", share=0))
        seats, _ = seats_of(replace(ONE, revisions=both, overflow="r2"))
        assert [(await seats.take("e", "")).url for _ in range(2)] == ["a", "b"]

    asyncio.run(play())


def test_those_who_wait_go_where_traffic_has_moved() -> None:
    async def play() -> None:
        seats, board = seats_of(ONE, Limits())
        await seats.take("e", "")
        waiting = asyncio.ensure_future(seats.take("e", ""))
        await asyncio.sleep(0)
        board.put(replace(ONE, revisions=(revision("r1", "a", share=0), revision("r2", "b"))))
        assert (await waiting).revision.name == "r2"

    asyncio.run(play())


def test_those_who_wait_for_an_endpoint_that_goes_are_told() -> None:
    async def play() -> None:
        seats, board = seats_of(ONE, Limits())
        await seats.take("e", "")
        waiting = asyncio.ensure_future(seats.take("e", ""))
        await asyncio.sleep(0)
        board.remove("e")
        with pytest.raises(ApiError) as error:
            await waiting
        assert error.value.status == 404

    asyncio.run(play())


def test_a_replica_that_failed_rests_longer_each_time_until_it_answers() -> None:
    async def play() -> None:
        seats, _ = seats_of(replace(ONE, revisions=(revision("r1", "a", "b"),), concurrency=9))
        seats.rest("a")
        assert {(await seats.take("e", "")).url for _ in range(4)} == {"b"}
        seats.well("a")
        assert "a" in {(await seats.take("e", "")).url for _ in range(4)}

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
        seats, board = seats_of(route, limits)
        waiting = asyncio.ensure_future(seats.take("e", ""))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        board.put(ONE)
        assert (await waiting).url == "a"
        board.put(route)
        with pytest.raises(ApiError, match="no replica at the moment") as error:
            await seats.take("e", "")
        assert error.value.status == 503

    asyncio.run(play())
