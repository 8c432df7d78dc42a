"""Requests of event loops to a thread that makes answers, and the way of their pieces back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from jobs.engines.answer import Answer
from jobs.engines.batch import Outcome


class Request:
    """An answer, and the event loop that waits for its pieces."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.client_left = False
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Outcome] = asyncio.Queue()


def deliver(outcomes: Iterable[tuple[Request, Outcome]]) -> None:
    """Hand pieces to their event loops, with one call for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Request, Outcome]]] = {}
    for request, outcome in outcomes:
        by_loop.setdefault(request.loop, []).append((request, outcome))
    for loop, items in by_loop.items():
        try:
            loop.call_soon_threadsafe(_put, items)
        except RuntimeError:  # the loop is closed
            for request, _ in items:
                request.client_left = True


def _put(items: Sequence[tuple[Request, Outcome]]) -> None:
    for request, outcome in items:
        request.pieces.put_nowait(outcome)
