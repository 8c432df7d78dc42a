"""Messages, tools and formats of chats, as the official client sends and reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2 as httpx
import jsonschema
import openai
import pydantic
import pytest

from jobs.engines.echo import EchoEngine
from orchestrator.engine import Grammar
from orchestrator.serving.http.chat import Tool, grammar_of_calls
from orchestrator.serving.replica.app import replica
from tests.jobs.engines.tiny_llama import HARDWARE
from tests.serving.http_server import FixedClock, serving
from tests.serving.writing import Writing, chat, complete

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bern"}}</tool_call>'


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ({"role": "user", "content": [{"type": "image_url"}]}, "part 0 is of type 'image_url'"),
        ({"role": "user", "content": "a", "contnt": "b"}, "did you mean 'content'?"),
        ({"role": "user", "content": "a", "audio": {"id": "b"}}, "audio: .* is not supported"),
        ({"role": "assistant", "content": None}, "a message of 'assistant' needs content"),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "{"}}],
            },
            "arguments: should be a JSON text",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": '"\\ud800"'}}],
            },
            "arguments: should be a JSON text: .* surrogates not allowed",
        ),
    ],
)
def test_a_message_that_can_not_be_read_is_said_to_be_one(
    client: openai.OpenAI, message: Any, wrong: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=wrong) as refused:
        client.chat.completions.create(model="echo", messages=[message])
    assert refused.value.param == "messages"


def test_calls_and_their_results_reach_the_template(
    client: openai.OpenAI, engine: Writing
) -> None:
    function = {"name": "weather", "arguments": '{"city": "Bern"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    client.chat.completions.create(
        model="echo",
        messages=[
            {"role": "developer", "content": "Help."},
            {"role": "user", "content": [{"type": "text", "text": "How"}], "name": "eve"},
            {"role": "assistant", "tool_calls": [call], "refusal": None, "annotations": []},  # type: ignore[list-item, typeddict-unknown-key]
            {"role": "tool", "tool_call_id": "call_1", "content": "warm"},
        ],
        extra_body={"chat_template_kwargs": {"enable_thinking": False}},
    )
    ((messages, variables),) = engine.chats
    called = {**call, "function": {"name": "weather", "arguments": {"city": "Bern"}}}
    assert messages == [
        {"role": "system", "content": "Help."},
        {"role": "user", "content": "How", "name": "eve"},
        {"role": "assistant", "content": "", "tool_calls": [called]},
        {"role": "tool", "content": "warm", "tool_call_id": "call_1"},
    ]
    assert variables == {"enable_thinking": False, "add_generation_prompt": True}


def test_what_an_assistant_refused_is_what_it_said(client: openai.OpenAI, engine: Writing) -> None:
    told: list[Any] = [
        {"role": "assistant", "content": None, "refusal": "I can't."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "hi"},
    ]
    client.chat.completions.create(model="echo", messages=told)
    ((messages, _),) = engine.chats
    assert [one["content"] for one in messages] == ["I can't.", "No.", "hi"]
    assert not any("refusal" in one for one in messages)


def test_a_last_message_goes_on_where_it_is_asked(client: openai.OpenAI, engine: Writing) -> None:
    chat(client, extra_body={"continue_final_message": True})
    wanted = {"add_generation_prompt": False, "continue_final_message": True}
    assert engine.chats[0][1] == wanted


def test_a_call_in_an_answer_is_a_call_for_the_client(client: openai.OpenAI) -> None:
    (choice,) = chat(client, f"Well. {CALL}", tools=[TOOL]).choices
    (call,) = choice.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bern"}')
    assert (choice.message.content.strip(), choice.finish_reason) == ("Well.", "tool_calls")
    (plain,) = chat(client, CALL, tools=[TOOL], tool_choice="none").choices
    assert (plain.message.content.strip(), plain.message.tool_calls) == (CALL, None)


def test_the_clients_own_reader_of_streams_finds_the_call(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="echo",
        messages=[{"role": "user", "content": CALL}],
        tools=[TOOL],  # type: ignore[list-item]
    ) as stream:
        for _ in stream:
            pass
        (choice,) = stream.get_final_completion().choices
    (call,) = choice.message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Bern"}')
    assert choice.finish_reason == "tool_calls"


def test_a_call_that_must_come_is_one_by_its_grammar(
    client: openai.OpenAI, engine: Writing
) -> None:
    text = '[{"name": "weather", "arguments": {}}]'
    (choice,) = chat(client, text, tools=[TOOL], tool_choice="required").choices
    assert choice.message.tool_calls[0].function.name == "weather"
    assert choice.finish_reason == "tool_calls"
    named = {"type": "function", "function": {"name": "weather"}}
    (choice,) = chat(client, '{"city": "Bern"}', tools=[TOOL], tool_choice=named).choices
    assert json.loads(choice.message.tool_calls[0].function.arguments) == {"city": "Bern"}
    listed, single = (sampling.grammar for sampling in engine.samplings)
    assert listed is not None
    assert json.loads(listed.text)["items"]["anyOf"][0]["properties"]["name"]["const"] == "weather"
    assert single == Grammar("json_schema", json.dumps(TOOL["function"]["parameters"]))  # type: ignore[index]


def test_tools_that_the_template_does_not_know_are_refused() -> None:
    with (
        serving(replica(EchoEngine(Path(), HARDWARE), "echo", FixedClock())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="template knows none") as refused,
    ):
        chat(client, tools=[TOOL])
    assert (refused.value.param, refused.value.code) == ("tools", "unsupported_parameter")


class CityInAnswer(pydantic.BaseModel):
    city: str


def test_the_client_parses_by_a_schema(client: openai.OpenAI, engine: Writing) -> None:
    answer = client.chat.completions.parse(
        model="echo",
        messages=[{"role": "user", "content": '{"city": "Bern"}'}],
        response_format=CityInAnswer,
    )
    assert answer.choices[0].message.parsed == CityInAnswer(city="Bern")
    (sampling,) = engine.samplings
    assert sampling.grammar is not None
    assert json.loads(sampling.grammar.text)["required"] == ["city"]


@pytest.mark.parametrize(
    ("asked", "grammar"),
    [
        ({"json": {"type": "string"}}, Grammar("json_schema", '{"type": "string"}')),
        ({"regex": "a+"}, Grammar("regex", "a+")),
        ({"choice": ["a", "b"]}, Grammar("choice", '["a", "b"]')),
        ({"grammar": "root: x"}, Grammar("grammar", "root: x")),
        ({"json_object": True}, Grammar("json_object")),
    ],
)
def test_structured_outputs_are_grammars(
    client: openai.OpenAI, engine: Writing, asked: object, grammar: Grammar
) -> None:
    complete(client, extra_body={"structured_outputs": asked})
    assert engine.samplings[0].grammar == grammar


@pytest.mark.parametrize(
    ("kind", "grammar"), [("json_object", Grammar("json_object")), ("text", None)]
)
def test_a_response_format_is_a_grammar_of_either_route(
    client: openai.OpenAI, engine: Writing, kind: str, grammar: Grammar | None
) -> None:
    chat(client, response_format={"type": kind})
    complete(client, extra_body={"response_format": {"type": kind}})
    assert [sampling.grammar for sampling in engine.samplings] == [grammar, grammar]


NODE = {
    "type": "object",
    "properties": {"next": {"$ref": "#/$defs/Node"}, "like": {"$ref": "#"}},
    "additionalProperties": False,
}
TREE = {
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/Node"}, "const": {"const": {"$ref": "#/x"}}},
    "additionalProperties": False,
    "$defs": {"Node": NODE},
}
CITY: dict[str, Any] = {"type": "object", "required": ["city"], "$ref": "#/definitions/City"}
CITY["definitions"] = {"City": {"properties": {"city": {"enum": ["Bern"]}}}}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tree", {}),
        ("tree", {"node": {"next": {"next": {}}, "like": {"node": {}}}}),
        ("tree", {"node": {"next": 1}}),
        ("tree", {"node": {"like": {"next": {}}}}),
        ("tree", {"const": {"$ref": "#/x"}}),
        ("city", {"city": "Bern"}),
        ("city", {"city": "Zug"}),
        ("city", {}),
    ],
)
def test_schemas_of_tools_mean_in_a_list_of_calls_what_they_mean_alone(
    name: str, arguments: object
) -> None:
    named = {"$id": "http://a/tree", "$schema": "https://json-schema.org/draft/2020-12/schema"}
    schemas: dict[str, Any] = {"tree": {**named, **TREE}, "city": CITY}
    tools = [
        Tool.model_validate({"type": "function", "function": {"name": n, "parameters": s}})
        for n, s in schemas.items()
    ]
    grammar = grammar_of_calls(tools, "required", several=True)
    assert grammar is not None
    alone = jsonschema.Draft202012Validator(schemas[name]).is_valid(arguments)
    listed = jsonschema.Draft202012Validator(json.loads(grammar.text))
    assert listed.is_valid([{"name": name, "arguments": arguments}]) is alone


def test_an_engine_that_names_no_weights_answers_with_the_replicas_own_name() -> None:
    engine = Writing()
    engine.version = None  # type: ignore[assignment]  # as an engine of somebody else has it
    with serving(replica(engine, "echo", FixedClock(), version="v7")) as url:
        answer = httpx.post(f"{url}/v1/completions", json={"model": "echo", "prompt": "a"})
    assert answer.json()["system_fingerprint"] == "v7"
