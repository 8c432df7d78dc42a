"""Who waits for a slot of one endpoint, by the revision that each wants.

Places are shared as slots are: where all are taken, a flow with fewer waiting displaces the newest
of the flow with the most. So one key alone may fill the queue, and never keeps another out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.serving.gateway.fair_queue import FairQueue, Share

if TYPE_CHECKING:
    from orchestrator.serving.gateway.slots import Slot


@dataclass(slots=True, eq=False)
class Pending:
    """A request that waits for a slot, best at `revision`, and not at the replica `avoid`."""

    client: str
    avoid: str
    share: Share
    since: float
    revision: str
    slot: asyncio.Future[Slot] = field(repr=False)


class RequestQueue:
    """All that wait for one endpoint.

    Those that are asked again after a replica failed go first: they have had their turn.
    """

    def __init__(self) -> None:
        self._fair: dict[str, FairQueue[Pending]] = {}
        self._again: dict[Pending, None] = {}
        self._flows: dict[str, dict[Pending, None]] = {}
        self._size = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return self._size

    def add(self, pending: Pending) -> None:
        """Let `pending` wait."""
        self._flows.setdefault(pending.share.flow, {})[pending] = None
        self._size += 1
        self._enter(pending)

    def remove(self, pending: Pending) -> None:
        """Let `pending` wait no longer, if it does."""
        flow = self._flows.get(pending.share.flow, {})
        if pending not in flow:
            return
        del flow[pending]
        if not flow:
            del self._flows[pending.share.flow]
        self._size -= 1
        self._leave(pending)

    def displaced(self, flow: str) -> Pending | None:
        """Return who must go so that one more of `flow` may wait; `None`: `flow` has its part."""
        most = max(self._flows.values(), key=len, default={})
        own = self._flows.get(flow, {})
        return next(reversed(most)) if len(most) > len(own) + 1 else None

    def again(self) -> list[Pending]:
        """Return those that are asked again, in order of arrival."""
        return list(self._again)

    def revisions(self) -> list[str]:
        """Return the revisions that are wanted; of those asked again, not."""
        return [name for name, queue in self._fair.items() if queue]

    def next(self, revision: str) -> Pending | None:
        """Return whose turn it is for a slot at `revision`."""
        queue = self._fair.get(revision)
        return None if queue is None else queue.peek()

    def serve(self, pending: Pending) -> None:
        """Let `pending`, whose turn it is, wait no longer: it has a slot."""
        if pending not in self._again:
            self._fair[pending.revision].pop()
        self.remove(pending)

    def move(self, pending: Pending, revision: str) -> None:
        """Have `pending` want another revision."""
        self._leave(pending)
        pending.revision = revision
        self._enter(pending)

    def oldest_first(self, revision: str) -> Iterator[Pending]:
        """Yield those that want `revision`, in order of arrival."""
        queue = self._fair.get(revision)
        yield from [] if queue is None else queue.items()

    def _enter(self, pending: Pending) -> None:
        if pending.avoid:
            self._again[pending] = None
        else:
            self._fair.setdefault(pending.revision, FairQueue()).push(pending, pending.share)

    def _leave(self, pending: Pending) -> None:
        self._again.pop(pending, None)
        queue = self._fair.get(pending.revision)
        if queue is not None:
            queue.remove(pending)
            if not queue:
                del self._fair[pending.revision]
