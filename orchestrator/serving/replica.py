"""What answers inside a replica: an OpenAI-compatible ASGI application around one engine.

It checks a request wholly before it asks the engine, and frees the engine's slot as soon as the
client leaves, whether it streams or waits. Only who shows its token may ask; that is the gateway.
"""

from __future__ import annotations

import hmac
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import TypeAlias

from pydantic_core import from_json

from orchestrator.engine import Engine, Predictor, Sampling
from orchestrator.ports import Clock
from orchestrator.serving.asgi import (
    EVENTS,
    Application,
    Receive,
    Scope,
    Send,
    add,
    answer,
    bearer,
    begin,
    body_of,
    end,
    path_of,
)
from orchestrator.serving.cancellation import CancelScope
from orchestrator.serving.encoding import encode
from orchestrator.serving.errors import ApiError, unknown_model, unknown_url, wrong_method
from orchestrator.serving.generating import Order, events, whole
from orchestrator.serving.limits import Limits
from orchestrator.serving.replies import ChatShape, CompletionShape, Json, Shape
from orchestrator.serving.requests import ChatRequest, CompletionRequest, parse

Asked: TypeAlias = CompletionRequest | ChatRequest
_GENERATING: dict[str, type[CompletionShape | ChatShape]] = {
    "/v1/completions": CompletionShape,
    "/v1/chat/completions": ChatShape,
}
_CARD = "/v1/models/"


def replica(
    engine: Engine | Predictor,
    model_name: str,
    clock: Clock,
    *,
    token: str = "",
    version: str = "",
    limits: Limits | None = None,
) -> Application:
    """Return the application that serves `engine` under the name `model_name`.

    Args:
        engine: Generates text, or predicts what is no text.
        model_name: What clients call the model.
        clock: For the times in answers.
        token: What callers must show as their bearer token; everybody may ask where empty.
        version: The `system_fingerprint` of answers, where the engine has no `version` itself.
        limits: Of a request.
    """
    routes = _Routes(engine, model_name, clock, limits or Limits())
    routes.token = token.encode()
    routes.version = version or model_name
    return Application(routes.handle)


class _Routes:
    token = b""
    version = ""

    def __init__(
        self, engine: Engine | Predictor, name: str, clock: Clock, limits: Limits
    ) -> None:
        self._engine = engine
        self._name = name
        self._clock = clock
        self._limits = limits
        self._since = int(clock.now())

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = path_of(scope), scope["method"]
        if path in {"/health", "/ready"}:
            self._only("GET", method, path)
            why = self._fault() or (await self._unready() if path == "/ready" else "")
            await answer(send, 503 if why else 200, encode({"status": why or "ok"}))
            return
        self._check_token(scope)
        if path in _GENERATING or path == "/v1/predict":
            self._only("POST", method, path)
            await self._post(path, scope, receive, send)
            return
        found = self._found(path)
        if found is None:
            raise unknown_url(method, path)
        self._only("GET", method, path)
        await answer(send, 200, encode(found))

    def _fault(self) -> str:
        """Return why the engine can't serve; one without a word on it can."""
        health = getattr(self._engine, "health", None)
        return str(health()) if health is not None else ""

    async def _unready(self) -> str:
        """Return why the engine makes no token, if it is one that does."""
        if hasattr(self._engine, "predict"):
            return ""
        engine: Engine = self._engine
        try:
            tokens = engine.encode("1")
            async with aclosing(engine.generate(tokens, Sampling(max_tokens=1))) as pieces:
                await anext(pieces)
        except (RuntimeError, ValueError) as error:
            return f"asked for one token: {error}"
        return ""

    def _found(self, path: str) -> Json | None:
        if path == "/v1/models":
            return {"object": "list", "data": [self._card()]}
        if path == "/stats":
            return dict(getattr(self._engine, "statistics", dict)())
        if path.startswith(_CARD):
            self._check_model(path[len(_CARD) :])
            return self._card()
        return None

    async def _post(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = await body_of(scope, receive, self._limits.body_bytes)
        with CancelScope(receive, self._limits.request_seconds):
            if path == "/v1/predict":
                made = await self._predict(body)
            elif path == "/v1/completions":
                made = await self._completions(body, send)
            else:
                made = await self._chat(body, send)
        if made is None:
            await end(send)
        else:
            await answer(send, 200, encode(made))

    async def _predict(self, body: bytes) -> object:
        predict = getattr(self._engine, "predict", None)
        if predict is None:
            raise ApiError(400, "a language model has no /v1/predict", code="unsupported")
        try:
            asked = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            message = f"the body is not valid JSON: {error}"
            raise ApiError(400, message, code="invalid_json") from error
        try:
            return await predict(asked)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        except RuntimeError as error:
            raise ApiError(500, str(error), code="engine_failed") from error

    async def _completions(self, body: bytes, send: Send) -> Json | None:
        engine = self._generator()
        asked = parse(CompletionRequest, body)
        self._check_model(asked.model)
        prompts = [_encode(engine, prompt) for prompt in asked.prompts]
        return await self._answer(engine, "/v1/completions", asked, prompts, send)

    async def _chat(self, body: bytes, send: Send) -> Json | None:
        engine = self._generator()
        asked = parse(ChatRequest, body)
        self._check_model(asked.model)
        try:
            prompt = engine.encode_chat([message.plain() for message in asked.messages])
        except ValueError as error:
            raise ApiError(400, str(error), param="messages") from error
        return await self._answer(engine, "/v1/chat/completions", asked, [prompt], send)

    async def _answer(
        self, engine: Engine, path: str, asked: Asked, prompts: Sequence[list[int]], send: Send
    ) -> Json | None:
        """Return the answer, or stream it but for its end and return nothing."""
        shape = _GENERATING[path](engine.token_bytes)
        limits = [_room(engine, prompt, asked.limit) for prompt in prompts]
        choices = [
            (prompt, asked.sampling(choice, limit))
            for prompt, limit in zip(prompts, limits, strict=True)
            for choice in range(asked.n or 1)
        ]
        head = self._head(shape, streams=bool(asked.stream))
        tokens = sum(map(len, prompts))
        version = str(getattr(engine, "version", "")) or self.version
        order = Order(shape, head, version, choices, tokens, asked.include_usage)
        if not asked.stream:
            return await whole(engine, order)
        async with aclosing(events(engine, order)) as stream:
            first = await anext(stream)
            await begin(send, 200, [EVENTS, (b"cache-control", b"no-store")])
            await add(send, first)
            async for event in stream:
                await add(send, event)
        return None

    def _head(self, shape: Shape, *, streams: bool) -> Json:
        return {
            "id": f"{shape.prefix}{uuid.uuid4().hex}",
            "object": shape.chunk if streams else shape.whole,
            "created": int(self._clock.now()),
            "model": self._name,
        }

    def _generator(self) -> Engine:
        if hasattr(self._engine, "predict"):
            message = "this endpoint is no language model: it answers at /v1/predict"
            raise ApiError(400, message, code="unsupported")
        engine: Engine = self._engine
        return engine

    def _check_token(self, scope: Scope) -> None:
        if self.token and not hmac.compare_digest(bearer(scope).encode(), self.token):
            raise ApiError(401, "only the gateway may ask a replica", code="invalid_api_key")

    def _check_model(self, name: str) -> None:
        if name != self._name:
            raise unknown_model(name, repr(self._name))

    def _only(self, allowed: str, method: str, path: str) -> None:
        if method != allowed:
            raise wrong_method(method, path, allowed)

    def _card(self) -> Json:
        card = {"id": self._name, "object": "model", "created": self._since}
        longest = getattr(self._engine, "max_context", None)
        return {**card, "owned_by": "orchestrator", "max_model_len": longest}


def _encode(engine: Engine, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        return engine.encode(prompt)
    unknown = next((token for token in prompt if token >= engine.vocabulary), None)
    if unknown is not None:
        least = f"the model has {engine.vocabulary} tokens"
        raise ApiError(400, f"prompt: no token {unknown}; {least}", param="prompt")
    return prompt


def _room(engine: Engine, prompt: Sequence[int], wanted: int | None) -> int:
    """Return how many tokens may follow `prompt`."""
    left = engine.max_context - len(prompt)
    if not prompt:
        raise ApiError(400, "the prompt has no tokens", param="prompt")
    if left < (wanted or 1):
        asked = f"{len(prompt)} tokens in the prompt and {wanted or 1} in the answer"
        message = f"the model has room for {engine.max_context} tokens, not for {asked}"
        raise ApiError(400, message, code="context_length_exceeded")
    return wanted or left
