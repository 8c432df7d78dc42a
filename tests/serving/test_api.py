"""The API of a replica as the official client sees it: drawing, scores, tokens, health."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

import httpx2 as httpx
import openai
import pytest

from orchestrator.engine import NotFiniteError, Sampling
from orchestrator.serving.replica.app import replica
from tests.serving.http_server import FixedClock, serving
from tests.serving.writing import Writing, chat, complete

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
USER = [{"role": "user", "content": "hi"}]


def test_all_that_a_request_says_of_drawing_reaches_the_engine(
    client: openai.OpenAI, engine: Writing
) -> None:
    chat(
        client,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=1,
        frequency_penalty=-1.5,
        logit_bias={"97": -100, "98": 5},
        seed=-7,
        n=2,
        stop="x",
        max_completion_tokens=4,
        extra_body={
            "top_k": 40.0,
            "min_p": 0.1,
            "repetition_penalty": 1.2,
            "stop_token_ids": [10],
            "min_tokens": 2,
            "ignore_eos": True,
            "include_stop_str_in_output": True,
        },
    )
    first, second = engine.samplings
    assert first == Sampling(
        max_tokens=4,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        presence_penalty=1.0,
        frequency_penalty=-1.5,
        repetition_penalty=1.2,
        logit_bias={97: -100.0, 98: 5.0},
        stop=("x",),
        stop_token_ids=(10,),
        min_tokens=2,
        ignore_eos=True,
        include_stop=True,
        seed=2**64 - 7,
    )
    assert second.seed == 2**64 - 6


def test_the_models_own_defaults_hold_until_a_request_says_else(
    client: openai.OpenAI, engine: Writing
) -> None:
    engine.wishes = {"temperature": 0.6, "top_k": 20, "top_p": 0.95}
    complete(client, top_p=0.5)
    complete(client, seed=-1, extra_body={"top_k": -1})
    first, second = engine.samplings
    assert (first.temperature, first.top_k, first.top_p) == (0.6, 20, 0.5)
    assert (second.top_k, second.top_p, second.seed) == (0, 0.95, None)


def test_a_chat_that_names_no_number_of_tokens_has_the_models_own_as_far_as_they_fit(
    client: openai.OpenAI, engine: Writing
) -> None:
    for own, wanted in ((7, None), (1 << 20, None), (7, 9)):
        engine.wishes = {"max_tokens": own}
        chat(client, max_tokens=wanted)
    (messages, _), *_ = engine.chats
    room = engine.max_context - len(engine.encode_chat(messages))
    assert [one.max_tokens for one in engine.samplings] == [7, room, 9]


def test_a_whole_number_may_have_a_point(url: str) -> None:
    body = {"model": "echo", "prompt": "abcdef", "max_tokens": 5.0, "n": 1.0}
    assert httpx.post(f"{url}/v1/completions", json=body).json()["choices"][0]["text"] == "abcde"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stop": list("abcde")}, "stop: List should have at most 4 items"),
        ({"logit_bias": {"a": 1}}, "logit_bias: 'a' is no token id"),
        ({"logit_bias": {"12288": 1}}, "logit_bias: no token 12288"),
        ({"extra_body": {"stop_token_ids": [12288]}}, "stop_token_ids: no token 12288"),
        ({"extra_body": {"min_tokens": 5}, "max_tokens": 4}, "min_tokens is over max_tokens, 4"),
        (
            {"extra_body": {"prompt_logprobs": 1}, "stream": True},
            "prompt_logprobs come",
        ),
        ({"extra_body": {"structured_outputs": {}}}, "structured_outputs: takes one of json"),
        ({"response_format": {"type": "json_schema"}}, "'json_schema' stands with"),
        (
            {"extra_body": {"chat_template_kwargs": {"tokenize": False}}},
            "no variable of",
        ),
        ({"tool_choice": "required"}, "tool_choice needs tools"),
        ({"tools": [TOOL], "tool_choice": "sometimes"}, "should be 'none', 'auto', 'required'"),
        (
            {"extra_body": {"thinking_token_budget": 3}},
            "budget: 3 is not supported",
        ),
        ({"reasoning_effort": "high"}, "reasoning_effort: 'high' is not supported"),
        ({"stream_options": {"include_usages": True}, "stream": True}, "Extra inputs"),
    ],
)
def test_what_is_wrong_is_said(
    client: openai.OpenAI, fields: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=message):
        chat(client, **fields)


def test_an_echo_scores_the_prompt_as_lm_eval_reads_it(client: openai.OpenAI) -> None:
    (choice,) = complete(client, echo=True, logprobs=1, max_tokens=0).choices
    assert (choice.text, choice.finish_reason) == ("abc", "length")
    logprobs = choice.logprobs
    assert logprobs.tokens == ["a", "b", "c"]
    assert logprobs.token_logprobs == [None, -1.0, -1.0]
    assert logprobs.top_logprobs == [None, {"A": -0.5, "b": -1.0}, {"A": -0.5, "c": -1.0}]
    assert logprobs.text_offset == [0, 1, 2]
    (longer,) = complete(client, echo=True, logprobs=0, max_tokens=2).choices
    assert (longer.text, longer.logprobs.text_offset) == ("abcab", [0, 1, 2, 3, 4])
    assert longer.logprobs.token_logprobs == [None, -1.0, -1.0, 0.0, 0.0]


@pytest.mark.parametrize("logprobs", [None, 1])
@pytest.mark.parametrize("tokens", [0, 2])
def test_a_streamed_echo_equals_a_whole_one(
    client: openai.OpenAI, logprobs: int | None, tokens: int
) -> None:
    asked: dict[str, Any] = {"echo": True, "logprobs": logprobs, "max_tokens": tokens, "n": 2}
    whole = complete(client, **asked)
    chunks = [chunk.choices[0] for chunk in complete(client, **asked, stream=True)]
    for choice in whole.choices:
        mine = [chunk for chunk in chunks if chunk.index == choice.index]
        assert "".join(chunk.text for chunk in mine) == choice.text
        assert [chunk.finish_reason for chunk in mine][-1] == choice.finish_reason
        if logprobs is not None:
            offsets = [at for chunk in mine for at in chunk.logprobs.text_offset]
            assert offsets == choice.logprobs.text_offset


def test_no_tokens_are_asked_for_only_to_score_the_prompt(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="max_tokens: 0 needs echo"):
        complete(client, max_tokens=0)
    (choice,) = complete(client, max_tokens=0, extra_body={"prompt_logprobs": 0}).choices
    assert (choice.text, choice.finish_reason) == ("", "length")
    likely = {"98": {"logprob": -1.0, "rank": None, "decoded_token": "b"}}
    assert choice.prompt_logprobs[:2] == [None, likely]


def test_ids_of_tokens_come_as_in_vllm(client: openai.OpenAI) -> None:
    wanted = {"return_token_ids": True, "return_tokens_as_token_ids": True}
    (choice,) = complete(client, logprobs=1, extra_body=wanted).choices
    assert (choice.prompt_token_ids, choice.token_ids) == ([97, 98, 99], [97, 98, 99])
    assert choice.logprobs.tokens[0] == "token_id:97"
    answer = chat(client, extra_body={"return_token_ids": True, "prompt_logprobs": 0})
    assert (answer.prompt_token_ids, answer.choices[0].token_ids) == ([104, 105], [104, 105])
    assert len(answer.prompt_logprobs) == 2
    chunks = list(chat(client, stream=True, extra_body={"return_token_ids": True}))
    assert chunks[0].choices[0].prompt_token_ids == [104, 105]
    assert [token for chunk in chunks for token in chunk.choices[0].token_ids] == [104, 105]


def test_usage_has_its_details_and_runs_along_where_asked(client: openai.OpenAI) -> None:
    usage = chat(client).usage
    assert (usage.total_tokens, usage.prompt_tokens_details.cached_tokens) == (4, 0)
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(chat(client, stream=True, stream_options=options))
    assert [chunk.usage.completion_tokens for chunk in chunks] == [0, 1, 2, 2]


def test_an_engine_that_can_not_do_it_is_a_bad_request(
    client: openai.OpenAI, engine: Writing
) -> None:
    engine.broken = ValueError("this engine has no grammars")
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="no grammars") as refused:
            chat(client, stream=stream, response_format={"type": "json_object"})
        assert refused.value.param == "response_format"


def test_scores_that_are_not_finite_are_an_error_and_no_answer(
    client: openai.OpenAI, engine: Writing
) -> None:
    engine.broken, engine.after = NotFiniteError("the model's scores are not finite"), 1
    with pytest.raises(openai.InternalServerError, match="not finite") as failed:
        chat(client)
    assert failed.value.code == "not_finite"
    with pytest.raises(openai.APIError, match="not finite"):
        list(chat(client, stream=True))
    engine.broken = None
    assert chat(client).choices[0].message.content == "hi"


def test_what_servers_alone_have_is_not_found(client: openai.OpenAI, url: str) -> None:
    with pytest.raises(openai.NotFoundError, match="an engine server may have it") as refused:
        client.embeddings.create(model="echo", input="a")
    assert refused.value.code == "unsupported_endpoint"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="echo", input="a")
    assert httpx.post(f"{url}/v1/messages", json={}).status_code == 404


def test_texts_become_tokens_and_back(url: str) -> None:
    def ask(path: str, **body: object) -> Any:
        return httpx.post(f"{url}/{path}", json=body).json()

    told = ask("tokenize", model="echo", prompt="begin", return_token_strs=True)
    assert told == {
        "count": 6,
        "max_model_len": 300,
        "tokens": [0x2000, *b"begin"],
        "token_strs": ["\u2000", *"begin"],
    }
    assert ask("tokenize", prompt="begin", add_special_tokens=False)["count"] == 5
    assert ask("tokenize", messages=USER)["tokens"] == [104, 105]
    assert ask("detokenize", tokens=[104, 105]) == {"prompt": "hi"}
    assert "no token 20000" in ask("detokenize", tokens=[20000])["error"]["message"]
    assert ask("tokenize", prompt="a", model="b")["error"]["code"] == "model_not_found"
    assert ask("tokenize", promt="a")["error"]["message"].endswith("did you mean 'prompt'?")


def test_long_texts_are_tokenised_elsewhere_and_too_long_ones_nowhere(
    client: openai.OpenAI, engine: Writing
) -> None:
    engine.max_context = 5000
    complete(client, prompt="a" * 100, max_tokens=1)
    complete(client, prompt="a" * 4000, max_tokens=1)
    first, second = engine.threads
    assert "tokenizer" in second
    assert first != second
    for prompt in ("a" * 20_001, ["a", "a" * 20_001]):
        with pytest.raises(openai.BadRequestError, match="20000 characters at most") as refused:
            complete(client, prompt=prompt)
        assert refused.value.code == "context_length_exceeded"
    assert len(engine.threads) == 3


def test_a_text_of_tokens_that_the_model_has_no_row_for_is_refused(
    client: openai.OpenAI, engine: Writing
) -> None:
    for ask in (
        lambda: complete(client, prompt="a\U0001f600"),
        lambda: chat(client, "\U0001f600"),
    ):
        with pytest.raises(openai.BadRequestError, match="no token 128512"):
            ask()
    assert engine.samplings == []


def test_a_request_keeps_its_name(client: openai.OpenAI, url: str) -> None:
    body = {"model": "echo", "prompt": "a"}
    answer = httpx.post(f"{url}/v1/completions", json=body, headers={"x-request-id": "mine-1"})
    assert (answer.headers["x-request-id"], answer.json()["id"]) == ("mine-1", "cmpl-mine-1")
    odd = httpx.post(f"{url}/v1/completions", json={}, headers={"x-request-id": "a b"})
    assert odd.status_code == 400
    assert len(odd.headers["x-request-id"]) == 32
    assert chat(client)._request_id
    named = complete(client, extra_body={"request_id": "yours"})
    assert named.id == "cmpl-yours"


def test_a_stream_says_first_how_long_its_prompt_is(url: str) -> None:
    body = {"model": "echo", "prompt": ["abc", "de"], "n": 2, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
        assert answer.headers["x-prompt-tokens"] == "5"
        answer.read()


def test_an_engine_that_is_ill_says_so(url: str, engine: Writing) -> None:
    for path in ("health", "ready"):
        assert httpx.get(f"{url}/{path}").json() == {"status": "ok"}
        assert httpx.head(f"{url}/{path}").status_code == 200
    engine.ill = "its thread died"
    for path in ("health", "ready"):
        answer = httpx.get(f"{url}/{path}")
        assert (answer.status_code, answer.json()["status"]) == (503, "its thread died")


def test_the_figures_of_the_engine_are_metrics(
    url: str, client: openai.OpenAI, engine: Writing
) -> None:
    complete(client)
    engine.types = {"stored": "fp8", "computed": "bfloat16"}
    text = httpx.get(f"{url}/metrics").text
    stored = 'orchestrator_engine_weights_info{computed="bfloat16",model="echo",stored="fp8"} 1.0'
    assert stored in text
    assert 'orchestrator_engine_prompt_tokens_total{model="echo"} 3.0' in text
    assert 'orchestrator_engine_generated_tokens_total{model="echo"} 3.0' in text
    assert 'orchestrator_engine_healthy{model="echo"} 1.0' in text
    if (promtool := shutil.which("promtool")) is not None:
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_predictor_has_health_and_figures_too() -> None:
    class Predictor:
        async def predict(self, body: object) -> object:
            await asyncio.sleep(0)
            return body

        def health(self) -> str:
            return "cold"

        def close(self) -> None:
            pass

    with serving(replica(Predictor(), "cnn", FixedClock())) as url:
        assert httpx.get(f"{url}/health").status_code == 503
        assert 'orchestrator_engine_healthy{model="cnn"} 0.0' in httpx.get(f"{url}/metrics").text
        assert httpx.post(f"{url}/tokenize", json={"prompt": "a"}).status_code == 400


@pytest.mark.parametrize(("asked", "drawn"), [(1e-6, 0.0), (1e-5, 1e-5), (0, 0.0)])
def test_almost_no_heat_is_none_as_in_vllm(
    client: openai.OpenAI, engine: Writing, asked: float, drawn: float
) -> None:
    complete(client, temperature=asked)
    assert engine.samplings[0].temperature == drawn
