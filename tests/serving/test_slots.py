"""Room at replicas, and the queue for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random

import pytest

from orchestrator.serving.gateway.fair_queue import Share
from orchestrator.serving.gateway.request_queue import Pending
from orchestrator.serving.gateway.routes import EndpointRoute, RevisionRoute
from orchestrator.serving.gateway.slots import Slot, Slots
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.serving.http_server import Board, revision

ONE = EndpointRoute(name="e", revisions=(revision("r1", "a"),), concurrency=1, queue=1)
SHORT = GatewayLimits(absent_seconds=0.1, gone_seconds=0.1, queue_seconds=0.2)


def slots_of(route: EndpointRoute, limits: GatewayLimits = SHORT) -> tuple[Slots, Board]:
    board = Board(route)
    return Slots(board, limits, Random(0)), board  # noqa: S311 - no secret


async def one_waits() -> tuple[Slots, Board, Slot, asyncio.Future[Slot]]:
    """Return slots of which the one is taken, that slot, and who waits for it."""
    slots, board = slots_of(ONE, GatewayLimits())
    slot = await slots.take("e", "")
    waiting = asyncio.ensure_future(slots.take("e", ""))
    await asyncio.sleep(0)
    return slots, board, slot, waiting


def test_the_replica_with_the_fewest_requests_is_next() -> None:
    async def play() -> None:
        slots, _ = slots_of(replace(ONE, revisions=(revision("r1", "a", "b"),), concurrency=9))
        taken = [await slots.take("e", "") for _ in range(6)]
        assert slots.in_use == {"a": 3, "b": 3}
        for slot in taken:
            if slot.url == "a":
                slots.release(slot)
        assert [(await slots.take("e", "")).url for _ in range(3)] == ["a"] * 3

    asyncio.run(play())


def test_what_finds_no_room_waits_in_turn_and_the_next_is_refused() -> None:
    async def play() -> None:
        slots, _, slot, waiting = await one_waits()
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
        slots, _, slot, waiting = await one_waits()
        slots.release(slot)  # given to the one who waits, who leaves at this moment
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert slots.in_use == {}

    asyncio.run(play())


def test_overflow_takes_what_finds_no_room() -> None:
    async def play() -> None:
        both = (revision("r1", "a"), revision("r2", "b", share=0))
        slots, _ = slots_of(replace(ONE, revisions=both, overflow="r2"))
        assert [(await slots.take("e", "")).url for _ in range(2)] == ["a", "b"]

    asyncio.run(play())


def test_those_who_wait_go_where_traffic_has_moved() -> None:
    async def play() -> None:
        _, board, _, waiting = await one_waits()
        board.put(replace(ONE, revisions=(revision("r1", "a", share=0), revision("r2", "b"))))
        assert (await waiting).revision.name == "r2"

    asyncio.run(play())


def test_those_who_wait_for_an_endpoint_that_goes_are_told() -> None:
    async def play() -> None:
        _, board, _, waiting = await one_waits()
        board.remove("e")
        with pytest.raises(ApiError) as error:
            await waiting
        assert error.value.status == 404

    asyncio.run(play())


def test_a_replica_that_failed_is_tried_by_one_request_before_it_gets_the_others() -> None:
    async def play() -> None:
        slots, _ = slots_of(replace(ONE, revisions=(revision("r1", "a", "b"),), concurrency=99))
        slots.eject("a")
        assert {(await slots.take("e", "")).url for _ in range(4)} == {"b"}
        await asyncio.sleep(0.21)
        taken = [await slots.take("e", "") for _ in range(4)]
        (trial,) = [slot for slot in taken if slot.url == "a"]
        slots.begun(trial)
        (second,) = [s for s in [await slots.take("e", "") for _ in range(3)] if s.url == "a"]
        slots.eject("a")
        slots.release(second)
        assert (await slots.take("e", "")).url == "b", "the end of a trial ends no new pause"
        await asyncio.sleep(0.41)
        (third,) = [s for s in [await slots.take("e", "") for _ in range(3)] if s.url == "a"]
        slots.readmit(trial)
        assert (await slots.take("e", "")).url == "b", "what was asked before tells nothing"
        slots.readmit(third)
        assert [(await slots.take("e", "")).url for _ in range(4)] == ["a"] * 4

    asyncio.run(play())


def test_who_waits_for_a_replica_goes_when_its_trial_is_answered() -> None:
    async def play() -> None:
        slots, _ = slots_of(replace(ONE, concurrency=9, queue=9), GatewayLimits())
        slots.eject("a")
        trial = await slots.take("e", "")
        waiting = asyncio.ensure_future(slots.take("e", ""))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        slots.readmit(trial)
        assert waiting.done() or (await waiting).url == "a"

    asyncio.run(play())


@pytest.mark.parametrize(
    ("rests", "limits"),
    [
        (True, GatewayLimits(absent_seconds=0.0, gone_seconds=0.0, queue_seconds=0.5)),
        (False, GatewayLimits(absent_seconds=0.0, gone_seconds=0.5)),
    ],
    ids=["started for the request", "started again"],
)
def test_a_replica_that_is_on_its_way_is_waited_for(*, rests: bool, limits: GatewayLimits) -> None:
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


def urls(count: int) -> tuple[str, ...]:
    return tuple(f"http://10.0.0.{number}:30000/e.r1" for number in range(count))


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_a_single_request_of_a_key_waits_for_one_answer_behind_a_thousand_of_another() -> None:
    async def play() -> None:
        slots, _ = slots_of(replace(ONE, queue=1024), GatewayLimits())
        held = await slots.take("e", "")
        many = [
            asyncio.ensure_future(slots.take("e", "", share=Share("greedy"))) for _ in range(1000)
        ]
        await settle()
        single = asyncio.ensure_future(slots.take("e", "", share=Share("modest")))
        await settle()
        ended = 0
        while not single.done():
            slots.release(held)
            ended += 1
            await settle()
            held = next((t.result() for t in many if t.done()), held)
            many = [task for task in many if not task.done()]
        assert ended <= 2
        for task in many:
            task.cancel()
        await asyncio.gather(*many, return_exceptions=True)

    asyncio.run(play())


def test_one_key_may_fill_the_queue_and_keeps_nobody_out() -> None:
    async def play() -> None:
        slots, _ = slots_of(replace(ONE, queue=8), GatewayLimits())
        held = await slots.take("e", "")
        greedy = [
            asyncio.ensure_future(slots.take("e", "", share=Share("greedy"))) for _ in range(8)
        ]
        await settle()
        with pytest.raises(ApiError, match="8 requests wait"):
            await slots.take("e", "", share=Share("greedy"))
        modest = [
            asyncio.ensure_future(slots.take("e", "", share=Share("modest"))) for _ in range(5)
        ]
        await settle()
        with pytest.raises(ApiError, match="8 requests wait"):
            await modest[4]
        displaced = [task.done() for task in greedy]
        assert displaced == [False] * 4 + [True] * 4, "the newest go"
        assert slots.waiting() == {"e": 8}
        slots.release(held)
        await settle()
        assert [task.done() for task in (greedy[0], modest[0])].count(True) == 1
        for task in (*greedy, *modest):
            task.cancel()
        await asyncio.gather(*greedy, *modest, return_exceptions=True)
        assert slots.waiting() == {"e": 0}

    asyncio.run(play())


class Counted(Slots):
    """Slots that count how often one is looked for."""

    looks = 0

    def _slot(
        self, route: EndpointRoute, revision: RevisionRoute, pending: Pending, now: float
    ) -> Slot | None:
        self.looks += 1
        return super()._slot(route, revision, pending, now)


def test_an_answer_that_ends_looks_for_no_more_slots_than_it_frees() -> None:
    async def play() -> None:
        route = replace(ONE, revisions=(revision("r1", *urls(64)),), concurrency=4, queue=1024)
        slots = Counted(Board(route), GatewayLimits(), Random(0))  # noqa: S311 - no secret
        held = [await slots.take("e", "") for _ in range(256)]
        tasks = [
            asyncio.ensure_future(slots.take("e", "", share=Share(str(n % 7))))
            for n in range(1024)
        ]
        await settle()
        assert slots.waiting() == {"e": 1024}
        slots.looks = 0
        for slot in held:
            slots.release(slot)
        assert slots.looks <= 2 * len(held)
        await settle()
        assert sum(task.done() for task in tasks) == len(held)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(play())


def test_choices_take_slots_and_the_engine_s_own_number_is_what_counts() -> None:
    async def play() -> None:
        mine = replace(revision("r1", "a", "b"), concurrency=4)
        slots, _ = slots_of(replace(ONE, revisions=(mine,), concurrency=256, queue=0))
        big = await slots.take("e", "", share=Share(size=6))
        assert slots.in_use == {big.url: 6}
        others = [await slots.take("e", "", share=Share(size=2)) for _ in range(2)]
        assert {slot.url for slot in others} == {"a", "b"} - {big.url}
        with pytest.raises(ApiError, match="0 requests wait"):
            await slots.take("e", "")
        slots.release(big)
        assert (await slots.take("e", "")).url == big.url

    asyncio.run(play())


def test_a_client_stays_at_its_replica_and_few_move_when_one_comes() -> None:
    async def play() -> None:
        slots, board = slots_of(replace(ONE, revisions=(revision("r1", *urls(8)),)))

        async def homes() -> list[str]:
            found = []
            for number in range(400):
                slot = await slots.take("e", f"client {number}")
                found.append(slot.url)
                slots.release(slot)
            return found

        before = await homes()
        assert await homes() == before
        spread = [before.count(url) for url in urls(8)]
        assert min(spread) > 20, spread
        board.put(replace(ONE, revisions=(revision("r1", *urls(9)),)))
        moved = [new for old, new in zip(before, await homes(), strict=True) if new != old]
        assert set(moved) == {urls(9)[8]}
        assert 20 < len(moved) < 80

    asyncio.run(play())


def test_a_client_with_a_crowd_makes_no_replica_hot() -> None:
    async def play() -> None:
        route = replace(ONE, revisions=(revision("r1", *urls(4)),), concurrency=256)
        slots, _ = slots_of(route)
        for _ in range(200):
            await slots.take("e", "the same")
        assert max(slots.in_use.values()) <= 1.25 * 50 + 2

    asyncio.run(play())


def test_one_that_is_asked_again_holds_up_nobody_who_may_go_where_it_failed() -> None:
    async def play() -> None:
        slots, _ = slots_of(
            replace(ONE, revisions=(revision("r1", "a", "b"),), queue=9), GatewayLimits()
        )
        first, second = [await slots.take("e", "") for _ in range(2)]
        again = asyncio.ensure_future(slots.take("e", "", avoid=first.url))
        other = asyncio.ensure_future(slots.take("e", ""))
        await settle()
        slots.release(first)
        await settle()
        assert (again.done(), other.done()) == (False, True)
        slots.release(second)
        assert (await again).url == second.url

    asyncio.run(play())


def test_replicas_that_are_gone_leave_nothing_behind() -> None:
    async def play() -> None:
        slots, _ = slots_of(ONE)
        for number in range(1000):
            slots.eject(f"http://gone/{number}")
        slots.eject("a")
        assert list(slots._ejections._of) == ["a"]

    asyncio.run(play())
