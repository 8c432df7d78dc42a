"""The gateway: an OpenAI-compatible ASGI application in front of one engine.

It checks a request wholly before it asks the engine, and frees the engine's slot as soon as the
client leaves, whether it streams or waits.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from orchestrator.job import Engine, Piece, Sampling
from orchestrator.ports import Clock
from orchestrator.serving.errors import ApiError, answer_errors
from orchestrator.serving.replies import ChatShape, CompletionShape, Json, Shape, usage
from orchestrator.serving.requests import ChatRequest, CompletionRequest, parse

Result = TypeVar("Result")
Generation = AsyncGenerator[tuple[int, Piece], None]


def gateway(
    engine: Engine, model_name: str, clock: Clock, *, body_limit: int = 4 * 1024 * 1024
) -> FastAPI:
    """Return the application that serves `engine` under the name `model_name`."""
    routes = _Routes(engine, model_name, clock, body_limit)
    app = FastAPI(title="orchestrator", openapi_url=None, redirect_slashes=False)
    app.add_api_route("/health", routes.health, methods=["GET"])
    app.add_api_route("/v1/models", routes.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", routes.model, methods=["GET"])
    app.add_api_route("/v1/completions", routes.completions, methods=["POST"])
    app.add_api_route("/v1/chat/completions", routes.chat, methods=["POST"])
    answer_errors(app)
    return app


@dataclass(frozen=True, slots=True)
class _Job:
    """A checked request: a prompt and a sampling for each choice, and how to answer."""

    shape: Shape
    head: Json
    choices: list[tuple[list[int], Sampling]]
    prompt_tokens: int
    include_usage: bool


class _Routes:
    def __init__(self, engine: Engine, model_name: str, clock: Clock, body_limit: int) -> None:
        self._engine = engine
        self._model_name = model_name
        self._clock = clock
        self._body_limit = body_limit
        self._since = int(clock.now())

    async def health(self) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def models(self) -> JSONResponse:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def model(self, name: str) -> JSONResponse:
        self._check_model(name)
        return JSONResponse(self._card())

    async def completions(self, request: Request) -> Response:
        asked = parse(CompletionRequest, await self._body(request))
        self._check_model(asked.model)
        prompts = [self._encode(prompt) for prompt in asked.prompts]
        return await self._answer(request, CompletionShape(), asked, prompts)

    async def chat(self, request: Request) -> Response:
        asked = parse(ChatRequest, await self._body(request))
        self._check_model(asked.model)
        if asked.top_logprobs and not asked.logprobs:
            raise ApiError(400, "top_logprobs needs 'logprobs': true", param="top_logprobs")
        try:
            prompt = self._engine.encode_chat([message.plain() for message in asked.messages])
        except ValueError as error:
            raise ApiError(400, str(error), param="messages") from error
        return await self._answer(request, ChatShape(), asked, [prompt])

    async def _answer(
        self,
        request: Request,
        shape: Shape,
        asked: CompletionRequest | ChatRequest,
        prompts: Sequence[list[int]],
    ) -> Response:
        limits = [self._room(prompt, asked.limit) for prompt in prompts]
        choices = [
            (prompt, asked.sampling(choice, limit))
            for prompt, limit in zip(prompts, limits, strict=True)
            for choice in range(asked.n or 1)
        ]
        head = {
            "id": f"{shape.prefix}{uuid.uuid4().hex}",
            "object": shape.chunk if asked.stream else shape.whole,
            "created": int(self._clock.now()),
            "model": self._model_name,
        }
        job = _Job(shape, head, choices, sum(map(len, prompts)), asked.include_usage)
        if asked.stream:
            return _EventStream(self._events(job), media_type="text/event-stream")
        return JSONResponse(await _while_connected(request, self._whole(job)))

    async def _whole(self, job: _Job) -> Json:
        answers: list[list[Piece]] = [[] for _ in job.choices]
        try:
            async with aclosing(self._generate(job)) as generation:
                async for index, piece in generation:
                    answers[index].append(piece)
        except RuntimeError as error:
            raise ApiError(500, str(error), code="engine_failed") from error
        choices = [job.shape.choice(index, pieces) for index, pieces in enumerate(answers)]
        used = usage(job.prompt_tokens, sum(map(len, answers)))
        return {**job.head, "choices": choices, "usage": used}

    async def _events(self, job: _Job) -> AsyncGenerator[str, None]:
        """Yield the events of a stream. An engine that fails ends it by an error event."""
        extra = {"usage": None} if job.include_usage else {}
        sent = [0] * len(job.choices)
        made = 0
        openings = [job.shape.opening(index) for index in range(len(job.choices))]
        for opening in filter(None, openings):
            yield _event({**job.head, "choices": [opening], **extra})
        try:
            async with aclosing(self._generate(job)) as generation:
                async for index, piece in generation:
                    made += 1
                    if piece.text or piece.finish or piece.logprob is not None:
                        choice = job.shape.delta(index, piece, sent[index])
                        yield _event({**job.head, "choices": [choice], **extra})
                    sent[index] += len(piece.text)
        except RuntimeError as error:
            yield _event(ApiError(500, str(error), code="engine_failed").body())
            return
        if job.include_usage:
            used = usage(job.prompt_tokens, made)
            yield _event({**job.head, "choices": [], "usage": used})
        yield "data: [DONE]\n\n"

    def _generate(self, job: _Job) -> Generation:
        return _merged([self._engine.generate(*choice) for choice in job.choices])

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._body_limit:
                limit = f"the body is longer than {self._body_limit} bytes"
                raise ApiError(413, limit, code="body_too_large")
        return bytes(body)

    def _encode(self, prompt: str | list[int]) -> list[int]:
        if isinstance(prompt, str):
            return self._engine.encode(prompt)
        unknown = next((token for token in prompt if token >= self._engine.vocabulary), None)
        if unknown is not None:
            least = f"the model has {self._engine.vocabulary} tokens"
            raise ApiError(400, f"prompt: no token {unknown}; {least}", param="prompt")
        return prompt

    def _room(self, prompt: Sequence[int], wanted: int | None) -> int:
        """Return how many tokens may follow `prompt`."""
        left = self._engine.max_context - len(prompt)
        if not prompt:
            raise ApiError(400, "the prompt has no tokens", param="prompt")
        if left < (wanted or 1):
            asked = f"{len(prompt)} tokens in the prompt and {wanted or 1} in the answer"
            message = f"the model has room for {self._engine.max_context} tokens, not for {asked}"
            raise ApiError(400, message, code="context_length_exceeded")
        return wanted or left

    def _check_model(self, name: str) -> None:
        if name != self._model_name:
            message = f"no model {name!r} here; there is {self._model_name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")

    def _card(self) -> Json:
        return {
            "id": self._model_name,
            "object": "model",
            "created": self._since,
            "owned_by": "orchestrator",
            "max_model_len": self._engine.max_context,
        }


class _EventStream(StreamingResponse):
    """A stream that closes its generator however the connection ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body: Any = self.body_iterator
        async with aclosing(body):
            await super().__call__(scope, receive, send)


def _event(data: Json) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


async def _merged(answers: Sequence[AsyncGenerator[Piece, None]]) -> Generation:
    """Yield the pieces of all answers as they come, each with the number of its answer."""
    waiting = {asyncio.ensure_future(anext(answer)): i for i, answer in enumerate(answers)}
    try:
        while waiting:
            ready, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in ready:
                index = waiting.pop(task)
                piece = task.result()
                yield index, piece
                if not piece.finish:
                    waiting[asyncio.ensure_future(anext(answers[index]))] = index
    finally:
        await _end(waiting)
        for answer in answers:
            await answer.aclose()


async def _while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`, or stop it and raise when the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        await _end([working, leaving])


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _end(tasks: Any) -> None:  # noqa: ANN401 - tasks of any result
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
