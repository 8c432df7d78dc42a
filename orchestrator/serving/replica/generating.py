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

from orchestrator.engine import Engine, NotFiniteError, Piece, Prompt
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.encoding import encode
from orchestrator.serving.replica.replies import Choice, ChoiceAnswer, ChoiceShape, Json, usage

Pieces = AsyncGenerator[Prompt | Piece, None]
Generation = AsyncGenerator[tuple[int, Prompt | Piece], None]
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A checked request: what is asked for each choice, and how to answer.

    `version` names the weights, for pieces that don't name theirs. `stream_usage` is `end` or
    `each` where a stream tells its usage. `grammar_of` is the field that said what the answer
    must be like.
    """

    shape: ChoiceShape
    head: Json
    version: str
    choices: Sequence[Choice]
    prompt_tokens: int
    stream_usage: str = ""
    grammar_of: str | None = None


async def whole(engine: Engine, request: CheckedRequest) -> Json:
    """Return the whole answer.

    Raises:
        ApiError: The engine failed, or can't do what is asked.
    """
    answers = [ChoiceAnswer(choice) for choice in request.choices]
    try:
        async with aclosing(_generate(engine, request)) as generation:
            async for index, piece in generation:
                if isinstance(piece, Prompt):
                    answers[index].prompt = piece
                else:
                    answers[index].pieces.append(piece)
    except (ValueError, RuntimeError) as error:
        raise _failed(request, error) from error
    choices = [request.shape.choice(index, answer) for index, answer in enumerate(answers)]
    used = usage(request.prompt_tokens, sum(len(answer.pieces) for answer in answers))
    versions = dict.fromkeys(
        part.version
        for answer in answers
        for part in (*([answer.prompt] if answer.prompt else ()), *answer.pieces)
    )
    mixture = "+".join(filter(None, versions)) or request.version
    head = {**request.head, "system_fingerprint": mixture, "choices": choices}
    return {**head, **request.shape.beside(answers), "usage": used}


async def events(engine: Engine, request: CheckedRequest) -> AsyncGenerator[bytes, None]:
    """Yield the events of a stream. An engine that fails later ends it by an error event.

    Raises:
        ApiError: The engine failed before its first token, or can't do what is asked.
    """
    stream = _AnswerStream(request)
    try:
        async with aclosing(_generate(engine, request)) as generation:
            async for index, piece in generation:
                if event := stream.add(index, piece):
                    yield event
    except (ValueError, RuntimeError) as error:
        if not stream.begun:
            raise _failed(request, error) from error
        yield _failed(request, error).event()
        return
    yield stream.ending()


class _AnswerStream:
    """How far a stream is."""

    def __init__(self, request: CheckedRequest) -> None:
        self.begun = False
        self._request = request
        self._version = request.version
        self._tokens = 0

    def add(self, index: int, piece: Prompt | Piece) -> bytes:
        """Return the events of a piece."""
        request = self._request
        self._version = piece.version or request.version
        begun = b"" if self.begun else self._openings()
        self.begun = True
        if isinstance(piece, Prompt):
            delta = request.shape.prompt(index, request.choices[index], piece)
        else:
            self._tokens += 1
            delta = request.shape.delta(index, piece)
        return begun + (self._chunk(delta) if delta else b"")

    def ending(self) -> bytes:
        """Return the last events."""
        used = usage(self._request.prompt_tokens, self._tokens)
        if not self._request.stream_usage:
            return b": " + encode({"usage": used}) + b"\n\n" + DONE
        data = {**self._request.head, "system_fingerprint": self._version, "choices": []}
        return b"data: " + encode({**data, "usage": used}) + b"\n\n" + DONE

    def _openings(self) -> bytes:
        request = self._request
        openings = (request.shape.opening(*choice) for choice in enumerate(request.choices))
        return b"".join(self._chunk(opening) for opening in openings if opening)

    def _chunk(self, choice: Json) -> bytes:
        request = self._request
        data = {**request.head, "system_fingerprint": self._version, "choices": [choice]}
        if request.stream_usage:
            each = request.stream_usage == "each"
            data["usage"] = usage(request.prompt_tokens, self._tokens) if each else None
        return b"data: " + encode(data) + b"\n\n"


def _failed(request: CheckedRequest, error: ValueError | RuntimeError) -> ApiError:
    if isinstance(error, ValueError):
        return ApiError(400, str(error), param=request.grammar_of, code="unsupported_parameter")
    code = "not_finite" if isinstance(error, NotFiniteError) else "engine_failed"
    return ApiError(500, str(error), code=code)


async def _generate(engine: Engine, request: CheckedRequest) -> Generation:
    answers: list[Pieces] = []
    try:
        for choice in request.choices:
            answers.append(engine.generate(choice.prompt, choice.sampling))  # noqa: PERF401 - those before one that is refused are closed
        merged = _only_choice(answers[0]) if len(answers) == 1 else _merged(answers)
        async with aclosing(merged):
            async for item in merged:
                yield item
    finally:
        for answer in answers:
            await answer.aclose()


async def _only_choice(answer: Pieces) -> Generation:
    async for piece in answer:
        yield 0, piece


async def _merged(answers: Sequence[Pieces]) -> Generation:
    """Yield the pieces of all answers as they come, each with the number of its answer."""
    waiting = {asyncio.ensure_future(anext(answer)): i for i, answer in enumerate(answers)}
    try:
        while waiting:
            ready, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ready:
                index = waiting.pop(task)
                try:
                    piece = task.result()
                except StopAsyncIteration:
                    continue
                yield index, piece
                waiting[asyncio.ensure_future(anext(answers[index]))] = index
    finally:
        await _end(waiting)


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
