"""Replicas that die, refuse, break off or have gone: what the client sees of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256

import httpx2 as httpx
import openai
import pytest

from orchestrator.core.endpoints.api_keys import ApiKey
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.ports import free_address
from tests.serving.http_server import (
    SOON,
    Board,
    becomes_idle,
    echo_engine,
    echoing,
    gateway_of,
    revision,
)
from tests.serving.scripted import HEAD, WHOLE, chunk, scripted, sends, waits

PROMPT = {"model": "echo", "prompt": "abc", "max_tokens": 500}
STREAM = {**PROMPT, "stream": True}
EVENT = b'data: {"choices": [{"index": 0, "text": "a"}]}\n\n'
HTTP_500 = b'HTTP/1.1 500 No\r\ncontent-length: 13\r\n\r\n{"error": {}}'
ASTRAY = b"HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\n{}"
TORN_BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"


def echo(*urls: str, **more: object) -> EndpointRoute:
    return EndpointRoute(name="echo", revisions=(revision("r1", *urls),), **more)  # type: ignore[arg-type]


def free_url() -> str:
    return f"http://{free_address()}"


@contextmanager
def clienting(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def errors_of(url: str) -> dict[str, float]:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("orchestrator_errors_total")]
    return {line.split('kind="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in found}


@pytest.mark.parametrize(
    ("dying", "kind"),
    [
        ((), "lost"),
        ((TORN_BODY,), "lost"),
        ((b"nonsense\r\n\r\n",), "lost"),
        ((HTTP_500,), "failed"),
        ((HTTP_500.replace(b"500", b"503"),), "going"),
        ((ASTRAY,), "astray"),
        ((HEAD,), "lost"),
        ((HEAD, chunk(EVENT[:20])), "lost"),
    ],
)
@pytest.mark.parametrize("body", [PROMPT, STREAM], ids=["whole", "stream"])
def test_a_replica_that_fails_before_it_answers_is_replaced(
    dying: tuple[bytes, ...], kind: str, body: dict[str, object]
) -> None:
    with scripted(sends(*dying)) as bad, echoing(echo_engine()) as good:
        with gateway_of(Board(echo(bad.url, *good)), SOON) as url:
            for _ in range(2):
                answer = httpx.post(f"{url}/v1/completions", json=body)
                assert answer.status_code == 200, answer.text
            assert errors_of(url) == {kind: 1}
        assert len(bad.asked) == 1


def test_a_replica_that_is_gone_is_passed_over_and_left_alone_for_a_while() -> None:
    with (
        echoing(echo_engine()) as good,
        gateway_of(Board(echo(free_url(), *good)), SOON) as url,
        httpx.Client() as client,
    ):
        for _ in range(20):
            assert client.post(f"{url}/v1/completions", json=PROMPT).status_code == 200
        assert errors_of(url)["unreachable"] < 5


def test_an_engine_that_fails_twice_is_an_error_and_no_third_try() -> None:
    with scripted(sends(HTTP_500)) as bad, gateway_of(Board(echo(bad.url)), SOON) as url:
        answer = httpx.post(f"{url}/v1/completions", json=PROMPT)
        assert (answer.status_code, answer.text) == (500, '{"error": {}}')
        assert len(bad.asked) == 2


def test_a_replica_that_dies_twice_is_a_bad_gateway() -> None:
    with scripted(sends()) as bad, gateway_of(Board(echo(bad.url)), SOON) as url:
        answer = httpx.post(f"{url}/v1/completions", json=PROMPT)
        assert answer.status_code == 502
        assert answer.json()["error"]["type"] == "server_error"
        assert len(bad.asked) == 2


def test_no_replica_at_all_is_unavailable_for_now() -> None:
    for urls in ((), (free_url(),)):
        with gateway_of(Board(echo(*urls)), SOON) as url:
            answer = httpx.post(f"{url}/v1/completions", json=PROMPT)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "no_replica"


def test_a_replica_that_comes_within_seconds_is_waited_for() -> None:
    board = Board(echo())
    with echoing(echo_engine()) as urls, gateway_of(board) as url, httpx.Client() as client:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.post, f"{url}/v1/completions", json=PROMPT)
            while (
                httpx.get(f"{url}/metrics").text.count('requests_waiting{endpoint="echo"} 1.0')
                == 0
            ):
                pass
            board.put(echo(*urls))
            assert waiting.result().status_code == 200


def test_another_live_revision_helps_out_when_one_has_no_replica() -> None:
    with echoing(echo_engine()) as urls:
        both = (revision("r1", share=100), revision("r2", *urls, share=1))
        board = Board(EndpointRoute(name="echo", revisions=both))
        with gateway_of(board, SOON) as url:
            answer = httpx.post(f"{url}/v1/completions", json=PROMPT)
        assert (answer.status_code, answer.headers["x-revision"]) == (200, "r2")


@pytest.mark.parametrize("rest", [b"", chunk(EVENT[:20]), chunk(EVENT) + b"0\r\n\r\n"])
def test_a_stream_that_breaks_ends_with_an_error_event(rest: bytes) -> None:
    with (
        scripted(sends(HEAD + chunk(EVENT), rest)) as bad,
        gateway_of(Board(echo(bad.url)), SOON) as url,
        clienting(url) as client,
    ):
        stream = client.completions.create(**STREAM)  # type: ignore[call-overload]
        assert next(iter(stream)).choices[0].text == "a"
        with pytest.raises(openai.APIError, match="replica failed"):
            list(stream)
        text = httpx.post(f"{url}/v1/completions", json=STREAM).text
        last = text.strip().rsplit("data: ", 1)[1]
        assert json.loads(last)["error"]["code"] == "replica_failed"
        assert errors_of(url) == {"broken": 2}


def test_a_client_that_leaves_frees_the_replica_at_once() -> None:
    for parts in ((), (HEAD, chunk(EVENT))):
        with scripted(waits(*parts)) as slow, gateway_of(Board(echo(slow.url))) as url:
            with pytest.raises(httpx.TimeoutException):
                httpx.post(f"{url}/v1/completions", json=STREAM, timeout=0.2)
            assert slow.left.wait(2)


def test_a_client_that_leaves_frees_the_slot_of_the_engine() -> None:
    engine = echo_engine(delay=0.02)
    with echoing(engine) as urls, gateway_of(Board(echo(*urls))) as url:
        body = {**STREAM, "prompt": "a" * 400}
        with httpx.stream("POST", f"{url}/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert engine.active == 1
        assert becomes_idle(engine)


def test_an_answer_that_takes_too_long_is_ended_by_an_error() -> None:
    short = GatewayLimits(request_seconds=0.2)
    with scripted(waits()) as slow, gateway_of(Board(echo(slow.url)), short) as url:
        answer = httpx.post(f"{url}/v1/completions", json=PROMPT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
    with (
        scripted(waits(HEAD, chunk(EVENT))) as slow,
        gateway_of(Board(echo(slow.url)), short) as url,
    ):
        answer = httpx.post(f"{url}/v1/completions", json=STREAM)
        assert '"code":"timeout"' in answer.text.split("\n\n")[-2]


def test_a_replica_whose_answers_take_too_long_is_left_alone() -> None:
    short = GatewayLimits(request_seconds=0.5)
    with (
        echoing(echo_engine()) as (good,),
        scripted(waits()) as slow,
        gateway_of(Board(echo(slow.url, good)), short) as url,
    ):
        answers = [httpx.post(f"{url}/v1/completions", json=PROMPT) for _ in range(6)]
        assert sorted(answer.status_code for answer in answers) == [200] * 3 + [504] * 3
        after = [httpx.post(f"{url}/v1/completions", json=PROMPT) for _ in range(40)]
        assert sum(answer.status_code == 504 for answer in after) < 10  # half, were it asked


def test_a_gateway_that_ends_finishes_its_streams_or_says_that_it_ends() -> None:
    body = {**STREAM, "prompt": "a" * 20}
    with echoing(echo_engine(delay=0.01)) as urls, httpx.Client() as client:
        with gateway_of(Board(echo(*urls))) as url:
            stream = client.stream("POST", f"{url}/v1/completions", json=body)
            answer = stream.__enter__()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        stream.__exit__(None, None, None)
    with scripted(waits(HEAD, chunk(EVENT))) as slow, httpx.Client() as client:
        with gateway_of(Board(echo(slow.url)), GatewayLimits(drain_seconds=0.2)) as url:
            stream = client.stream("POST", f"{url}/v1/completions", json=body)
            answer = stream.__enter__()
        assert b'"code":"ending"' in answer.read()
        stream.__exit__(None, None, None)


def test_a_shadow_gets_a_copy_that_never_disturbs_the_client() -> None:
    with (
        echoing(echo_engine()) as urls,
        scripted(waits()) as mute,
        scripted(sends(WHOLE)) as good,
    ):
        for shadow in (mute, good):
            both = (revision("r1", *urls), revision("r2", shadow.url, share=0))
            board = Board(EndpointRoute(name="echo", revisions=both, shadow="r2"))
            with gateway_of(board) as url:
                for _ in range(3):
                    answer = httpx.post(f"{url}/v1/completions", json=PROMPT, timeout=2)
                    assert answer.headers["x-revision"] == "r1"
                text = httpx.get(f"{url}/metrics").text
        assert len(good.asked) >= 1
        assert 'code="200"' in next(
            line for line in text.splitlines() if "requests_total" in line and "r2" in line
        )
    assert replace(both[1], share=1).share == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/predict"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_method_that_a_path_has_not_is_no_fault_of_a_replica(method: str, path: str) -> None:
    with echoing(echo_engine()) as urls, gateway_of(Board(echo(*urls)), SOON) as url:
        answer = httpx.request(method, f"{url}/echo{path}")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert errors_of(url) == {}


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d No\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/v1/embeddings", 501, b'{"error":{"message":"no embeddings","code":501}}'),
        ("/v1/completions", 404, b'{"detail":"Not Found"}'),
        ("/v1/chat/completions", 405, b'{"detail":"Method Not Allowed"}'),
    ],
)
def test_what_an_engine_server_does_not_have_is_no_fault_of_its_replicas(
    path: str, status: int, body: bytes
) -> None:
    with scripted(sends(http(status, body))) as one, scripted(sends(http(status, body))) as two:
        both = replace(revision("r1", one.url, two.url), server=True)
        with gateway_of(Board(EndpointRoute(name="echo", revisions=(both,))), SOON) as url:
            for _ in range(3):
                answer = httpx.post(f"{url}{path}", json=PROMPT)
                assert (answer.status_code, answer.content) == (status, body)
            assert errors_of(url) == {}
        assert len(one.asked) + len(two.asked) == 3


def test_an_engine_server_that_does_not_know_our_key_is_another_one() -> None:
    with scripted(sends(http(401, b'{"error":"Unauthorized"}'))) as other:
        found = replace(revision("r1", other.url), server=True)
        with gateway_of(Board(EndpointRoute(name="echo", revisions=(found,))), SOON) as url:
            assert httpx.post(f"{url}/v1/completions", json=PROMPT).status_code == 502
            assert errors_of(url) == {"astray": 2}


def test_an_answer_that_is_too_long_to_be_handed_on_is_charged_all_the_same() -> None:
    mine = ApiKey(name="mine", digest=sha256(b"sk").hexdigest(), tokens=700)
    with scripted(sends(http(200, b"{" + b" " * 5000))) as server:
        board = Board(echo(server.url), keys={mine.digest: mine})
        with gateway_of(board, GatewayLimits(answer_bytes=1000)) as url:
            header = {"authorization": "Bearer sk"}
            statuses = [
                httpx.post(f"{url}/v1/completions", json=PROMPT, headers=header).status_code
                for _ in range(2)
            ]
    assert statuses == [502, 429]
