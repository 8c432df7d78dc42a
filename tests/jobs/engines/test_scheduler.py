from __future__ import annotations

import asyncio

import pytest

from jobs.engines.answer import Answer
from jobs.engines.scheduler import Scheduler
from orchestrator.engine import Piece, Prompt, Sampling
from tests.jobs.engines.test_batch import batch


def test_what_is_done_between_steps_tells_how_it_ended() -> None:
    scheduler = Scheduler(batch()[0], 4, lambda: None)
    done: list[int] = []
    scheduler.between_steps(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ValueError, match="invalid literal"):
        scheduler.between_steps(lambda: int("x"))
    scheduler.between_steps(lambda: done.append(2))
    assert done == [1, 2]
    scheduler.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_breaks_leaves_nobody_waiting() -> None:
    scheduler = Scheduler(batch()[0], 4, lambda: None)

    async def ask() -> list[Piece | Prompt]:
        answer = Answer([1], Sampling(max_tokens=2), lambda _: "")
        return [piece async for piece in scheduler.generate(answer)]

    with pytest.raises(RuntimeError, match="the engine broke: ZeroDivisionError"):
        scheduler.between_steps(lambda: 1 // 0)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        asyncio.run(ask())
    scheduler.close()
