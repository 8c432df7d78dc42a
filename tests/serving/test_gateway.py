"""The gateway as the official client sees it, in front of real replicas of the echo engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import httpx2 as httpx
import openai
import pytest

from orchestrator.serving.gateway.routes import EndpointRoute
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision

PROMPT = {"model": "echo", "prompt": "a"}
ONE, TWO = "the token of r1", "the token of r2"


@dataclass
class RunningGateway:
    """A gateway with one endpoint: 75 % of its traffic to r1, 25 % to r2, which is versioned."""

    url: str
    board: Board


@pytest.fixture(scope="module")
def world() -> Iterator[RunningGateway]:
    with (
        echoing(echo_engine(), token=ONE, version="v1") as one,
        echoing(echo_engine(), name="other", token=TWO, version="v2") as two,
    ):
        first = revision("r1", *one, share=75, token=ONE, version="v1")
        second = revision("r2", *two, share=25, token=TWO, model="other", version="v2")
        board = Board(EndpointRoute(name="echo", revisions=(first, second)))
        with gateway_of(board) as url:
            yield RunningGateway(url, board)


@pytest.fixture(params=["/v1", "/echo/v1"])
def client(request: pytest.FixtureRequest, world: RunningGateway) -> Iterator[openai.OpenAI]:
    base = f"{world.url}{request.param}"
    with openai.OpenAI(base_url=base, api_key="none", max_retries=0) as client:
        yield client


def test_models_are_the_endpoints(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo"]
    assert client.models.retrieve("echo").owned_by == "orchestrator"
    with pytest.raises(openai.NotFoundError, match="no model 'other' here; there is 'echo'"):
        client.models.retrieve("other")


def test_a_completion_comes_through_with_its_version(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt="héllo 日本", n=2)
    assert [choice.text for choice in answer.choices] == ["héllo 日本"] * 2
    assert answer.system_fingerprint in {"v1", "v2"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16


def test_a_chat_streams_through_with_its_version_in_each_chunk(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "ping"}]
    stream = client.chat.completions.create(
        model="echo", messages=messages, stream=True, stream_options={"include_usage": True}
    )  # type: ignore[call-overload]
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == "ping"
    assert {chunk.system_fingerprint for chunk in chunks} <= {"v1", "v2"}
    assert chunks[-1].usage.total_tokens == 8


def test_traffic_goes_by_shares_and_each_answer_names_its_revision(world: RunningGateway) -> None:
    with httpx.Client(base_url=world.url) as client:
        answers = [client.post("/v1/completions", json=PROMPT) for _ in range(200)]
    seen = [answer.headers["x-revision"] for answer in answers]
    assert 130 <= seen.count("r1") <= 170
    models = {answer.json()["model"] for answer in answers}
    assert models == {"echo", "other"}


def test_a_session_stays_on_its_revision_where_asked(world: RunningGateway) -> None:
    shared = world.board.table().endpoints["echo"].revisions
    halves = tuple(replace(r, share=50, model=r.model or "echo") for r in shared)
    world.board.put(EndpointRoute(name="sticky", revisions=halves, sticky="session"))
    seen: dict[str, set[str]] = {}
    with httpx.Client(base_url=world.url) as client:
        for number in range(60):
            session = f"s{number % 12}"
            answer = client.post(
                "/sticky/v1/completions",
                json={**PROMPT, "model": "sticky"},
                headers={"x-session-id": session},
            )
            seen.setdefault(session, set()).add(answer.headers["x-revision"])
    assert all(len(revisions) == 1 for revisions in seen.values())
    assert {name for revisions in seen.values() for name in revisions} == {"r1", "r2"}


def test_it_is_healthy_and_describes_itself(world: RunningGateway) -> None:
    assert httpx.get(f"{world.url}/health").json() == {"status": "ok"}
    document = httpx.get(f"{world.url}/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {"/v1/completions", "/{endpoint}/v1/chat/completions"} <= set(document["paths"])


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_tells_in_its_head_which_weights_were_to_serve_it(
    world: RunningGateway, *, stream: bool
) -> None:
    answer = httpx.post(f"{world.url}/v1/completions", json={**PROMPT, "stream": stream})
    version = answer.headers["x-model-version"]
    assert answer.headers["x-revision"] == version.replace("v", "r")
    assert f'"system_fingerprint":"{version}"' in answer.text


def test_metrics_count_requests_tokens_and_times_by_revision_and_pool(
    world: RunningGateway,
) -> None:
    body = {**PROMPT, "prompt": "abcd", "stream": True}
    before = scrape(world.url)
    answer = httpx.post(f"{world.url}/v1/completions", json=body)
    name = answer.headers["x-revision"]
    after = scrape(world.url)

    def grown(metric: str, more: str = "") -> float:
        parts = (f"{metric}{{", 'endpoint="echo"', f'revision="{name}"', more)
        (line,) = [line for line in after if all(part in line for part in parts)]
        return after[line] - before.get(line, 0.0)

    assert grown("orchestrator_requests_total", 'code="200"') == 1
    used = "gen_ai_client_token_usage_sum"
    assert grown(used, 'gen_ai_token_type="output"') == 4
    assert grown(used, 'gen_ai_token_type="input"') == 4
    assert grown("gen_ai_server_time_to_first_token_seconds_count") == 1
    assert grown("gen_ai_server_time_per_output_token_seconds_count") == 1
    assert grown("gen_ai_server_request_duration_seconds_count") == 1
    assert grown("orchestrator_queue_seconds_count") == 1
    assert after['orchestrator_requests_waiting{endpoint="echo"}'] == 0


def scrape(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/completions", {**PROMPT, "model": "x"}, 404, "model_not_found"),
        ("/x/v1/completions", {**PROMPT, "model": "x"}, 404, "model_not_found"),
        ("/echo/v1/completions", {**PROMPT, "model": "x"}, 404, "model_not_found"),
        ("/v1/completions", {**PROMPT, "max_tokens": 10**9}, 400, None),
        ("/v1/completions", {**PROMPT, "prompt": ["a"] * 64, "n": 16}, 400, None),
        ("/v1/completions", {**PROMPT, "prompt": "a" * 5000}, 400, "context_length_exceeded"),
        ("/v1/embeddings", PROMPT, 404, "unsupported_endpoint"),
        ("/echo/v1/predict", {}, 400, "unsupported"),
        ("/v1/predict", {}, 400, None),
        ("/v1/completions", [], 400, None),
    ],
)
def test_what_cannot_be_answered_is_refused(
    world: RunningGateway, path: str, body: object, status: int, code: str | None
) -> None:
    answer = httpx.post(f"{world.url}{path}", content=json.dumps(body))
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code


def test_a_long_body_is_no_long_head(world: RunningGateway) -> None:
    with httpx.Client(base_url=world.url) as client:
        for kilobytes in (60, 250, 1000, 4000):
            body = {**PROMPT, "user": "x" * (1024 * kilobytes)}
            assert client.post("/v1/completions", json=body).status_code == 200
