"""What the API says is done, by the embedded engine; transformers and the client judge."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pydantic
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from jobs.engines.embedded import EmbeddedEngine
from orchestrator.serving.replica.app import replica
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama
from tests.serving.http_server import FixedClock, serving

TEMPLATE = (
    "{% if tools %}{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.content == 'add' %}{{ m.content + 1 }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.arguments.city }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Bern", "Basel"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
USER: Any = [{"role": "user", "content": "2+2="}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_llama(tmp_path_factory.mktemp("model"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[openai.OpenAI]:
    engine = EmbeddedEngine(folder, HARDWARE, threads=1)
    with (
        serving(replica(engine, "tiny", FixedClock())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client
    engine.close()


def test_an_echo_has_the_log_probabilities_of_transformers(
    client: openai.OpenAI, folder: Path
) -> None:
    text = "The café — 2+2=4"
    answer = client.completions.create(
        model="tiny", prompt=text, echo=True, logprobs=1, max_tokens=0
    )
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason) == (text, "length")
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt").input_ids
    with torch.inference_mode():
        logs = AutoModelForCausalLM.from_pretrained(folder)(ids).logits[0].log_softmax(-1)
    expected = [float(logs[place, token]) for place, token in enumerate(ids[0, 1:])]
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs is not None
    assert choice.logprobs.token_logprobs[0] is None
    assert choice.logprobs.token_logprobs[1:] == pytest.approx(expected, abs=1e-4)


def test_choices_differ_and_seeds_repeat_them(client: openai.OpenAI) -> None:
    one, two = (
        client.completions.create(model="tiny", prompt="2+2=", n=3, seed=4, max_tokens=24)
        for _ in range(2)
    )
    assert [choice.text for choice in one.choices] == [choice.text for choice in two.choices]
    assert len({choice.text for choice in one.choices}) == 3


def test_a_chat_fills_the_context_at_most(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "x" * 480}]
    answer = client.chat.completions.create(model="tiny", messages=messages, temperature=0)
    assert answer.usage is not None
    assert answer.usage.total_tokens <= 512


def test_the_bytes_of_tokens_are_those_of_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=USER, max_tokens=40, logprobs=True, seed=3
    )
    (choice,) = answer.choices
    assert choice.logprobs is not None
    told = [bytes(token.bytes or ()) for token in choice.logprobs.content or ()]
    assert b"".join(told).decode(errors="replace").startswith(choice.message.content or "")


def test_a_template_that_fails_in_any_way_is_a_bad_request(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "add"}]
    with pytest.raises(openai.BadRequestError, match="TypeError") as refused:
        client.chat.completions.create(model="tiny", messages=messages)
    assert refused.value.param == "messages"


class WhetherOpen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    open: bool
    kind: str = pydantic.Field(json_schema_extra={"enum": ["bank", "park"]})


def test_the_client_parses_what_a_schema_made(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="tiny", messages=USER, response_format=WhetherOpen, max_tokens=200, seed=1
    )
    assert answer.choices[0].message.parsed is not None
    assert answer.choices[0].message.parsed.kind in ("bank", "park")


def test_calls_that_must_come_come_by_their_schema(client: openai.OpenAI) -> None:
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        answer = client.chat.completions.create(
            model="tiny",
            messages=USER,
            tools=[TOOL],
            tool_choice=choice,  # type: ignore[arg-type]
            parallel_tool_calls=False,
            max_tokens=300,
            seed=2,
        )
        (call,) = answer.choices[0].message.tool_calls or ()
        assert call.type == "function"
        assert json.loads(call.function.arguments)["city"] in ("Bern", "Basel")


class Stop(pydantic.BaseModel):
    city: Literal["Bern", "Basel"]


class Travel(pydantic.BaseModel):
    first: Stop
    also: Stop


def test_calls_come_by_a_schema_whose_parts_refer_to_each_other(client: openai.OpenAI) -> None:
    tools: Any = [openai.pydantic_function_tool(Travel)]
    assert "$defs" in tools[0]["function"]["parameters"]
    answer = client.chat.completions.create(
        model="tiny",
        messages=USER,
        tools=tools,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=300,
        seed=2,
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function"
    Travel.model_validate_json(call.function.arguments)


def test_calls_in_the_history_reach_the_prompt(client: openai.OpenAI) -> None:
    function = {"name": "weather", "arguments": '{"city": "Zug"}'}
    messages: Any = [
        *USER,
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "warm"},
    ]
    answer = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=1, extra_body={"return_token_ids": True}
    )
    told = client.post(
        str(client.base_url).replace("/v1/", "/detokenize"),
        body={"tokens": answer.prompt_token_ids},  # type: ignore[attr-defined]
        cast_to=dict[str, str],
    )
    assert told["prompt"] == "user: 2+2=assistant: Zugtool: warmassistant:"


def test_a_special_token_without_a_row_ends_that_request_alone(
    folder: Path, tmp_path: Path
) -> None:
    save_tiny_llama(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<extra>"]})
    tokenizer.save_pretrained(tmp_path)
    engine = EmbeddedEngine(tmp_path, HARDWARE, threads=1)
    with (
        serving(replica(engine, "tiny", FixedClock())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(openai.BadRequestError, match="no token 257; the model has 257"):
            client.completions.create(model="tiny", prompt="a<extra>b")
        answer = client.completions.create(model="tiny", prompt="ab", max_tokens=2)
        assert answer.usage is not None
        assert answer.usage.completion_tokens >= 1
    engine.close()
