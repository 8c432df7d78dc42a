"""The whole way: official client, HTTP, gateway, and a real (tiny, random) model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from jobs.engines.embedded import EmbeddedEngine
from orchestrator.serving.replica.app import replica
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama
from tests.serving.http_server import FixedClock, serving


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    folder = save_tiny_llama(tmp_path_factory.mktemp("model"))
    engine = EmbeddedEngine(folder, HARDWARE, threads=1)
    with (
        serving(replica(engine, "tiny", FixedClock())) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client
    engine.close()


def complete(client: openai.OpenAI, prompt: str, seed: int = 1) -> str:
    answer = client.completions.create(model="tiny", prompt=prompt, seed=seed, max_tokens=24)
    return answer.choices[0].text


def test_many_at_once_answer_as_one_by_one(client: openai.OpenAI) -> None:
    prompts = [f"{number} + {number} = " * number for number in range(1, 9)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda prompt: complete(client, prompt), prompts))
    assert together == [complete(client, prompt) for prompt in prompts]


def test_choices_differ_and_seeds_repeat_them(client: openai.OpenAI) -> None:
    one, two = (
        client.completions.create(model="tiny", prompt="2+2=", n=3, seed=4, max_tokens=24)
        for _ in range(2)
    )
    assert [choice.text for choice in one.choices] == [choice.text for choice in two.choices]
    assert len({choice.text for choice in one.choices}) == 3


def test_a_stream_equals_the_whole_answer(client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model="tiny", prompt="2+2=", temperature=0, max_tokens=40, stream=True
    )
    whole = client.completions.create(model="tiny", prompt="2+2=", temperature=0, max_tokens=40)
    assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text


def test_a_chat_fills_the_context_at_most(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "x" * 480}], temperature=0
    )
    assert answer.usage is not None
    assert answer.usage.total_tokens <= 512


def test_the_likeliest_tokens_come_with_the_greedy_one_first(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "2+2="}],
        temperature=0,
        max_tokens=5,
        logprobs=True,
        top_logprobs=3,
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    for found in logprobs.content or []:
        assert len(found.top_logprobs) == 3
        assert found.top_logprobs[0].logprob == found.logprob


def test_a_chat_that_the_template_refuses_is_a_bad_request(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="the chat template refuses"):
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "refuse"}]
        )
