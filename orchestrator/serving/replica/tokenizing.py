"""`/tokenize` and `/detokenize`, as vLLM has them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from orchestrator.engine import Engine
from orchestrator.serving.http.api_errors import ApiError, unknown_model
from orchestrator.serving.http.bodies import json_object
from orchestrator.serving.http.request_fields import CHAT, Fields, admitted
from orchestrator.serving.http.request_fields import Field as Known
from orchestrator.serving.http.requests import ChatRequest, Token, validated
from orchestrator.serving.replica.prompting import Prompter, check_tokens
from orchestrator.serving.replica.replies import Style

_STRICT = ConfigDict(strict=True, frozen=True)
_CHATTING = (
    "model",
    "messages",
    "tools",
    "add_generation_prompt",
    "continue_final_message",
    "chat_template_kwargs",
)
_TEXT: Fields = {
    name: Known("done") for name in ("model", "prompt", "add_special_tokens", "return_token_strs")
}
_CHAT: Fields = {
    **{name: CHAT[name] for name in _CHATTING},
    **{name: CHAT[name] for name in ("add_special_tokens", "chat_template")},
    "return_token_strs": Known("done"),
}
_TOKENS: Fields = {name: Known("done") for name in ("model", "tokens")}


class TokenizeRequest(BaseModel):
    """Body of `POST /tokenize`, where it has a text."""

    model_config = _STRICT

    model: str | None = None
    prompt: str
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(BaseModel):
    """Body of `POST /detokenize`."""

    model_config = _STRICT

    model: str | None = None
    tokens: Annotated[list[Token], Field(max_length=1 << 20, fail_fast=True)]


async def tokenized(engine: Engine, prompter: Prompter, name: str, body: bytes) -> dict[str, Any]:
    """Return the tokens of a text, or of a chat up to where the answer begins.

    Raises:
        ApiError: The request is malformed, or the template refuses it.
    """
    fields = json_object(body)
    if "messages" in fields:
        kept = admitted(_CHAT, fields)
        strings = kept.pop("return_token_strs", None) is True
        asked = validated(ChatRequest, {"model": name, **kept}, len(body))
        asked.check()
        _check_model(asked.model, name)
        tokens = await prompter.chat_tokens(asked)
    else:
        text = validated(TokenizeRequest, admitted(_TEXT, fields), len(body))
        _check_model(text.model, name)
        strings = bool(text.return_token_strs)
        special = text.add_special_tokens is not False
        tokens = await prompter.text_tokens(text.prompt, special=special)
    style = Style(word=engine.token_bytes)
    return {
        "count": len(tokens),
        "max_model_len": engine.max_context,
        "tokens": tokens,
        "token_strs": [style.name(token) for token in tokens] if strings else None,
    }


def detokenized(engine: Engine, name: str, body: bytes) -> dict[str, Any]:
    """Return the text of tokens.

    Raises:
        ApiError: The request is malformed, or there is no such token.
    """
    asked = validated(DetokenizeRequest, admitted(_TOKENS, json_object(body)), len(body))
    _check_model(asked.model, name)
    check_tokens(engine, asked.tokens, "tokens")
    try:
        return {"prompt": engine.decode(asked.tokens)}
    except ValueError as error:
        raise ApiError(400, str(error), param="tokens") from error


def _check_model(model: str | None, name: str) -> None:
    if model not in (None, name):
        raise unknown_model(str(model), repr(name))
