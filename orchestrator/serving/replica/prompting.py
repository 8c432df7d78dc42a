"""From requests to what the engine is asked: prompts as tokens, checked and with room to answer.

Text is tokenised in a thread of its own, so that no stream waits for it; and text that is too long
for the context whatever its tokens are is refused before.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from orchestrator.engine import Engine, Grammar
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.chat import described, grammar_of_calls
from orchestrator.serving.http.requests import ChatRequest, CompletionRequest
from orchestrator.serving.replica.replies import Choice

Encoded = TypeVar("Encoded")

_AT_ONCE = 2048  # characters that are tokenised sooner than a thread is asked
# What `apply_chat_template` of transformers takes itself: none of the template's business.
_RESERVED = frozenset(
    {"conversation", "messages", "tools", "documents", "chat_template", "tokenize", "padding"}
    | {"truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"}
    | {"add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"}
)


class Prompter:
    """Makes prompts of requests to one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "tokenizer")
        self._takes_tools = False

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def completion(self, request: CompletionRequest) -> list[Choice]:
        """Return what is asked for each choice of a completion.

        Raises:
            ApiError: A prompt does not fit.
        """
        special = request.add_special_tokens is not False
        choices: list[Choice] = []
        grammar = request.grammar()
        for prompt in request.prompts:
            tokens = await self._tokens(prompt, special=special)
            text = ""
            if request.echo:
                text = prompt if isinstance(prompt, str) else self._engine.decode(tokens)
            choices += self._choices(request, tokens, text, grammar)
        return choices

    async def chat(self, request: ChatRequest) -> list[Choice]:
        """Return what is asked for each choice of a chat.

        Raises:
            ApiError: The template refuses the messages, or they don't fit.
        """
        tokens = await self.chat_tokens(request)
        several = request.parallel_tool_calls is not False
        called = grammar_of_calls(request.tools or (), request.chosen, several=several)
        return self._choices(request, tokens, "", called or request.grammar())

    async def chat_tokens(self, request: ChatRequest) -> list[int]:
        """Return the prompt of a chat."""
        messages = [message.plain() for message in request.messages]
        variables: dict[str, object] = {}
        for name, value in (request.chat_template_kwargs or {}).items():
            if name in _RESERVED:
                message = f"chat_template_kwargs: {name!r} is no variable of templates"
                raise ApiError(400, message, param="chat_template_kwargs")
            variables[name] = value
        begins = request.add_generation_prompt is not False and not request.continue_final_message
        variables["add_generation_prompt"] = begins
        if request.continue_final_message:
            variables["continue_final_message"] = True
        length = sum(len(json.dumps(message, ensure_ascii=False)) for message in messages)
        if request.tools:
            tools = described(request.tools)
            await self._check_tools(messages, variables, tools)
            variables["tools"] = tools
            length += len(json.dumps(tools, ensure_ascii=False))
        return await self._chat(messages, variables, length)

    async def text_tokens(self, text: str, *, special: bool) -> list[int]:
        """Return the tokens of a text."""
        self._check_length(len(text), "prompt")
        return await self._away(lambda: self._engine.encode(text, special=special), len(text))

    async def _tokens(self, prompt: str | list[int], *, special: bool) -> list[int]:
        if isinstance(prompt, str):
            return await self.text_tokens(prompt, special=special)
        check_tokens(self._engine, prompt, "prompt")
        return prompt

    async def _chat(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object],
        length: int,
    ) -> list[int]:
        self._check_length(length, "messages")
        try:
            return await self._away(lambda: self._engine.encode_chat(messages, variables), length)
        except ValueError as error:
            raise ApiError(400, str(error), param="messages") from error

    async def _check_tools(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object],
        tools: Sequence[Mapping[str, object]],
    ) -> None:
        """Refuse tools where they don't reach the prompt."""
        if self._takes_tools:
            return
        length = len(json.dumps([*messages, *tools]))
        without = await self._chat(messages, variables, length)
        if await self._chat(messages, {**variables, "tools": tools}, length) == without:
            what = "tools: the model's chat template knows none"
            raise ApiError(400, what, param="tools", code="unsupported_parameter")
        self._takes_tools = True

    async def _away(self, act: Callable[[], Encoded], length: int) -> Encoded:
        if length <= _AT_ONCE:
            return act()
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)

    def _check_length(self, length: int, param: str) -> None:
        engine = self._engine
        most = engine.max_context * engine.longest_token
        if length > most:
            room = f"the model has room for {engine.max_context} tokens, {most} characters at most"
            what = f"{room}, not for {length}"
            raise ApiError(400, what, param=param, code="context_length_exceeded")

    def _choices(
        self,
        request: CompletionRequest | ChatRequest,
        tokens: Sequence[int],
        text: str,
        grammar: Grammar | None,
    ) -> list[Choice]:
        engine = self._engine
        room = _room(engine, tokens, request.limit, request.source)
        named = (*(request.stop_token_ids or ()), *(request.logit_bias or ()))
        field = "stop_token_ids" if request.stop_token_ids else "logit_bias"
        check_tokens(engine, named, field)
        return [
            Choice(tokens, request.sampling(choice, room, engine.defaults, grammar), text)
            for choice in range(request.n or 1)
        ]


def check_tokens(engine: Engine, tokens: Sequence[int], param: str) -> None:
    """Refuse tokens that the model has no row for.

    Raises:
        ApiError: There is one.
    """
    unknown = next((token for token in tokens if token >= engine.vocabulary), None)
    if unknown is not None:
        rows = f"the model has {engine.vocabulary} tokens"
        raise ApiError(400, f"{param}: no token {unknown}; {rows}", param=param)


def _room(engine: Engine, prompt: Sequence[int], wanted: int | None, param: str) -> int:
    """Return how many tokens may follow `prompt`, which field `param` has made.

    Where the client says no number, it is the model's own default, as far as there is room.
    """
    left = engine.max_context - len(prompt)
    if not prompt:
        raise ApiError(400, "the prompt has no tokens", param=param)
    check_tokens(engine, prompt, param)  # a tokenizer may know more than the model
    least = 1 if wanted is None else wanted
    if left < least:
        asked = f"{len(prompt)} tokens in the prompt and {least} in the answer"
        message = f"the model has room for {engine.max_context} tokens, not for {asked}"
        raise ApiError(400, message, code="context_length_exceeded")
    return min(left, int(engine.defaults.get("max_tokens", left))) if wanted is None else wanted
