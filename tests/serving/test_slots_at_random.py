"""Slots over random requests, departures and tables: none is lost, none is given twice."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.serving.gateway.fair_queue import Share
from orchestrator.serving.gateway.slots import Slot
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.serving.http_server import revision
from tests.serving.test_slots import ONE, settle, slots_of

ACTIONS = st.one_of(
    st.tuples(st.just("take"), st.sampled_from("abc"), st.integers(1, 3)),
    st.tuples(st.just("release"), st.just(""), st.integers(0, 30)),
    st.tuples(st.just("cancel"), st.just(""), st.integers(0, 30)),
    st.tuples(st.just("table"), st.just(""), st.integers(0, 3)),
)
TABLES = (
    (revision("r1", "a", "b"),),
    (revision("r1", "a"), revision("r2", "c", share=0)),
    (revision("r1", share=50), revision("r2", "c", "d", share=50)),
    (revision("r2", "c"),),
)


class Crowd:
    """Requests of a few keys, and what they hold."""

    def __init__(self) -> None:
        self.route = replace(ONE, concurrency=2, queue=8, overflow="r2")
        self.slots, self.board = slots_of(self.route, GatewayLimits())
        self.asked: list[asyncio.Future[Slot]] = []

    def held(self) -> list[asyncio.Future[Slot]]:
        return [t for t in self.asked if t.done() and not t.cancelled() and not t.exception()]

    def do(self, what: str, flow: str, value: int) -> None:
        getattr(self, what)(flow, value)

    def take(self, flow: str, size: int) -> None:
        share = Share(flow, size=size)
        self.asked.append(asyncio.ensure_future(self.slots.take("e", "", share=share)))

    def release(self, _: str, which: int) -> None:
        held = self.held()
        if held:
            task = held[which % len(held)]
            self.asked.remove(task)
            self.slots.release(task.result())

    def cancel(self, _: str, which: int) -> None:
        """Cancel some of those that wait, or have been given a slot at this moment."""
        for task in [task for task in self.asked if not task.done()][which % 3 :: 3]:
            task.cancel()

    def table(self, _: str, which: int) -> None:
        self.board.put(replace(self.route, revisions=TABLES[which]))
        self.look()

    def look(self) -> None:
        if self.slots._next_pass is not None:
            self.slots._next_pass.cancel()
            self.slots._serve_all()

    def check(self) -> None:
        sums: dict[str, int] = {}
        for task in self.held():
            slot = task.result()
            sums[slot.url] = sums.get(slot.url, 0) + slot.size
        assert sums == self.slots.in_use
        assert all(count < 2 + 3 for count in sums.values())

    async def end(self) -> None:
        self.board.put(self.route)
        for _ in range(200):
            while self.held():
                self.release("", 0)
            self.look()
            await settle()
        assert self.slots.in_use == {}
        assert not any(self.slots.waiting().values())
        assert all(task.done() for task in self.asked)


@settings(deadline=None, max_examples=150)
@given(st.lists(ACTIONS, max_size=60))
def test_no_slot_is_lost_or_given_twice(actions: list[tuple[str, str, int]]) -> None:
    async def play() -> None:
        crowd = Crowd()
        for what, flow, value in actions:
            crowd.do(what, flow, value)
            if value % 2:
                await settle()
                crowd.check()
        await settle()
        await crowd.end()

    asyncio.run(play())
