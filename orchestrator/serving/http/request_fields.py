"""Every request field of OpenAI's and vLLM's API, and what a replica with an engine of ours does.

A field is **done**; or **inert**: it asks for nothing that changes an answer; or **refused**,
unless its value asks for nothing. What stands nowhere here is refused too. The parser, the OpenAPI
document and `docs/api.md` are made of this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from orchestrator.core.nearest import nearest
from orchestrator.serving.http.api_errors import ApiError

State: TypeAlias = Literal["done", "inert", "refused"]

_NOTHING: tuple[object, ...] = (None, False, [], {}, "")


@dataclass(frozen=True, slots=True)
class Field:
    """What becomes of a field; `neutral` are the values of a refused one that ask for nothing."""

    state: State
    note: str = ""
    neutral: tuple[object, ...] = _NOTHING

    def asks(self, value: object) -> bool:
        """Return whether `value` asks for something that is refused."""
        alike = (value == other and type(value) is type(other) for other in self.neutral)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        numbers = (n for n in self.neutral if type(n) in (int, float))
        return not (any(alike) or (number and value in numbers))


Fields: TypeAlias = Mapping[str, Field]


def _done(**notes: str) -> Fields:
    return {name: Field("done", note) for name, note in notes.items()}


def _inert(*names: str) -> Fields:
    return {name: Field("inert") for name in names}


def _refused(*names: str, **neutral: object) -> Fields:
    """Return refused fields; those with a further neutral value are named with it."""
    plain = {name: Field("refused") for name in names}
    return plain | {
        name: Field("refused", neutral=(*_NOTHING[:1], value)) for name, value in neutral.items()
    }


_BOTH: Fields = {
    **_done(
        model="the endpoint's name",
        n="1 to 16 answers; each is drawn by a seed of its own",
        stream="server-sent events",
        stream_options="`include_usage`, `continuous_usage_stats`",
        temperature="< 1e-5 is greedy; by default the model's `generation_config.json`, else 1",
        top_p="by default the model's, else 1",
        top_k="0 or -1 are all; by default the model's",
        min_p="by default the model's, else 0",
        seed="any integer of 64 bits; -1 is none",
        stop="a text, or up to 4",
        stop_token_ids="beside the model's own ends",  # noqa: S106 - no password, as below
        include_stop_str_in_output="the stop string stays in the answer",
        ignore_eos="the model's own ends are tokens like others",
        min_tokens="before so many nothing ends the answer",
        presence_penalty="-2 to 2",
        frequency_penalty="-2 to 2",
        repetition_penalty="over 0; by default the model's, else 1",
        logit_bias="by token id, -100 to 100",
        max_tokens="by default 16 of a completion; of a chat the model's own, else all that fits",
        prompt_logprobs="log-probabilities of the prompt, in vLLM's shape; not in a stream",
        return_token_ids="`prompt_token_ids` and `token_ids`, as in vLLM",  # noqa: S106
        return_tokens_as_token_ids="log-probabilities name tokens `token_id:N`",  # noqa: S106
        response_format="`text`, `json_object`, `json_schema`",
        structured_outputs="`json`, `json_object`, `regex`, `choice` or `grammar`",
        request_id="names the answer, as the header `x-request-id` does",
    ),
    **_inert("user", "session_id", "cache_salt"),
    "priority": Field("inert", "orders the requests of a key where they wait at the gateway"),
    **_refused(
        "watermarking",
        "use_beam_search",
        "logprob_token_ids",
        "allowed_token_ids",
        "bad_words",
        "return_token_offsets",
        "truncate_prompt_tokens",
        "truncation_side",
        "thinking_token_budget",
        "return_mm_kwargs",
        "kv_transfer_params",
        "ec_transfer_params",
        "vllm_xargs",
        "repetition_detection",
        length_penalty=1.0,
        skip_special_tokens=True,
        spaces_between_special_tokens=True,
        routed_experts_prompt_start=0,
        mm_payload="tensors",
        stream_interval=1,
    ),
}

COMPLETION: Fields = {
    **_BOTH,
    **_done(
        prompt="a text, token ids, or up to 64 of these",
        echo="the prompt stands before the answer; with `logprobs` its own too",
        logprobs="of that many likeliest tokens, 0 to 20",
        add_special_tokens="whether the prompt gets those that the model expects; yes by default",
    ),
    **_refused("suffix", "prompt_embeds", best_of=1),
}

CHAT: Fields = {
    **_BOTH,
    **_done(
        messages="with text, tool calls and their results",
        max_completion_tokens="wins over `max_tokens`",
        logprobs="whether log-probabilities come",
        top_logprobs="of that many likeliest tokens, 0 to 20",
        tools="given to the chat template; refused where the model's knows none",
        tool_choice="`none`, `auto` (calls in `<tool_call>`), `required`, or a function's name",
        parallel_tool_calls="false: one call at most",
        add_generation_prompt="given to the chat template; yes by default",
        continue_final_message="the answer goes on with the last message",
        chat_template_kwargs="given to the chat template",
    ),
    **_inert(
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
    ),
    **_refused(
        "audio",
        "function_call",
        "functions",
        "echo",
        "add_special_tokens",
        "documents",
        "chat_template",
        "media_io_kwargs",
        "mm_processor_kwargs",
        "return_prompt_text",
        modalities=["text"],
        reasoning_effort="none",
        verbosity="medium",
        include_reasoning=True,
        moderation=None,  # an empty object asks for it
        web_search_options=None,
    ),
}

MESSAGE: Fields = {
    **_done(
        role="`system`, `developer` (taken as `system`), `user`, `assistant`, `tool`",
        content="a text, or parts of `type` `text` (or `refusal`)",
        refusal="of an assistant: what it said in place of an answer",
        name="given to the chat template",
        tool_calls="of an assistant; `arguments` reach the template parsed",
        tool_call_id="of a tool's result",
        reasoning="given to the chat template",
        reasoning_content="given to the chat template",
    ),
    **_inert("annotations"),
    **_refused("audio", "function_call"),
}


def admitted(fields: Fields, body: Mapping[str, object], where: str = "") -> dict[str, object]:
    """Return the fields of `body` that are done.

    Raises:
        ApiError: One asks for what is not done, or is unknown.
    """
    kept: dict[str, object] = {}
    for name, value in body.items():
        field = fields.get(name)
        if field is None:
            raise _unknown(fields, name, where)
        if field.state == "done":
            kept[name] = value
        elif field.state == "refused" and field.asks(value):
            shown = repr(value) if len(repr(value)) <= _SHOWN else "what it asks for"
            what = f"{where}{name}: {shown} is not supported by this engine; leave it out"
            raise _unsupported(what, where, name)
    return kept


_SHOWN = 60


def _unknown(fields: Fields, name: str, where: str) -> ApiError:
    like = nearest(name, fields) if len(name) <= _SHOWN else None
    hint = f"; did you mean {like!r}?" if like else ""
    shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}..."
    return _unsupported(f"{where}{shown!r}: no such field{hint}", where, shown)


def _unsupported(message: str, where: str, name: str) -> ApiError:
    param = where.partition(".")[0] or name
    return ApiError(400, message, param=param, code="unsupported_parameter")
