"""Weighted fair queueing: who waits, and whose turn it is.

Each flow (an API key) has a virtual time, which moves on by cost over weight with each of its
requests that is served; the flow that is furthest behind is next. A flow that comes anew begins at
the virtual time of the one served last: it neither waits for what others have queued, nor has it
saved anything up. A flow of a lower rank goes first, always. Within a flow the lower priority goes
first, then who came first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Item = TypeVar("Item")
_SPARE = 64  # removed items that a flow's heap may hold beyond those that wait


@dataclass(frozen=True, slots=True)
class Share:
    """Whose a request is, and what it weighs against others.

    Attributes:
        flow: The API key; all that have none are one flow.
        weight: Part of the slots that the flow gets, against the weights of others that wait.
        rank: Of the flow; the lower is served first.
        priority: Within the flow; the lower is served first.
        size: Slots that it takes: its choices.
    """

    flow: str = ""
    weight: float = 1.0
    rank: int = 0
    priority: int = 0
    size: int = 1


@dataclass(slots=True, eq=False)
class _Flow(Generic[Item]):
    """What waits of one flow; `items` in order of arrival, `heap` by priority."""

    name: str
    start: float
    items: dict[Item, Share] = field(default_factory=dict)
    heap: list[tuple[int, int, Item]] = field(default_factory=list)

    def head(self) -> Item | None:
        """Return the item whose turn it is."""
        while self.heap and self.heap[0][2] not in self.items:
            heappop(self.heap)
        return self.heap[0][2] if self.heap else None

    def tidy(self) -> None:
        """Drop what was removed, once it is more than what waits."""
        if len(self.heap) > 2 * len(self.items) + _SPARE:
            self.heap = [entry for entry in self.heap if entry[2] in self.items]
            heapify(self.heap)


class FairQueue(Generic[Item]):
    """Items that wait, each of a flow. Adding and taking costs the logarithm of their number."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow[Item]] = {}
        self._turns: list[tuple[int, float, int, _Flow[Item]]] = []
        self._finish: dict[str, float] = {}  # where each flow's virtual time stands
        self._owner: dict[Item, _Flow[Item]] = {}
        self._now = 0.0
        self._count = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._owner)

    def __contains__(self, item: Item) -> bool:
        """Return whether `item` waits."""
        return item in self._owner

    def push(self, item: Item, share: Share) -> None:
        """Let `item` wait."""
        flow = self._flows.get(share.flow)
        self._count += 1
        if flow is None:
            start = max(self._now, self._finish.get(share.flow, 0.0))
            flow = self._flows[share.flow] = _Flow(share.flow, start)
            heappush(self._turns, (share.rank, start, self._count, flow))
        flow.items[item] = share
        heappush(flow.heap, (share.priority, self._count, item))
        self._owner[item] = flow

    def peek(self) -> Item | None:
        """Return the item whose turn it is, which stays; `None` where nothing waits."""
        while self._turns:
            flow = self._turns[0][3]
            item = flow.head()
            if item is not None:
                return item
            heappop(self._turns)
            self._forget(flow)
        return None

    def pop(self) -> Item:
        """Return the item whose turn it is, served.

        Raises:
            IndexError: Nothing waits.
        """
        item = self.peek()
        if item is None:
            raise IndexError("nothing waits")
        rank, start, _, flow = heappop(self._turns)
        heappop(flow.heap)
        share = flow.items.pop(item)
        del self._owner[item]
        self._now = max(self._now, start)
        after = self._finish[flow.name] = start + share.size / share.weight
        if flow.items:
            self._count += 1
            flow.start = after
            heappush(self._turns, (rank, after, self._count, flow))
        else:
            self._forget(flow)
        return item

    def remove(self, item: Item) -> bool:
        """Let `item` wait no longer; return whether it has waited."""
        flow = self._owner.pop(item, None)
        if flow is None:
            return False
        del flow.items[item]
        flow.tidy()
        return True

    def items(self) -> list[Item]:
        """Return all that wait, in order of arrival."""
        return list(self._owner)

    def _forget(self, flow: _Flow[Item]) -> None:
        if not flow.items and self._flows.get(flow.name) is flow:
            del self._flows[flow.name]
        if len(self._finish) > 2 * len(self._flows) + _SPARE:
            self._finish = {n: at for n, at in self._finish.items() if at > self._now}
