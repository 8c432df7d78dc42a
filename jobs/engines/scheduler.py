"""The thread of an engine: it steps a batch, which answers join and leave between steps.

Requests come from event loops of any other thread, and get their pieces there. Whatever breaks,
each request that was taken gets an answer or an error, and `health` says what is wrong.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from time import monotonic

from jobs.engines.answer import Answer
from jobs.engines.batch import Batch, Outcome
from jobs.engines.border import attempt
from jobs.engines.delivery import Request, deliver
from jobs.engines.processors import ImpossibleError
from orchestrator.engine import Piece, Prompt

PATIENCE = 120.0  # seconds
SUSPICIOUS = 3  # steps in a row of which nothing came but errors
CLOSING = 10.0  # seconds


class Scheduler:
    """Owns the thread, and the requests that wait for a slot.

    Args:
        batch: What is stepped.
        slots: Answers that are made at once; further ones wait.
        prepare: Called in the thread before its first step.
        patience: Seconds that a step may take, at most, before the engine counts as hanging.
        clock: Tells seconds.
    """

    def __init__(
        self,
        batch: Batch,
        slots: int,
        prepare: Callable[[], object],
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.generated = 0
        self._batch = batch
        self._slots = slots
        self._prepare = prepare
        self._patience = patience
        self._clock = clock
        self._running: list[Request] = []
        self._waiting: deque[Request] = deque()
        self._between: deque[tuple[Callable[[], object], Future[None]]] = deque()
        self._wake = threading.Condition()
        self._closed = ""  # why, where it is
        self._sick = ""
        self._failed = 0
        self._began: float | None = None
        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def statistics(self) -> dict[str, float]:
        """Return the numbers of answers that run and wait, of their tokens, and of those made."""
        running = [request.answer for request in list(self._running)]
        waiting = [request.answer for request in list(self._waiting)]
        held = sum(len(answer.tokens) for answer in (*running, *waiting))
        numbers = {"running": len(running), "waiting": len(waiting), "held": held}
        return {**numbers, "tokens": self.generated, "slots": self._slots}

    def health(self) -> str:
        """Return why it can't serve, at once and from any thread; nothing while it can."""
        if self._closed:
            return self._closed
        if not self._thread.is_alive():
            return "the engine's thread is gone"
        began = self._began
        lasts = 0.0 if began is None else self._clock() - began
        if lasts > self._patience:
            return f"a step of the engine has lasted for {lasts:.0f} s"
        return self._sick

    def beat(self) -> None:
        """Say that what lasts goes on."""
        self._began = self._clock()

    async def generate(self, answer: Answer) -> AsyncGenerator[Prompt | Piece, None]:
        """Yield the answer, token by token. Closing it frees its slot at the next step."""
        request = Request(answer)
        with self._wake:
            self._check_open()
            self._waiting.append(request)
            self._wake.notify()
        try:
            while True:
                outcome = await request.pieces.get()
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
                if _is_last(outcome, answer):
                    return
        finally:
            request.client_left = True

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
        """End the thread; answers that are being made end by an error. Safe to call twice.

        A thread that hangs is left to itself.
        """
        with self._wake:
            self._closed = self._closed or "the engine is closed"
            self._wake.notify()
        self._thread.join(CLOSING)

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError(self._closed)

    def _serve(self) -> None:
        reason = "the engine is closed"
        try:
            self.beat()
            self._prepare()
            while self._wait_for_work():
                if self._running or self._waiting:
                    self._step()
        except BaseException as error:
            reason = f"the engine broke: {error!r}"
            raise
        finally:
            with self._wake:
                self._closed = self._closed or f"the engine is closed: {reason}"
                requests = [*self._running, *self._waiting]
            self._running, self._began = [], None
            for _, done in self._between:
                done.set_exception(RuntimeError(reason))
            deliver((request, RuntimeError(reason)) for request in requests)

    def _wait_for_work(self) -> bool:
        """Wait until there is something to do; `False` when the engine is closed."""
        self._began = None
        with self._wake:
            self._wake.wait_for(
                lambda: self._running or self._waiting or self._closed or self._between
            )
            if self._closed:
                return False
        while self._between:
            act, done = self._between.popleft()
            self.beat()
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

    def _step(self) -> None:
        self.beat()
        outcomes = attempt(self._advance)
        if isinstance(outcomes, Exception):
            self._batch.clear()
            failure = RuntimeError(f"a step failed: {outcomes}")
            outcomes = [(request.answer, failure) for request in self._running]
            for answer, _ in outcomes:
                answer.done = True
        owners = {id(request.answer): request for request in self._running}
        pieces = sum(_came(outcome) for _, outcome in outcomes)
        self._running = [request for request in self._running if not request.answer.done]
        self.generated += sum(isinstance(outcome, Piece) for _, outcome in outcomes)
        if outcomes:
            self._judge(pieces)  # first, so that who gets an error can ask `health` at once
        deliver((owners[id(answer)], outcome) for answer, outcome in outcomes)

    def _advance(self) -> Sequence[tuple[Answer, Outcome]]:
        """Let answers leave and join, and step the batch."""
        self._batch.leave([request.answer for request in self._running if request.client_left])
        self._running = [request for request in self._running if not request.client_left]
        joining = self._admit()
        return self._batch.step([request.answer for request in joining])

    def _judge(self, pieces: int) -> None:
        """Suspect the device where nothing comes but errors, and try it."""
        if pieces:
            self._failed, self._sick = 0, ""
            return
        self._failed += 1
        if self._failed >= SUSPICIOUS:
            trouble = self._batch.trouble()
            self._sick = f"{self._failed} steps in a row failed: {trouble}" if trouble else ""

    def _admit(self) -> list[Request]:
        """Take waiting requests, as many as have a slot and room."""
        joining: list[Request] = []
        while self._waiting and len(self._running) < self._slots:
            request = self._waiting[0]
            answers = [other.answer for other in joining]
            if not request.client_left and not self._batch.fits([*answers, request.answer]):
                break
            self._waiting.popleft()
            if not request.client_left:
                joining.append(request)
                self._running.append(request)
        return joining


def _came(outcome: Outcome) -> bool:
    """Whether the device has done its part: a request may ask for what is impossible."""
    return not isinstance(outcome, Exception) or isinstance(outcome, ImpossibleError)


def _is_last(outcome: Prompt | Piece, answer: Answer) -> bool:
    if isinstance(outcome, Prompt):
        return not answer.sampling.max_tokens
    return outcome.finish is not None
