"""The table of fields against those who made the API: the official client, and vLLM."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from openai.resources.chat.completions import Completions as Chats
from openai.resources.completions import Completions

from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.api_page import page
from orchestrator.serving.http.chat import Message
from orchestrator.serving.http.request_fields import CHAT, COMPLETION, MESSAGE, Fields, admitted
from orchestrator.serving.http.requests import ChatRequest, CompletionRequest, parse

OF_THE_CLIENT = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}
# Written down from vLLM 0.32.0, `vllm/entrypoints/openai/*/protocol.py`.
OF_VLLM = [
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "model",
    "n",
    "presence_penalty",
    "response_format",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "temperature",
    "top_p",
    "user",
    "use_beam_search",
    "top_k",
    "min_p",
    "repetition_penalty",
    "watermarking",
    "length_penalty",
    "stop_token_ids",
    "include_stop_str_in_output",
    "ignore_eos",
    "min_tokens",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "truncate_prompt_tokens",
    "truncation_side",
    "prompt_logprobs",
    "logprob_token_ids",
    "allowed_token_ids",
    "bad_words",
    "echo",
    "add_special_tokens",
    "structured_outputs",
    "priority",
    "request_id",
    "session_id",
    "return_tokens_as_token_ids",
    "return_token_ids",
    "routed_experts_prompt_start",
    "return_token_offsets",
    "mm_payload",
    "return_mm_kwargs",
    "cache_salt",
    "kv_transfer_params",
    "ec_transfer_params",
    "vllm_xargs",
    "repetition_detection",
    "stream_interval",
    "thinking_token_budget",
]
OF_VLLM_COMPLETIONS = ["prompt", "suffix", "prompt_embeds"]
OF_VLLM_CHATS = [
    "messages",
    "top_logprobs",
    "max_completion_tokens",
    "tools",
    "tool_choice",
    "reasoning_effort",
    "include_reasoning",
    "parallel_tool_calls",
    "add_generation_prompt",
    "continue_final_message",
    "documents",
    "chat_template",
    "chat_template_kwargs",
    "media_io_kwargs",
    "mm_processor_kwargs",
    "return_prompt_text",
]


def parameters(create: object) -> set[str]:
    return set(inspect.signature(create).parameters) - OF_THE_CLIENT  # type: ignore[arg-type]


def test_all_that_the_official_client_can_send_is_in_the_table() -> None:
    assert parameters(Completions.create) <= set(COMPLETION)
    assert parameters(Chats.create) <= set(CHAT)
    assert parameters(Chats.parse) <= set(CHAT)


def test_all_that_vllm_takes_is_in_the_table() -> None:
    assert {*OF_VLLM, *OF_VLLM_COMPLETIONS} <= set(COMPLETION)
    assert {*OF_VLLM, *OF_VLLM_CHATS} <= set(CHAT)


@pytest.mark.parametrize(
    ("fields", "kind"), [(COMPLETION, CompletionRequest), (CHAT, ChatRequest), (MESSAGE, Message)]
)
def test_what_is_done_is_what_a_request_has(fields: Fields, kind: type) -> None:
    done = {name for name, field in fields.items() if field.state == "done"}
    assert done == set(kind.model_fields)  # type: ignore[attr-defined]


def test_values_that_ask_for_nothing_pass_and_others_do_not() -> None:
    for fields in (COMPLETION, CHAT, MESSAGE):
        for name, field in fields.items():
            if field.state != "refused":
                continue
            for value in field.neutral:
                assert admitted(fields, {name: value}) == {}
            for value in ("something", 17, [{"some": "thing"}], {"some": "thing"}):
                with pytest.raises(ApiError, match=f"{name}: .* not supported") as refused:
                    admitted(fields, {name: value})
                assert (refused.value.status, refused.value.param) == (400, name)
                assert refused.value.code == "unsupported_parameter"


@pytest.mark.parametrize("name", ["web_search_options", "moderation"])
def test_what_an_empty_object_asks_for_is_refused_and_its_absence_is_not(name: str) -> None:
    message = {"role": "user", "content": "a"}
    body = {"model": "m", "messages": [message]}
    assert parse(ChatRequest, json.dumps({**body, name: None}).encode()).messages
    with pytest.raises(ApiError, match=f"{name}: {{}} is not supported by this engine"):
        parse(ChatRequest, json.dumps({**body, name: {}}).encode())


def test_one_is_no_true_and_zero_no_false() -> None:
    assert admitted(COMPLETION, {"length_penalty": 1, "stream_interval": 1.0}) == {}
    for body in ({"suffix": 0}, {"skip_special_tokens": 1}, {"stream_interval": True}):
        with pytest.raises(ApiError):
            admitted(COMPLETION, body)


def test_what_is_inert_takes_any_value() -> None:
    body = b'{"model": "m", "prompt": "a", "user": [1], "cache_salt": {"a": 1}}'
    assert parse(CompletionRequest, body).prompts == ["a"]


def test_the_page_of_the_docs_is_that_of_the_table() -> None:
    assert Path("docs/api.md").read_text() == page()
