"""Whatever breaks ends what it broke, is told at once, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jobs.engines.answer import Answer
from jobs.engines.batch import Batch
from jobs.engines.cache import SlotCache
from jobs.engines.embedded import EmbeddedEngine
from jobs.engines.forward import Forward
from jobs.engines.scheduler import SUSPICIOUS, Scheduler
from orchestrator.engine import NotFiniteError, Piece, Prompt, Sampling
from tests.jobs.engines.test_batch import batch, expected
from tests.jobs.engines.tiny_llama import HARDWARE

GREEDY = Sampling(max_tokens=12, temperature=0)
POISON = 77


@pytest.fixture
def engine(folder: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(folder, HARDWARE, threads=1, slots=4)
    yield engine
    engine.close()


async def ask(
    engine: EmbeddedEngine, prompt: Sequence[int], sampling: Sampling = GREEDY
) -> list[int] | Exception:
    pieces = engine.generate(prompt, sampling)
    try:
        return [piece.token async for piece in pieces if isinstance(piece, Piece)]
    except (RuntimeError, ValueError) as error:
        return error


async def ask_all(engine: EmbeddedEngine, prompts: Sequence[Sequence[int]]) -> list:
    return await asyncio.gather(*(ask(engine, prompt) for prompt in prompts))


def give(engine: EmbeddedEngine, change: Callable[[Forward], Forward]) -> Forward:
    """Let the engine compute by another pass; return the one that it had."""
    weights = engine._batch.weights
    engine._batch.weights = replace(weights, run=change(weights.run))
    return weights.run


def spoils(value: float) -> Callable[[Forward], Forward]:
    """Return a change to a pass that overflows, as narrow types do, at some token."""

    def change(right: Forward) -> Forward:
        def run(new: Sequence[Sequence[int]], cache: SlotCache, **more: bool) -> torch.Tensor:
            scores = right(new, cache, **more)
            for row, tokens in enumerate(new):
                if POISON in tokens:
                    scores[row, ..., 5] = value
                    for layer in cache.layers:
                        for buffer in layer.buffers:
                            buffer[cache.span.start + row] = torch.nan
            return scores

        return run

    return change


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_not_finite_end_that_answer_alone(
    engine: EmbeddedEngine, value: float
) -> None:
    prompts = [[1, 2, 3], [4, POISON, 5], [6, 7], [8] * 40]
    alone = [asyncio.run(ask(engine, prompt)) for prompt in prompts]
    give(engine, spoils(value))
    for _ in range(4):
        first, poisoned, *others = asyncio.run(ask_all(engine, prompts))
        assert isinstance(poisoned, NotFiniteError)
        assert [first, *others] == [alone[0], *alone[2:]]
    assert engine.health() == ""
    assert asyncio.run(ask_all(engine, prompts[2:] * 4)) == alone[2:] * 4


def test_what_a_spoiled_answer_leaves_in_the_cache_spoils_no_other(engine: EmbeddedEngine) -> None:
    alone = asyncio.run(ask(engine, [9] * 30))
    give(engine, spoils(torch.nan))
    assert isinstance(asyncio.run(ask(engine, [POISON] * 50)), NotFiniteError)
    assert asyncio.run(ask(engine, [9] * 30)) == alone


@pytest.mark.parametrize("error", [RuntimeError, IndexError, MemoryError, ZeroDivisionError])
def test_a_pass_that_fails_for_one_answer_ends_that_one_alone(
    engine: EmbeddedEngine, error: type[Exception]
) -> None:
    def change(right: Forward) -> Forward:
        def run(new: Sequence[Sequence[int]], cache: SlotCache, **more: bool) -> torch.Tensor:
            if any(POISON in tokens for tokens in new):
                raise error("device-side assert")
            return right(new, cache, **more)

        return run

    prompts = [[1, 2, 3], [4, POISON, 5], [6, 7], [8] * 40]
    alone = [asyncio.run(ask(engine, prompt)) for prompt in prompts]
    give(engine, change)
    answers = asyncio.run(ask_all(engine, prompts))
    assert str(answers.pop(1)) == "a step failed: device-side assert"
    assert answers == [alone[0], *alone[2:]]
    assert engine.health() == ""


def broken(right: Forward) -> Forward:
    def run(new: Sequence[Sequence[int]], cache: SlotCache, **more: bool) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    return run


def blind(right: Forward) -> Forward:
    return lambda new, cache, **more: right(new, cache, **more) * torch.nan


@pytest.mark.parametrize(
    ("change", "told"),
    [(broken, "an illegal memory access"), (blind, "scores for a plain prompt are not finite")],
)
def test_a_device_that_fails_at_everything_is_told_until_it_works_again(
    engine: EmbeddedEngine, change: Callable[[Forward], Forward], told: str
) -> None:
    right = give(engine, change)
    for _ in range(SUSPICIOUS):
        assert isinstance(asyncio.run(ask(engine, [1, 2, 3])), RuntimeError)
    assert told in engine.health()
    give(engine, lambda _: right)
    assert len(asyncio.run(ask(engine, [1, 2, 3]))) == 12
    assert engine.health() == ""


def test_a_step_that_hangs_is_told_while_it_does(folder: Path) -> None:
    now = [0.0]
    entered, leave = threading.Event(), threading.Event()
    made, sums = batch()

    def hangs(new: Sequence[Sequence[int]], cache: SlotCache) -> torch.Tensor:
        entered.set()
        leave.wait(60)
        return sums(new, cache)

    made.weights = replace(made.weights, run=hangs)
    scheduler = Scheduler(made, 4, lambda: None, patience=30, clock=lambda: now[0])

    async def wait_and_look() -> list[str]:
        answer = asyncio.ensure_future(collect(scheduler, [1, 2]))
        await asyncio.to_thread(entered.wait, 60)
        told = [scheduler.health()]
        now[0] = 31.0
        told.append(scheduler.health())
        leave.set()
        await answer
        return [*told, scheduler.health()]

    before, while_hanging, after = asyncio.run(wait_and_look())
    assert (before, after) == ("", "")
    assert while_hanging == "a step of the engine has lasted for 31 s"
    scheduler.close()


async def collect(scheduler: Scheduler, prompt: list[int]) -> list[Piece | Prompt]:
    answer = Answer(prompt, GREEDY, lambda _: "")
    return [piece async for piece in scheduler.generate(answer)]


class Breaking(Batch):
    """A batch whose first steps raise."""

    left = 0
    error: BaseException = KeyError("a bug")

    def step(self, joining: Sequence[Answer]) -> list:
        if self.left:
            self.left -= 1
            raise self.error
        return super().step(joining)


def breaking(times: int, error: BaseException) -> Breaking:
    made, _ = batch()
    broken = Breaking(made.weights, made._cache)
    broken.left, broken.error = times, error
    return broken


def test_answers_that_join_a_step_that_breaks_get_its_error_and_later_ones_are_made() -> None:
    scheduler = Scheduler(breaking(1, KeyError("a bug")), 4, lambda: None)

    async def ask_two() -> list:
        both = (collect(scheduler, [n, 2]) for n in (1, 2))
        return await asyncio.wait_for(asyncio.gather(*both, return_exceptions=True), 30)

    answers = asyncio.run(ask_two())
    failed = [answer for answer in answers if isinstance(answer, RuntimeError)]
    assert failed
    assert all("a step failed: 'a bug'" in str(error) for error in failed)
    pieces = asyncio.run(collect(scheduler, [1, 2]))
    assert [piece.token for piece in pieces] == expected([1, 2], 12)[2:]
    assert scheduler.health() == ""
    scheduler.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_answers_all_and_is_told() -> None:
    scheduler = Scheduler(breaking(1, GeneratorExit("gone")), 4, lambda: None)

    async def ask_two() -> list:
        both = (collect(scheduler, [n, 2]) for n in (1, 2))
        return await asyncio.wait_for(asyncio.gather(*both, return_exceptions=True), 30)

    assert all(isinstance(answer, RuntimeError) for answer in asyncio.run(ask_two()))
    assert "the engine broke: GeneratorExit" in scheduler.health()
    scheduler.close()


@pytest.mark.parametrize("token", [257, 1 << 31, -1])
def test_a_token_that_the_model_has_no_row_for_is_the_requests_fault(
    engine: EmbeddedEngine, token: int
) -> None:
    for sampling in (GREEDY, replace(GREEDY, prompt_logprobs=1)):
        error = asyncio.run(ask(engine, [1, token, 2], sampling))
        assert isinstance(error, ValueError)
        assert f"no row for token {token}" in str(error)
    assert isinstance(
        asyncio.run(ask(engine, [1], replace(GREEDY, logit_bias={token: 1}))), ValueError
    )
    with pytest.raises(ValueError, match="no row for token"):
        engine.score([1, token], 1, 1)
    assert len(asyncio.run(ask(engine, [1, 2]))) == 12
