"""Answers of an engine: whole, or as the events of a stream.

A stream begins with its first token: until then an engine that fails is an error with a status,
and the request can be asked elsewhere. Before its end it tells the gateway what it used, in a
comment, which clients of event streams pass over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from orchestrator.engine import Engine, Piece, Prompt, Sampling
from orchestrator.serving.encoding import encode
from orchestrator.serving.errors import ApiError
from orchestrator.serving.replies import Json, Shape, usage

Pieces = AsyncGenerator[Prompt | Piece, None]
Generation = AsyncGenerator[tuple[int, Piece], None]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Order:
    """A checked request: a prompt and a sampling for each choice, and how to answer.

    `version` names the weights, for pieces that don't name theirs.
    """

    shape: Shape
    head: Json
    version: str
    choices: list[tuple[list[int], Sampling]]
    prompt_tokens: int
    include_usage: bool


async def whole(engine: Engine, order: Order) -> Json:
    """Return the whole answer.

    Raises:
        ApiError: The engine failed.
    """
    answers: list[list[Piece]] = [[] for _ in order.choices]
    try:
        async with aclosing(_generate(engine, order)) as generation:
            async for index, piece in generation:
                answers[index].append(piece)
    except RuntimeError as error:
        raise _failed(error) from error
    choices = [order.shape.choice(index, pieces) for index, pieces in enumerate(answers)]
    used = usage(order.prompt_tokens, sum(map(len, answers)))
    versions = dict.fromkeys(piece.version for pieces in answers for piece in pieces)
    mixture = "+".join(filter(None, versions)) or order.version
    return {**order.head, "system_fingerprint": mixture, "choices": choices, "usage": used}


async def events(engine: Engine, order: Order) -> AsyncGenerator[bytes, None]:
    """Yield the events of a stream. An engine that fails later ends it by an error event.

    Raises:
        ApiError: The engine failed before its first token.
    """
    sent = [0] * len(order.choices)
    made, version = 0, order.version
    try:
        async with aclosing(_generate(engine, order)) as generation:
            async for index, piece in generation:
                version = piece.version or order.version
                begun = _openings(order, version) if not made else b""
                made += 1
                told = piece.text or piece.finish or piece.logprob is not None
                delta = order.shape.delta(index, piece, sent[index]) if told else None
                sent[index] += len(piece.text)
                if begun or delta:
                    yield begun + (_chunk(order, version, delta) if delta else b"")
    except RuntimeError as error:
        if not made:
            raise _failed(error) from error
        yield _failed(error).event()
        return
    yield _ending(order, version, made)


def _openings(order: Order, version: str) -> bytes:
    openings = (order.shape.opening(index) for index in range(len(order.choices)))
    return b"".join(_chunk(order, version, opening) for opening in openings if opening)


def _chunk(order: Order, version: str, choice: Json) -> bytes:
    data = {**order.head, "system_fingerprint": version, "choices": [choice]}
    if order.include_usage:
        data["usage"] = None
    return b"data: " + encode(data) + b"\n\n"


def _ending(order: Order, version: str, made: int) -> bytes:
    used = usage(order.prompt_tokens, made)
    comment = b": " + encode({"usage": used}) + b"\n\n"
    if not order.include_usage:
        return comment + DONE
    data = {**order.head, "system_fingerprint": version, "choices": [], "usage": used}
    return b"data: " + encode(data) + b"\n\n" + DONE


def _failed(error: RuntimeError) -> ApiError:
    return ApiError(500, str(error), code="engine_failed")


def _generate(engine: Engine, order: Order) -> Generation:
    answers = [engine.generate(*choice) for choice in order.choices]
    return _one(answers[0]) if len(answers) == 1 else _merged(answers)


async def _one(answer: Pieces) -> Generation:
    async with aclosing(answer):
        async for piece in answer:
            if isinstance(piece, Piece):
                yield 0, piece


async def _merged(answers: Sequence[Pieces]) -> Generation:
    """Yield the pieces of all answers as they come, each with the number of its answer."""
    waiting = {asyncio.ensure_future(anext(answer)): i for i, answer in enumerate(answers)}
    try:
        while waiting:
            ready, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ready:
                index = waiting.pop(task)
                piece = task.result()
                if isinstance(piece, Piece):
                    yield index, piece
                if isinstance(piece, Prompt) or not piece.finish:
                    waiting[asyncio.ensure_future(anext(answers[index]))] = index
    finally:
        await _end(waiting)
        for answer in answers:
            await answer.aclose()


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
