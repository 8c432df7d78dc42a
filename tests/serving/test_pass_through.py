"""What the gateway does not know of an API goes through: routes, fields, headers, forms."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import httpx2 as httpx
import openai
import pytest

from orchestrator.core.endpoints.api_keys import ApiKey
from orchestrator.serving.gateway.access_log import RequestRecord
from orchestrator.serving.gateway.routes import EndpointRoute, Far
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.serving.http_server import Board, echo_engine, echoing, gateway_of, revision
from tests.serving.scripted import HEAD, JSON, Scripted, chunk, scripted, sends, waits

TOKEN = b'data: {"choices":[{"index":0,"text":"a","finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"text":"","finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n'
ABORT = b'data: {"choices":[{"index":0,"text":"","finish_reason":"abort"}]}\n\n'
DONE = b"data: [DONE]\n\n"
CLOSING = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
STREAM = {"model": "echo", "prompt": "abc", "stream": True}


def json_answer(body: bytes) -> bytes:
    return JSON + b"content-length: %d\r\n\r\n%b" % (len(body), body)


@contextmanager
def gateway_before(
    *answers: bytes, limits: GatewayLimits | None = None, **more: object
) -> Iterator[tuple[str, Scripted]]:
    """A gateway before a server that answers each connection so, and is closed."""
    with scripted(sends(*answers)) as server:
        route = EndpointRoute(name="echo", revisions=(revision("r1", server.url, **more),))  # type: ignore[arg-type]
        with gateway_of(Board(route), limits) as url:
            yield url, server


def body_of(request: bytes) -> dict[str, object]:
    found = json.loads(request.partition(b"\r\n\r\n")[2])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    "stream",
    [
        (TOKEN + LAST + DONE).replace(b"data: ", b"data:"),
        TOKEN + LAST,
        TOKEN,
        (TOKEN + LAST + DONE).rstrip(b"\n"),
        b": hello\n\n" + TOKEN + b": ping\n\n" + LAST + DONE,
        (TOKEN + LAST + DONE).replace(b"\n", b"\r\n"),
    ],
)
@pytest.mark.parametrize("closes", [True, False], ids=["by closing", "chunked"])
def test_a_stream_of_an_outside_server_comes_as_it_is(stream: bytes, *, closes: bool) -> None:
    answer = (CLOSING, stream) if closes else (HEAD, chunk(stream), b"0\r\n\r\n")
    with gateway_before(*answer, far=Far()) as (url, _):
        assert httpx.post(f"{url}/v1/completions", json=STREAM).content == stream


def test_usage_is_asked_for_and_taken_out_where_the_client_did_not_ask() -> None:
    stream = chunk(TOKEN + LAST + USAGE + DONE) + b"0\r\n\r\n"
    with gateway_before(HEAD, stream) as (url, server):
        text = httpx.post(f"{url}/v1/completions", json=STREAM).content
        assert text == TOKEN + LAST + DONE
        assert body_of(server.asked[-1])["stream_options"] == {"include_usage": True}
        declining = {**STREAM, "stream_options": {"include_usage": False}}
        assert httpx.post(f"{url}/v1/completions", json=declining).content == text
        asking = {**STREAM, "stream_options": {"include_usage": True}}
        assert httpx.post(f"{url}/v1/completions", json=asking).content.count(USAGE) == 1
        lines = httpx.get(f"{url}/metrics").text.splitlines()
        tokens = [line for line in lines if line.startswith("gen_ai_client_token_usage_sum")]
        (told,) = [line for line in tokens if 'gen_ai_token_type="input"' in line]
        assert told.endswith(" 21.0")


@pytest.mark.parametrize("body", [STREAM, {**STREAM, "stream": False}], ids=["stream", "whole"])
def test_an_answer_that_the_engine_gave_up_is_asked_elsewhere(body: dict[str, object]) -> None:
    given_up = json_answer(b'{"choices":[{"text":"","finish_reason":"abort"}]}')
    stream = HEAD + chunk(ABORT + DONE) + b"0\r\n\r\n"
    good = HEAD + chunk(TOKEN + LAST + DONE) + b"0\r\n\r\n"
    good = good if body["stream"] else json_answer(b'{"choices":[{"text":"a"}]}')
    with (
        scripted(sends(stream if body["stream"] else given_up)) as bad,
        scripted(sends(good)) as other,
    ):
        route = EndpointRoute(name="echo", revisions=(revision("r1", bad.url, other.url),))
        with gateway_of(Board(route)) as url:
            for _ in range(4):
                answer = httpx.post(f"{url}/v1/completions", json=body)
                assert answer.status_code == 200
                assert b"abort" not in answer.content
            assert b'kind="failed"' in httpx.get(f"{url}/metrics").content
        assert len(bad.asked) >= 1


def test_an_answer_that_the_engine_gives_up_later_ends_by_an_error() -> None:
    with gateway_before(HEAD, chunk(TOKEN + ABORT + DONE), b"0\r\n\r\n") as (url, _):
        text = httpx.post(f"{url}/v1/completions", json=STREAM).text
    assert '"abort"' not in text
    assert '"code":"replica_failed"' in text
    assert "[DONE]" not in text


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/v1/embeddings", "/v1/embeddings"),
        ("/v1/responses?include=x&y=%20z", "/v1/responses?include=x&y=%20z"),
        ("/echo/v1/messages", "/v1/messages"),
        ("/tokenize", "/tokenize"),
        ("/echo/rerank", "/rerank"),
        ("/v1/rerank", "/v1/rerank"),
        ("/v1/score", "/v1/score"),
        ("/v2/rerank", "/v2/rerank"),
        ("/echo/v2/rerank", "/v2/rerank"),
        ("/v1/audio/speech", "/v1/audio/speech"),
    ],
)
def test_routes_and_fields_that_we_do_not_know_go_through(path: str, sent: str) -> None:
    body = {"model": "echo", "input": ["a"], "odd": {"deep": [1.50, None]}}
    with gateway_before(json_answer(b'{"ok":1}')) as (url, server):
        answer = httpx.post(f"{url}{path}", json=body)
        assert (answer.status_code, answer.json()) == (200, {"ok": 1})
    assert server.asked[0].startswith(b"POST %b HTTP/1.1\r\n" % sent.encode())
    assert body_of(server.asked[0]) == body


@pytest.mark.parametrize(
    "path",
    [
        "/v1/load_lora_adapter",
        "/v1/../pause",
        "/v1/%2e%2e/pause",
        "/v1//pause",
        "/v1/x/%2e%2e/%2e%2e/pause",
        "/pause",
        "/collective_rpc",
        "/v1/a%3fb",
        "/v1/a%0d%0ab",
    ],
)
def test_what_would_change_the_server_or_leads_elsewhere_does_not(path: str) -> None:
    with gateway_before(json_answer(b"{}")) as (url, server):
        answer = httpx.post(f"{url}{path}", json={"model": "echo"})
        assert 400 <= answer.status_code < 500
    assert server.asked == []


def test_a_get_goes_through_where_the_path_names_the_endpoint() -> None:
    with gateway_before(json_answer(b'{"id":"r"}')) as (url, server):
        assert httpx.get(f"{url}/echo/v1/responses/r_1").json() == {"id": "r"}
        assert httpx.get(f"{url}/v1/responses/r_1").status_code == 405
    assert len(server.asked) == 1
    assert server.asked[0].startswith(b"GET /v1/responses/r_1 HTTP/1.1\r\n")


def test_a_form_goes_through_and_names_its_model_itself() -> None:
    sound = bytes(range(256)) * 50
    with gateway_before(json_answer(b'{"text":"a"}'), model="there") as (url, server):
        path = f"{url}/v1/audio/transcriptions"
        for form, status in ({"model": "echo"}, 200), ({"model": "other"}, 404):
            answer = httpx.post(path, data=form, files={"file": ("a.wav", sound)})
            assert answer.status_code == status
    whole = b"".join(server.asked)
    assert b'name="model"\r\n\r\nthere\r\n' in whole
    assert b"content-type: multipart/form-data; boundary=" in whole.lower()


def test_a_body_that_is_no_object_goes_through_where_the_path_names_the_endpoint() -> None:
    with gateway_before(json_answer(b"[2]"), model="there") as (url, server):
        assert httpx.post(f"{url}/echo/v1/predict", json=[1]).json() == [2]
    assert server.asked[0].endswith(b"\r\n\r\n[1]")


def test_headers_that_matter_go_on_and_those_of_the_hop_or_of_our_keys_do_not() -> None:
    secret = "of the replica"  # noqa: S105 - of a test
    headers = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=b",
        "openai-organization": "o",
        "x-request-id": "mine-1",
        "authorization": "Bearer key-of-the-client",
        "x-api-key": "key-of-the-client",
        "cookie": "a=b",
        "te": "trailers",
        "accept-encoding": "gzip",
        "connection": "keep-alive, x-of-the-hop",
        "x-of-the-hop": "1",
    }
    with gateway_before(json_answer(b"{}"), token=secret) as (url, server):
        answer = httpx.post(f"{url}/v1/completions", json=STREAM, headers=headers)
        assert answer.headers["x-request-id"] == "mine-1"
        made = httpx.post(f"{url}/v1/completions", json={"model": "no"}).headers["x-request-id"]
        assert len(made) == 32
    sent = server.asked[0].lower()
    for name in ("traceparent", "tracestate", "openai-organization", "x-request-id"):
        assert f"{name}: {headers[name]}".encode() in sent
    assert b"authorization: bearer of the replica" in sent
    for name in (b"key-of-the-client", b"cookie", b"\r\nte:", b"encoding: gzip", b"of-the-hop"):
        assert name not in sent


def test_errors_before_anthropics_clients_have_their_shape() -> None:
    with gateway_before(json_answer(b"{}")) as (url, _):
        error = httpx.post(f"{url}/v1/messages", json={"model": "no"}).json()
    assert (error["type"], error["error"]["code"]) == ("error", "model_not_found")


def test_a_client_that_waits_for_a_stream_hears_that_it_is_not_dead() -> None:
    soon = GatewayLimits(heartbeat_seconds=0.05, request_seconds=0.5)
    with scripted(waits()) as slow:
        route = EndpointRoute(name="echo", revisions=(revision("r1", slow.url),))
        with gateway_of(Board(route), soon) as url:
            answer = httpx.post(f"{url}/v1/completions", json=STREAM)
            assert answer.status_code == 200
            waiting, _, _ = answer.text.partition("data: ")
            assert waiting.count("\n\n") >= 2
            assert not waiting.strip(), (
                "clients that trim what comes would join the rest to an event"
            )
            assert '"code":"timeout"' in answer.text.split("\n\n")[-2]
            whole = httpx.post(f"{url}/v1/completions", json={**STREAM, "stream": False})
            assert whole.status_code == 504


def test_a_stream_that_falls_silent_is_a_failure_of_the_replica() -> None:
    with scripted(waits(HEAD, chunk(TOKEN))) as silent:
        route = EndpointRoute(name="echo", revisions=(revision("r1", silent.url),))
        with gateway_of(Board(route), GatewayLimits(silent_seconds=0.2)) as url:
            text = httpx.post(f"{url}/v1/completions", json=STREAM).text
    assert '"code":"replica_failed"' in text


def test_bodies_over_the_memory_of_the_gateway_are_refused_for_now() -> None:
    with gateway_before(json_answer(b"{}"), limits=GatewayLimits(buffered_bytes=1000)) as (url, _):
        answer = httpx.post(f"{url}/v1/completions", json={"model": "echo", "prompt": "a" * 2000})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
        assert httpx.post(f"{url}/v1/completions", json={"model": "echo"}).status_code == 200


@pytest.mark.parametrize(
    "said", [b"transfer-encoding: chunked\r\n\r\n9\r\n", b"content-length: 900\r\n\r\n"]
)
def test_a_body_takes_the_memory_of_what_has_come_of_it_and_no_more(said: bytes) -> None:
    limits = GatewayLimits(buffered_bytes=1000, body_bytes=1000)
    with gateway_before(json_answer(b"{}"), limits=limits) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\n" + said + b'{"model":')
            for _ in range(3):  # the first may be before the other's body
                whole = {"model": "echo", "prompt": "a" * 500}
                assert httpx.post(f"{url}/v1/completions", json=whole).status_code == 200


@pytest.mark.parametrize("size", [1 << 10, 1 << 14, 1 << 30])
def test_a_client_that_reads_late_holds_its_replica_back_and_gets_every_byte(size: int) -> None:
    events = b"".join(TOKEN.replace(b'"a"', b'"%06d"' % n) for n in range(1000)) * 800
    sent, held_back = 0, threading.Event()

    def sends_all(connection: socket.socket, _: Scripted) -> None:
        nonlocal sent
        connection.sendall(HEAD)
        connection.settimeout(0.5)
        parts = [chunk(events[at : at + size]) for at in range(0, len(events), size)]
        text, at = memoryview(b"".join([*parts, chunk(LAST + DONE), b"0\r\n\r\n"])), 0
        while at < len(text):
            try:
                at += connection.send(text[at : at + (1 << 16)])
            except TimeoutError:
                sent = sent or at
                held_back.set()

    with scripted(sends_all) as server:
        route = EndpointRoute(name="echo", revisions=(revision("r1", server.url),))
        with (
            gateway_of(Board(route)) as url,
            httpx.stream("POST", f"{url}/v1/completions", json=STREAM) as answer,
        ):
            assert held_back.wait(20)
            assert sent < len(events) / 2
            assert answer.read() == events + LAST + DONE


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_of_http_1_0_gets_a_body_that_ends_by_closing(*, streams: bool) -> None:
    stream, whole = TOKEN + LAST + DONE, b'{"choices":[]}'
    answer = HEAD + chunk(stream) + b"0\r\n\r\n" if streams else json_answer(whole)
    body = json.dumps({**STREAM, "stream": streams}).encode()
    head = b"POST /v1/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    with gateway_before(answer) as (url, _):
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(head + body)
            answered = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    top, _, rest = answered.partition(b"\r\n\r\n")
    assert b"chunked" not in top.lower()
    assert rest == (stream if streams else whole)


VECTOR = [0.5, -0.25]
EMBEDDED = {
    "object": "list",
    "model": "echo",
    "data": [
        {
            "object": "embedding",
            "index": 0,
            "embedding": base64.b64encode(struct.pack("<2f", *VECTOR)).decode(),
        }
    ],
    "usage": {"prompt_tokens": 5, "total_tokens": 5, "completion_tokens": 0},
}
RANKED = {
    "id": "r",
    "usage": {"total_tokens": 9},
    "results": [{"index": 0, "document": "x" * 2000}],
}


def test_models_that_pool_are_asked_as_they_are_and_cost_what_they_read() -> None:
    records: list[RequestRecord] = []
    mine = ApiKey(name="mine", digest=sha256(b"sk-mine").hexdigest(), tokens=1000)
    with scripted(sends(json_answer(json.dumps(EMBEDDED).encode()))) as server:
        board = Board(
            EndpointRoute(name="echo", revisions=(revision("r1", server.url),)),
            keys={mine.digest: mine},
        )
        with (
            gateway_of(board, record=records.append) as url,
            openai.OpenAI(base_url=f"{url}/v1", api_key="sk-mine", max_retries=0) as client,
        ):
            told = client.embeddings.create(model="echo", input=["a b c"], dimensions=2)
    assert (told.data[0].embedding, told.usage.prompt_tokens) == (VECTOR, 5)
    asked = body_of(server.asked[0])
    assert (asked["encoding_format"], asked["dimensions"]) == ("base64", 2)
    record = next(one for one in records if one.path == "/v1/embeddings")
    assert (record.key, record.prompt_tokens, record.completion_tokens) == ("mine", 5, 0)


@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/score", "/rerank"])
def test_what_tells_all_of_its_tokens_alone_is_charged_those(path: str) -> None:
    records: list[RequestRecord] = []
    with scripted(sends(json_answer(json.dumps(RANKED).encode()))) as server:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", server.url),)))
        with gateway_of(board, record=records.append) as url:
            body = {"model": "echo", "query": "q", "documents": ["x"]}
            assert httpx.post(f"{url}{path}", json=body).json() == RANKED
    assert [record.prompt_tokens for record in records] == [9]


def test_what_is_json_is_read_as_such_whatever_its_sender_calls_it() -> None:
    body = {"model": "echo", "prompt": "a", "n": 1000}
    form = {"content-type": "multipart/form-data; boundary=x"}
    with gateway_before(json_answer(b"{}")) as (url, server):
        for path in ("/v1/completions", "/echo/v1/completions"):
            answer = httpx.post(f"{url}{path}", content=json.dumps(body), headers=form)
            assert answer.json()["error"]["param"] == "n"
        asked = httpx.post(
            f"{url}/echo/v1/predict", content=json.dumps({"model": "echo"}), headers=form
        )
        assert asked.status_code == 200
    assert b"content-type: application/json" in server.asked[0].lower()
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", ["MODEL", "N", "Max_Tokens", "\u017ftream", "max_to\u212aens"])
def test_a_field_that_some_servers_read_in_other_letters_is_refused(name: str) -> None:
    with gateway_before(json_answer(b"{}")) as (url, server):
        body = {"model": "echo", "prompt": "a", name: 1000}
        answer = httpx.post(f"{url}/v1/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert server.asked == []


@pytest.mark.parametrize(
    "more",
    [{"model": "Z" * 10**6}, {"logit_bias": {"Z" * 10**6: 1}}, {"Z" * 10**6: 1}],
    ids=["model", "token", "field"],
)
def test_an_error_does_not_repeat_all_that_a_client_wrote(more: dict[str, object]) -> None:
    with echoing(echo_engine()) as urls:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))
        with gateway_of(board) as url:
            body = {"model": "echo", "prompt": "a", **more}
            answer = httpx.post(f"{url}/v1/completions", json=body)
    assert 400 <= answer.status_code < 500
    assert len(answer.content) < 2000
