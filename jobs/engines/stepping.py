"""The thread of an engine: it steps a batch, which answers join and leave between steps.

Requests come from event loops of any other thread, and get their pieces there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from jobs.engines.batch import Answer
from jobs.engines.delivery import Request, deliver
from orchestrator.engine import Piece


class Batch(Protocol):
    """What makes the answers' tokens. Only the thread of a `Stepper` calls it."""

    answers: list[Answer]

    def step(self, joining: Sequence[Answer]) -> list[tuple[Answer, Piece]]:
        """Take `joining` in; return the tokens that this step made."""
        ...

    def leave(self, answers: Sequence[Answer]) -> None:
        """Forget `answers`."""
        ...

    def clear(self) -> None:
        """Forget all answers, after a step failed."""
        ...


class Stepper:
    """Owns the thread, and the requests that wait for a slot.

    Args:
        batch: What is stepped.
        slots: Answers that are made at once; further ones wait.
        prepare: Called in the thread before its first step.
    """

    def __init__(self, batch: Batch, slots: int, prepare: Callable[[], object]) -> None:
        self.made = 0
        self._batch = batch
        self._slots = slots
        self._prepare = prepare
        self._waiting: deque[Request] = deque()
        self._between: deque[tuple[Callable[[], object], Future[None]]] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def statistics(self) -> dict[str, float]:
        """Return the numbers of answers that run and wait, of their tokens, and of those made."""
        running = list(self._batch.answers)
        waiting = [request.answer for request in list(self._waiting)]
        held = sum(len(answer.tokens) for answer in (*running, *waiting))
        numbers = {"running": len(running), "waiting": len(waiting), "held": held}
        return {**numbers, "tokens": self.made, "slots": self._slots}

    def health(self) -> str:
        """Return why it steps no more; nothing while it does."""
        return "the engine is closed" if self._closed else ""

    async def generate(self, answer: Answer) -> AsyncGenerator[Piece, None]:
        """Yield the answer, token by token. Closing it frees its slot at the next step."""
        request = Request(answer)
        with self._wake:
            self._check_open()
            self._waiting.append(request)
            self._wake.notify()
        try:
            while True:
                piece = await request.pieces.get()
                if isinstance(piece, RuntimeError):
                    raise piece
                yield piece
                if piece.finish:
                    return
        finally:
            request.left = True

    def between_steps(self, act: Callable[[], object]) -> None:
        """Do something in the thread, between two steps, and wait until it is done.

        Raises:
            ValueError: `act` raised it.
            RuntimeError: As above, or the engine is closed.
        """
        done: Future[None] = Future()
        with self._wake:
            self._check_open()
            self._between.append((act, done))
            self._wake.notify()
        done.result()

    def close(self) -> None:
        """End the thread; answers that are being made end by an error. Safe to call twice."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")

    def _serve(self) -> None:
        running: list[Request] = []
        reason = "the engine is closed"
        try:
            self._prepare()
            while self._wait_for_work(running):
                if running or self._waiting:
                    running = self._step(running)
        except BaseException as error:
            reason = f"the engine broke: {error!r}"
            raise
        finally:
            with self._wake:
                self._closed = True
                running += self._waiting
            for _, done in self._between:
                done.set_exception(RuntimeError(reason))
            deliver((request, RuntimeError(reason)) for request in running)

    def _wait_for_work(self, running: Sequence[Request]) -> bool:
        """Wait until there is something to do; `False` when the engine is closed."""
        with self._wake:
            self._wake.wait_for(lambda: running or self._waiting or self._closed or self._between)
            if self._closed:
                return False
            acts = list(self._between)
            self._between.clear()
        for act, done in acts:
            try:
                act()
            except (ValueError, RuntimeError) as error:
                done.set_exception(error)
            except BaseException as error:
                done.set_exception(RuntimeError(f"the engine broke: {error!r}"))
                raise
            else:
                done.set_result(None)
        return True

    def _step(self, running: list[Request]) -> list[Request]:
        self._batch.leave([request.answer for request in running if request.left])
        running = [request for request in running if not request.left]
        joining = self._admit(self._slots - len(running))
        running += joining
        owners = {id(request.answer): request for request in running}
        try:
            made = self._batch.step([request.answer for request in joining])
        except RuntimeError as error:
            self._batch.clear()
            deliver((request, RuntimeError(f"a step failed: {error}")) for request in running)
            return []
        self.made += len(made)
        deliver((owners[id(answer)], piece) for answer, piece in made)
        return [request for request in running if not request.answer.done]

    def _admit(self, free: int) -> list[Request]:
        """Take waiting requests, as many as have a slot."""
        joining: list[Request] = []
        while self._waiting and len(joining) < free:
            request = self._waiting.popleft()
            if not request.left:
                joining.append(request)
        return joining
