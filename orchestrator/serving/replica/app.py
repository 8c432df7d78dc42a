"""What answers inside a replica: an OpenAI-compatible ASGI application around one engine.

It checks a request wholly before it asks the engine, and frees the engine's slot as soon as the
client leaves, whether it streams or waits. Only who shows its token may ask; that is the gateway.
"""

from __future__ import annotations

import hmac
import re
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

from pydantic_core import from_json

from orchestrator.engine import Engine, Predictor, Sampling
from orchestrator.ports import Clock
from orchestrator.serving.http.api_errors import ApiError, unknown_model, unknown_url, wrong_method
from orchestrator.serving.http.asgi import (
    ANSWER_SECONDS,
    EVENTS,
    Application,
    Headers,
    Receive,
    Scope,
    Send,
    add,
    answer,
    bearer,
    begin,
    body_of,
    end,
    header,
    path_of,
)
from orchestrator.serving.http.cancellation import CancelScope
from orchestrator.serving.http.encoding import encode
from orchestrator.serving.http.request_limits import GatewayLimits
from orchestrator.serving.http.requests import ChatRequest, CompletionRequest, parse
from orchestrator.serving.replica.engine_metrics import CONTENT_TYPE, EngineMetrics, health
from orchestrator.serving.replica.generating import CheckedRequest, events, whole
from orchestrator.serving.replica.prompting import Prompter
from orchestrator.serving.replica.replies import (
    ChatShape,
    Choice,
    ChoiceShape,
    CompletionShape,
    Json,
    Style,
)
from orchestrator.serving.replica.tokenizing import detokenized, tokenized

GenerationRequest: TypeAlias = CompletionRequest | ChatRequest
_COMPLETIONS, _CHAT, _PREDICT = "/v1/completions", "/v1/chat/completions", "/v1/predict"
_TOKENIZE, _DETOKENIZE = "/tokenize", "/detokenize"
_POSTS = {_COMPLETIONS, _CHAT, _PREDICT, _TOKENIZE, _DETOKENIZE}
_CARD = "/v1/models/"
_ELSEWHERE = re.compile(
    r"/v1/(embeddings|responses|messages|rerank|score|classify|moderations|audio|images|files"
    r"|batches|fine_tuning|assistants|threads|vector_stores|uploads|realtime)(/.*)?"
)
_NUMBER = re.compile(rb"\d{1,9}(\.\d{1,9})?")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")


def replica(
    engine: Engine | Predictor,
    model_name: str,
    clock: Clock,
    *,
    token: str = "",
    version: str = "",
    limits: GatewayLimits | None = None,
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
    routes = _ReplicaApp(engine, model_name, clock, limits or GatewayLimits())
    routes.token = token.encode()
    routes.version = version or model_name
    return Application(routes.handle, routes.close)


class _ReplicaApp:
    token = b""
    version = ""

    def __init__(
        self, engine: Engine | Predictor, name: str, clock: Clock, limits: GatewayLimits
    ) -> None:
        self._engine = engine
        self._name = name
        self._clock = clock
        self._limits = limits
        self._since = int(clock.now())
        self._metrics = EngineMetrics(engine, name)
        self._prompter = Prompter(engine) if not hasattr(engine, "predict") else None

    async def close(self) -> None:
        if self._prompter is not None:
            self._prompter.close()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the request's own id or a new one."""
        own = header(scope, b"x-request-id") or b""
        request = own if _REQUEST_ID.fullmatch(own) else uuid.uuid4().hex.encode()

        async def identified(event: Any) -> None:  # noqa: ANN401 - ASGI's
            if event["type"] == "http.response.start":
                headers = [*event.get("headers", ()), (b"x-request-id", request)]
                event = {**event, "headers": headers}
            await send(event)

        try:
            await self._route(scope, receive, identified, request.decode())
        except ApiError as error:
            headers = error.headers()
            await answer(identified, error.status, encode(error.body()), headers)

    async def _route(self, scope: Scope, receive: Receive, send: Send, request: str) -> None:
        path, method = path_of(scope), scope["method"]
        if path in {"/health", "/ready"}:
            self._only("GET", method, path)
            why = health(self._engine) or (await self._unready() if path == "/ready" else "")
            await answer(send, 503 if why else 200, encode({"status": why or "ok"}))
            return
        self._check_token(scope)
        if path in _POSTS:
            self._only("POST", method, path)
            await self._post(path, scope, receive, send, request)
            return
        body, headers = self._page(path)
        if body is None:
            if _ELSEWHERE.fullmatch(path):
                raise _of_servers(path)
            raise unknown_url(method, path)
        self._only("GET", method, path)
        await answer(send, 200, body, headers)

    async def _unready(self) -> str:
        """Return why the engine makes no token, if it is one that does."""
        if hasattr(self._engine, "predict"):
            return ""
        engine: Any = self._engine
        try:
            tokens = engine.encode("1")
            async with aclosing(engine.generate(tokens, Sampling(max_tokens=1))) as pieces:
                await anext(pieces)
        except (RuntimeError, ValueError) as error:
            return f"asked for one token: {error}"
        return ""

    def _page(self, path: str) -> tuple[bytes | None, Headers]:
        if path == "/metrics":
            return self._metrics.text(), [CONTENT_TYPE]
        if path == "/v1/models":
            return encode({"object": "list", "data": [self._card()]}), []
        if path == "/stats":
            return encode(dict(getattr(self._engine, "statistics", dict)())), []
        if path.startswith(_CARD):
            self._check_model(path[len(_CARD) :])
            return encode(self._card()), []
        return None, []

    async def _post(
        self, path: str, scope: Scope, receive: Receive, send: Send, request: str
    ) -> None:
        body = await body_of(scope, receive, self._limits.body_bytes)
        with CancelScope(receive, _seconds(scope) or self._limits.request_seconds):
            if path == _PREDICT:
                reply = await self._predict(body)
            elif path in (_TOKENIZE, _DETOKENIZE):
                reply = await self._tokenize(path, body)
            else:
                reply = await self._generate(path, body, send, request)
        if reply is None:
            await end(send)
        else:
            await answer(send, 200, encode(reply))

    async def _predict(self, body: bytes) -> object:
        predict = getattr(self._engine, "predict", None)
        if predict is None:
            raise ApiError(400, "a language model has no /v1/predict", code="unsupported")
        try:
            inputs = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            message = f"the body is not valid JSON: {error}"
            raise ApiError(400, message, code="invalid_json") from error
        try:
            return await predict(inputs)
        except ValueError as error:
            raise ApiError(400, str(error)) from error
        except RuntimeError as error:
            raise ApiError(500, str(error), code="engine_failed") from error

    async def _tokenize(self, path: str, body: bytes) -> Json:
        engine, prompter = self._generator()
        if path == _TOKENIZE:
            return await tokenized(engine, prompter, self._name, body)
        return detokenized(engine, self._name, body)

    async def _generate(self, path: str, body: bytes, send: Send, request: str) -> Json | None:
        """Return the answer, or stream it but for its end and return nothing."""
        engine, prompter = self._generator()
        generation: GenerationRequest
        if path == _CHAT:
            generation = parse(ChatRequest, body)
            self._check_model(generation.model)
            choices = await prompter.chat(generation)
        else:
            generation = parse(CompletionRequest, body)
            self._check_model(generation.model)
            choices = await prompter.completion(generation)
        checked = self._checked(engine, generation, choices, request)
        self._metrics.prompt_tokens += checked.prompt_tokens
        if not generation.stream:
            return await whole(engine, checked)
        async with aclosing(events(engine, checked)) as stream:
            first = await anext(stream)
            counted = (b"x-prompt-tokens", b"%d" % checked.prompt_tokens)
            await begin(send, 200, [EVENTS, (b"cache-control", b"no-store"), counted])
            await add(send, first)
            async for event in stream:
                await add(send, event)
        return None

    def _checked(
        self,
        engine: Engine,
        generation: GenerationRequest,
        choices: Sequence[Choice],
        request: str,
    ) -> CheckedRequest:
        shape = _shape(engine, generation)
        each = generation.n or 1
        at_end = "end" if generation.include_usage else ""
        return CheckedRequest(
            shape,
            self._head(shape, generation, request),
            str(getattr(engine, "version", "") or self.version),
            choices,
            sum(len(choice.prompt) for choice in choices[::each]),
            "each" if generation.include_usage and generation.running_usage else at_end,
            _forced_by(generation),
        )

    def _head(self, shape: ChoiceShape, generation: GenerationRequest, request: str) -> Json:
        return {
            "id": f"{shape.prefix}{generation.request_id or request}",
            "object": shape.chunk if generation.stream else shape.whole,
            "created": int(self._clock.now()),
            "model": self._name,
        }

    def _generator(self) -> tuple[Engine, Prompter]:
        if self._prompter is None:
            message = "this endpoint is no language model: it answers at /v1/predict"
            raise ApiError(400, message, code="unsupported")
        engine: Any = self._engine
        return engine, self._prompter

    def _check_token(self, scope: Scope) -> None:
        if self.token and not hmac.compare_digest(bearer(scope).encode(), self.token):
            raise ApiError(401, "only the gateway may ask a replica", code="invalid_api_key")

    def _check_model(self, name: str) -> None:
        if name != self._name:
            raise unknown_model(name, repr(self._name))

    def _only(self, allowed: str, method: str, path: str) -> None:
        if method != allowed and (method, allowed) != ("HEAD", "GET"):
            raise wrong_method(method, path, allowed)

    def _card(self) -> Json:
        card = {"id": self._name, "object": "model", "created": self._since}
        longest = getattr(self._engine, "max_context", None)
        return {**card, "owned_by": "orchestrator", "max_model_len": longest}


def _seconds(scope: Scope) -> float:
    """Return how long the gateway lets an answer take; 0 where it does not say."""
    limit = header(scope, ANSWER_SECONDS.encode()) or b""
    return float(limit) if _NUMBER.fullmatch(limit) else 0.0


def _shape(engine: Engine, generation: GenerationRequest) -> ChoiceShape:
    chat = isinstance(generation, ChatRequest)
    style = Style(
        word=engine.token_bytes,
        logprobs=generation.alternatives,
        prompt_logprobs=generation.prompt_logprobs,
        echo=isinstance(generation, CompletionRequest) and bool(generation.echo),
        token_ids=bool(generation.return_token_ids),
        as_ids=bool(generation.return_tokens_as_token_ids),
        chosen=generation.chosen if isinstance(generation, ChatRequest) else "none",
    )
    return ChatShape(style) if chat else CompletionShape(style)


def _forced_by(generation: GenerationRequest) -> str | None:
    """Return the field that says what the answer must be like."""
    if generation.structured_outputs is not None:
        return "structured_outputs"
    if generation.response_format is not None:
        return "response_format"
    chosen = generation.chosen if isinstance(generation, ChatRequest) else "none"
    return None if chosen in ("none", "auto") else "tool_choice"


def _of_servers(path: str) -> ApiError:
    what = f"{path!r}: this engine has completions and chats alone; an engine server may have it"
    return ApiError(404, what, code="unsupported_endpoint")
