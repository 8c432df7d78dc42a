"""Requests of event loops to a thread that makes answers, and the way of their pieces back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from jobs.engines.batch import Answer
from orchestrator.engine import Piece


class Request:
    """An answer, and the event loop that waits for its pieces."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.left = False
        self.loop = asyncio.get_running_loop()
        self.pieces: asyncio.Queue[Piece | RuntimeError] = asyncio.Queue()


def deliver(made: Iterable[tuple[Request, Piece | RuntimeError]]) -> None:
    """Hand pieces to their event loops, with one call for each loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Request, Piece | RuntimeError]]] = {}
    for request, piece in made:
        by_loop.setdefault(request.loop, []).append((request, piece))
    for loop, items in by_loop.items():
        if loop.is_closed():
            for request, _ in items:
                request.left = True
        else:
            loop.call_soon_threadsafe(_put, items)


def _put(items: Sequence[tuple[Request, Piece | RuntimeError]]) -> None:
    for request, piece in items:
        request.pieces.put_nowait(piece)
