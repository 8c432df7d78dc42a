"""Who answers questions: an engine in this process, or an endpoint of the OpenAI kind."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import openai

from orchestrator.engine import Engine, Piece, Sampling
from orchestrator.job import Hardware

T = TypeVar("T")
Done = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question, with the seed of its answer."""

    question: str
    seed: int


class Respondent(Protocol):
    """Answers questions."""

    def answers(self, questions: Sequence[Ask], sampling: Sampling, done: Done) -> list[str]:
        """Return an answer to each, by the chat template; `done` is told how many there are."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


class EngineRespondent:
    """An engine in this process."""

    def __init__(
        self, name: str, folder: Path, hardware: Hardware, options: Mapping[str, object]
    ) -> None:
        """Open the engine class of this name over the model in `folder`."""
        self._engine = open_engine(name, folder, hardware, options)

    def answers(self, questions: Sequence[Ask], sampling: Sampling, done: Done) -> list[str]:
        """Return an answer to each question; the engine makes as many at once as it has slots."""

        async def answer(ask: Ask) -> str:
            prompt = self._engine.encode_chat([{"role": "user", "content": ask.question}])
            pieces = self._engine.generate(prompt, replace(sampling, seed=ask.seed))
            return "".join([piece.text async for piece in pieces if isinstance(piece, Piece)])

        return asyncio.run(_gathered(answer, questions, len(questions), done))

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class EndpointRespondent:
    """An endpoint. Its key is what the environment variable OPENAI_API_KEY says, if anything."""

    def __init__(self, address: str, model: str, *, at_once: int = 16) -> None:
        """Ask `model` at `address` (`http://HOST:PORT/v1`), so many questions at once."""
        self._address, self._model, self._at_once = address, model, at_once

    def answers(self, questions: Sequence[Ask], sampling: Sampling, done: Done) -> list[str]:
        """Return an answer to each question.

        Raises:
            ConnectionError: The endpoint is away.
            ValueError: It refuses what it is asked.
        """

        async def all_of_them() -> list[str]:
            async with client_of(self._address) as client:

                async def answer(ask: Ask) -> str:
                    reply = await client.chat.completions.create(
                        model=self._model,
                        messages=[{"role": "user", "content": ask.question}],
                        max_tokens=sampling.max_tokens,
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        seed=ask.seed,
                    )
                    return reply.choices[0].message.content or ""

                return await _gathered(answer, questions, self._at_once, done)

        return reached(self._address, all_of_them())

    def close(self) -> None:
        """Nothing is held."""


def open_engine(
    name: str, folder: Path, hardware: Hardware, options: Mapping[str, object]
) -> Engine:
    """Return an engine of the class of this dotted name, over the model in `folder`.

    Raises:
        ValueError: It is none, or refuses the model.
    """
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(f"engine={name!r} is no dotted name of an engine class")
    engine: Engine = getattr(importlib.import_module(module), attribute)(
        folder, hardware, **options
    )
    return engine


def client_of(address: str) -> openai.AsyncOpenAI:
    """Return a client of an endpoint, with the key of the environment or without one."""
    try:
        return openai.AsyncOpenAI(base_url=address)
    except openai.OpenAIError:  # there is no key: an endpoint need not ask for one
        return openai.AsyncOpenAI(base_url=address, api_key="none")


def reached(address: str, asking: Coroutine[Any, Any, T]) -> T:
    """Return what `asking` gives, with the endpoint's own errors in one line.

    Raises:
        ConnectionError: It is away, or answers by a failure of its own.
        ValueError: It refuses what it is asked.
    """
    try:
        return asyncio.run(asking)
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        raise ConnectionError(
            f"the endpoint {address!r} can't be reached: {_line(error.__cause__ or error)}; "
            f"look whether it is deployed, and whether this node reaches it"
        ) from error
    except openai.APIStatusError as error:
        raise ValueError(f"the endpoint {address!r} refuses: {_line(error)}") from error


async def _gathered(
    answer: Callable[[Ask], Awaitable[str]], questions: Sequence[Ask], most: int, done: Done
) -> list[str]:
    """Return the answers in the order of the questions; at most so many are made at once."""
    free = asyncio.Semaphore(max(most, 1))
    answered = 0

    async def limited(ask: Ask) -> str:
        nonlocal answered
        async with free:
            text = await answer(ask)
        answered += 1
        done(answered)
        return text.strip()

    return await asyncio.gather(*map(limited, questions))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())
