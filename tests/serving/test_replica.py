"""The gateway as the official client sees it, in front of an engine that echoes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2 as httpx
import openai
import pytest

from jobs.engines.echo import EchoEngine
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.request_limits import GatewayLimits
from orchestrator.serving.replica.app import replica
from tests.jobs.engines.tiny_llama import HARDWARE
from tests.serving.http_server import (
    Board,
    FixedClock,
    becomes_idle,
    gateway_of,
    revision,
    serving,
)

BODY_LIMIT = 10_000


@pytest.fixture(scope="module")
def engine() -> EchoEngine:
    return EchoEngine(Path(), HARDWARE, max_context=100)


@pytest.fixture(scope="module")
def url(engine: EchoEngine) -> Iterator[str]:
    with serving(
        replica(engine, "echo", FixedClock(), limits=GatewayLimits(body_bytes=BODY_LIMIT))
    ) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_model_is_listed_by_its_name(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]
    assert client.models.retrieve("echo").created == 1_700_000_000


def test_a_completion_answers_with_text_and_usage(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt="héllo 日本", max_tokens=50)
    assert answer.object == "text_completion"
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == ("héllo 日本", "stop", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (8, 8)


def test_a_completion_has_16_tokens_unless_told(client: openai.OpenAI) -> None:
    (choice,) = client.completions.create(model="echo", prompt="a" * 20).choices
    assert (choice.text, choice.finish_reason) == ("a" * 16, "length")


def test_each_prompt_has_n_choices_in_order(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt=["one", "two"], n=2)
    assert [choice.text for choice in answer.choices] == ["one", "one", "two", "two"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]


def test_prompts_may_be_token_ids(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt=[104, 105])
    assert answer.choices[0].text == "hi"
    answer = client.completions.create(model="echo", prompt=[[104], [105]])
    assert [choice.text for choice in answer.choices] == ["h", "i"]


def test_a_stop_string_ends_the_answer(client: openai.OpenAI) -> None:
    (choice,) = client.completions.create(
        model="echo", prompt="1, 2, 3", stop=["x", ", 3"]
    ).choices
    assert (choice.text, choice.finish_reason) == ("1, 2", "stop")


def test_a_chat_answers_with_a_message(client: openai.OpenAI) -> None:
    messages = [
        {"role": "developer", "content": "Echo."},
        {"role": "user", "content": [{"type": "text", "text": "ping"}]},
    ]
    answer = client.chat.completions.create(model="echo", messages=messages, logprobs=False)  # type: ignore[arg-type]
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "ping")
    assert choice.finish_reason == "stop"


def test_the_newer_limit_of_a_chat_wins(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "abcdef"}]
    answer = client.chat.completions.create(
        model="echo",
        messages=messages,
        max_tokens=5,
        max_completion_tokens=2,  # type: ignore[arg-type]
    )
    assert answer.choices[0].message.content == "ab"
    assert answer.choices[0].finish_reason == "length"


def test_a_completion_streams_the_same_text_and_its_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="echo", prompt="stream", stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(c.choices[0].text for c in chunks[:-1]) == "stream"
    assert [c.usage for c in chunks[:-1]] == [None] * 6
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 12
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_chat_streams_its_role_first(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "ping"}]
    stream = client.chat.completions.create(model="echo", messages=messages, stream=True, n=2)  # type: ignore[call-overload]
    chunks = list(stream)
    assert [chunk.choices[0].delta.role for chunk in chunks[:2]] == ["assistant", "assistant"]
    for index in (0, 1):
        mine = [c.choices[0] for c in chunks if c.choices[0].index == index]
        assert "".join(choice.delta.content or "" for choice in mine) == "ping"
        assert mine[-1].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_completion_logprobs_have_their_old_shape(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt="né", logprobs=1)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["n", "é"]
    assert logprobs.token_logprobs == [0, 0]
    assert logprobs.top_logprobs == [{"n": 0}, {"é": 0}]
    assert logprobs.text_offset == [0, 1]
    stream = client.completions.create(model="echo", prompt="né", logprobs=1, stream=True)
    offsets = [chunk.choices[0].logprobs for chunk in stream]
    assert [found.text_offset for found in offsets if found] == [[0], [1]]


def test_chat_logprobs_have_their_new_shape(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "é"}]
    answer = client.chat.completions.create(
        model="echo",
        messages=messages,
        logprobs=True,
        top_logprobs=1,  # type: ignore[arg-type]
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    (only,) = logprobs.content
    assert (only.token, only.bytes) == ("é", [0xC3, 0xA9])
    assert [(top.token, top.logprob) for top in only.top_logprobs] == [("é", 0)]


def test_a_field_that_is_unknown_is_refused_with_what_was_meant(url: str) -> None:
    for field, hint in (("new_in_2030", ""), ("max_token", "; did you mean 'max_tokens'?")):
        answer = httpx.post(f"{url}/v1/completions", json={**PROMPT, field: {"deep": [1]}})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_parameter", field)
        assert error["message"] == f"{field!r}: no such field{hint}"


PROMPT = {"model": "echo", "prompt": "a"}
CHAT = {"model": "echo", "messages": [{"role": "user", "content": "a"}]}
BAD_COMPLETIONS = [
    ({**PROMPT, "model": "other"}, 404, "model"),
    ({"model": "echo"}, 400, "prompt"),
    ({"prompt": "a"}, 400, "model"),
    ({**PROMPT, "prompt": ""}, 400, "prompt"),
    ({**PROMPT, "prompt": []}, 400, "prompt"),
    ({**PROMPT, "prompt": [1, "a"]}, 400, "prompt"),
    ({**PROMPT, "prompt": [-1]}, 400, "prompt"),
    ({**PROMPT, "prompt": [0x110000]}, 400, "prompt"),
    ({**PROMPT, "prompt": ["a"] * 65}, 400, "prompt"),
    ({**PROMPT, "prompt": "a" * 101}, 400, None),
    ({**PROMPT, "prompt": "a" * 100, "max_tokens": 1}, 400, None),
    ({**PROMPT, "max_tokens": 0}, 400, "max_tokens"),
    ({**PROMPT, "max_tokens": "5"}, 400, "max_tokens"),
    ({**PROMPT, "max_tokens": True}, 400, "max_tokens"),
    ({**PROMPT, "max_tokens": 10**400}, 400, "max_tokens"),
    ({**PROMPT, "temperature": 2.1}, 400, "temperature"),
    ({**PROMPT, "temperature": -0.1}, 400, "temperature"),
    ({**PROMPT, "top_p": 0}, 400, "top_p"),
    ({**PROMPT, "top_p": 1.1}, 400, "top_p"),
    ({**PROMPT, "n": 0}, 400, "n"),
    ({**PROMPT, "n": 17}, 400, "n"),
    ({**PROMPT, "seed": 2**63}, 400, "seed"),
    ({**PROMPT, "stop": ""}, 400, "stop"),
    ({**PROMPT, "stop": ["a"] * 5}, 400, "stop"),
    ({**PROMPT, "logprobs": 21}, 400, "logprobs"),
    ({**PROMPT, "stream": "yes"}, 400, "stream"),
    ({**PROMPT, "stream_options": 1}, 400, "stream_options"),
    ([PROMPT], 400, None),
    (None, 400, None),
]
BAD_CHATS = [
    ({**CHAT, "model": "other"}, 404, "model"),
    ({**CHAT, "messages": []}, 400, "messages"),
    ({**CHAT, "messages": "a"}, 400, "messages"),
    ({**CHAT, "messages": [{"role": "king", "content": "a"}]}, 400, "messages"),
    (
        {**CHAT, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        400,
        "messages",
    ),
    ({**CHAT, "messages": [{"role": "user", "content": None}]}, 400, "messages"),
    ({**CHAT, "logprobs": 3}, 400, "logprobs"),
    ({**CHAT, "top_logprobs": 3}, 400, "top_logprobs"),
    ({**CHAT, "max_completion_tokens": 1000}, 400, None),
]
BAD_BODIES = [
    b"",
    b"{",
    b"not json",
    b'{"model": "echo", "prompt": "\xff\xfe"}',
    b'{"model": "echo", "prompt": "\\ud800"}',
    b'{"model": "echo", "prompt": "a", "temperature": NaN}',
    b'{"model": "echo", "prompt": "a", "max_tokens": ' + b"9" * 5000 + b"}",
    b'{"model": "echo", "prompt": "a", "x": ' + b"[" * 4000 + b"]" * 4000 + b"}",
]


def assert_error(answer: httpx.Response, status: int, param: str | None) -> None:
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert "\n" not in error["message"]


@pytest.mark.parametrize(("body", "status", "param"), BAD_COMPLETIONS)
def test_a_bad_completion_is_refused(
    url: str, body: object, status: int, param: str | None
) -> None:
    text = json.dumps(body)
    assert_error(httpx.post(f"{url}/v1/completions", content=text), status, param)


@pytest.mark.parametrize(("body", "status", "param"), BAD_CHATS)
def test_a_bad_chat_is_refused(url: str, body: object, status: int, param: str | None) -> None:
    answer = httpx.post(f"{url}/v1/chat/completions", content=json.dumps(body))
    assert_error(answer, status, param)


@pytest.mark.parametrize("body", BAD_BODIES, ids=range(len(BAD_BODIES)))
def test_a_body_that_is_no_json_is_refused(url: str, body: bytes) -> None:
    answer = httpx.post(f"{url}/v1/completions", content=body)
    assert_error(answer, 400, "temperature" if b"NaN" in body else None)


def test_a_body_over_the_limit_is_refused_whether_announced_or_not(url: str) -> None:
    body = json.dumps({**PROMPT, "prompt": "a" * BODY_LIMIT}).encode()
    assert_error(httpx.post(f"{url}/v1/completions", content=body), 413, None)
    unannounced = (body[at : at + 1000] for at in range(0, len(body), 1000))
    assert_error(httpx.post(f"{url}/v1/completions", content=unannounced), 413, None)


def test_unknown_paths_methods_and_models_have_the_same_shape(url: str) -> None:
    assert_error(httpx.get(f"{url}/v2/models"), 404, None)
    assert_error(httpx.get(f"{url}/"), 404, None)
    assert_error(httpx.get(f"{url}/v1/models/other"), 404, "model")
    refused = httpx.get(f"{url}/v1/completions")
    assert_error(refused, 405, None)
    assert refused.headers["allow"] == "POST"


def test_it_says_that_it_is_healthy(url: str) -> None:
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}


SLOW = {**PROMPT, "prompt": "a" * 1000, "max_tokens": 1000, "n": 3}


def test_a_client_that_leaves_frees_the_slots_of_its_stream() -> None:
    slow = EchoEngine(Path(), HARDWARE, delay=0.02)
    with serving(replica(slow, "echo", FixedClock())) as url:
        body = {**SLOW, "stream": True}
        with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()  # dropped, it would close the connection
            next(lines)
            assert slow.active == 3
        assert becomes_idle(slow)


def test_an_answer_takes_as_long_as_the_gateway_says() -> None:
    slow = EchoEngine(Path(), HARDWARE, delay=0.02)
    short, long = GatewayLimits(request_seconds=0.1), GatewayLimits(request_seconds=30)
    prompt = {"model": "echo", "prompt": "abcdefghij", "max_tokens": 10}
    with serving(replica(slow, "echo", FixedClock(), limits=short)) as url:
        assert httpx.post(f"{url}/v1/completions", json=prompt).status_code == 504
        for limits, status in ((long, 200), (short, 504)):
            board = Board(EndpointRoute(name="echo", revisions=(revision("r1", url),)))
            with gateway_of(board, limits) as gateway:
                assert httpx.post(f"{gateway}/v1/completions", json=prompt).status_code == status
        odd = {"x-answer-seconds": "nan"}
        assert httpx.post(f"{url}/v1/completions", json=prompt, headers=odd).status_code == 504


def test_a_client_that_stops_waiting_frees_its_slots() -> None:
    slow = EchoEngine(Path(), HARDWARE, delay=0.02)
    with serving(replica(slow, "echo", FixedClock())) as url:
        with pytest.raises(httpx.TimeoutException):
            httpx.post(f"{url}/v1/completions", json=SLOW, timeout=0.3)
        assert becomes_idle(slow)
