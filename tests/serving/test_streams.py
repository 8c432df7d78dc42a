"""Streams of engine servers through the gateway: nothing is lost, and all is charged."""

from __future__ import annotations

import json
import socket

import httpx2 as httpx
import pytest

from orchestrator.serving.gateway.access_log import RequestRecord
from orchestrator.serving.gateway.event_stream import EventStream
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.supervisor.record import wait
from tests.serving.http_server import Board, gateway_of, revision
from tests.serving.scripted import HEAD, Scripted, chunk, scripted, sends


def event(told: object, name: str = "") -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + json.dumps(told, separators=(",", ":")).encode() + b"\n\n"


def message(kind: str, **fields: object) -> bytes:
    return event({"type": kind, **fields}, kind)


def chat(delta: object, used: int, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    usage = {"prompt_tokens": 3, "completion_tokens": used}
    return event({"choices": [choice], "usage": usage})


START = message("message_start", message={"usage": {"input_tokens": 3, "output_tokens": 0}})
WORD = message("content_block_delta", delta={"type": "text_delta", "text": "a"})
MESSAGES = [
    START,
    WORD,
    WORD,
    message("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 2}),
    message("message_stop"),
]


def response(kind: str, usage: object = None, reason: object = None) -> bytes:
    """As vLLM writes it: what kind of event it is comes last."""
    told = {"id": "resp_1", "incomplete_details": reason, "object": "response", "usage": usage}
    return event({"response": told, "sequence_number": 1, "type": kind}, kind)


USED = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
DELTA = event({"delta": "a", "type": "response.output_text.delta"}, "response.output_text.delta")
BEGUN = [response("response.created"), response("response.in_progress"), DELTA, DELTA]
RESPONSES = [*BEGUN, response("response.completed", USED)]
CUT = [*BEGUN, response("response.incomplete", USED, {"reason": "max_output_tokens"})]
RUNNING = [
    chat({"role": "assistant"}, 0),
    chat({"content": "a"}, 1),
    chat({"content": "b"}, 2, "stop"),
    b"data: [DONE]\n\n",
]


@pytest.mark.parametrize(
    ("path", "stream"),
    [
        ("/v1/messages", b"".join(MESSAGES)),
        ("/v1/messages", b"".join([START, MESSAGES[-1]])),
        ("/v1/responses", b"".join(RESPONSES)),
        ("/v1/responses", b"".join(CUT)),
        ("/v1/chat/completions", b"".join(RUNNING)),
        ("/v1/chat/completions", b"".join(RUNNING)[:-1]),
    ],
    ids=["anthropic", "no reason", "responses", "cut", "openai", "one newline at the end"],
)
def test_a_stream_that_has_said_its_end_is_whole_though_its_connection_breaks(
    path: str, stream: bytes
) -> None:
    with scripted(sends(HEAD, chunk(stream))) as server:
        route = EndpointRoute(name="echo", revisions=(revision("r1", server.url),))
        with gateway_of(Board(route)) as url:
            body = {"model": "echo", "stream": True, "stream_options": {"include_usage": True}}
            assert httpx.post(f"{url}{path}", json=body).content == stream
            assert b"errors_total{" not in httpx.get(f"{url}/metrics").content


@pytest.mark.parametrize(
    ("path", "events"),
    [
        ("/v1/messages", MESSAGES),
        ("/v1/responses", RESPONSES),
        ("/v1/responses", CUT),
        ("/v1/chat/completions", RUNNING),
    ],
)
def test_a_stream_that_tells_at_first_that_nothing_is_used_comes_whole(
    path: str, events: list[bytes]
) -> None:
    records: list[RequestRecord] = []

    def one_by_one(connection: socket.socket, _: Scripted) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(HEAD)
        for part in events:
            connection.sendall(chunk(part))
            connection.settimeout(0.05)
            with pytest.raises(TimeoutError):  # so that each comes by itself
                connection.recv(1)
        connection.sendall(b"0\r\n\r\n")

    with scripted(one_by_one) as server:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", server.url),)))
        with gateway_of(board, record=records.append) as url:
            options = {"include_usage": True, "continuous_usage_stats": True}
            body = {"model": "echo", "stream": True, "stream_options": options}
            assert httpx.post(f"{url}{path}", json=body).content == b"".join(events)
    assert [(one.prompt_tokens, one.completion_tokens) for one in records] == [(3, 2)]


def test_tokens_count_by_events_until_the_end_tells_them() -> None:
    stream = EventStream()
    counts = []
    for part in MESSAGES:
        stream.feed(part)
        counts.append(stream.completion_tokens)
    assert counts == [1, 2, 3, 2, 2]


def recorded_of_who_leaves(sent: bytes, at: str, **asked: object) -> RequestRecord:
    """Return what is recorded of a client that leaves at a line of a stream that goes on."""
    records: list[RequestRecord] = []

    def goes_on(connection: socket.socket, found: Scripted) -> None:
        connection.sendall(HEAD + chunk(sent))
        connection.settimeout(10)
        while connection.recv(1 << 16):
            pass
        found.left.set()

    with scripted(goes_on) as server:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", server.url),)))
        with gateway_of(board, record=records.append) as url:
            body = {"model": "echo", "stream": True, **asked}
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
                assert any(line.startswith(at) for line in answer.iter_lines())
            assert server.left.wait(10)
            assert wait(lambda: bool(records), 5.0)
    (record,) = records
    return record


def test_a_client_that_has_tokens_told_in_bundles_and_leaves_pays_for_all_of_them() -> None:
    bundle = chat({"content": "a" * 50}, 0)
    assert recorded_of_who_leaves(bundle, "data: ", stream_interval=50).completion_tokens == 50


def test_a_client_that_leaves_at_the_last_event_pays_what_the_stream_has_told() -> None:
    usage = {"include_usage": True}
    last = "data: [DONE]"
    record = recorded_of_who_leaves(b"".join(RUNNING), last, stream_options=usage)
    assert (record.prompt_tokens, record.completion_tokens) == (3, 2)
