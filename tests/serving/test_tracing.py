"""Spans, as OpenTelemetry's own messages decode them at an OTLP receiver."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2 as httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from orchestrator.serving.gateway.access_log import RequestRecord
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.gateway.tracing import Tracing
from orchestrator.supervisor.record import wait
from tests.serving.http_server import SOON, Board, echo_engine, echoing, gateway_of, revision
from tests.serving.scripted import JSON, scripted, sends

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLIENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
SECRET = "what nobody else may read"  # noqa: S105 - a prompt
SECONDS = 5.0


class Receiver:
    """What has come to an OTLP receiver: spans, and the attributes of who sent them."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resource: dict[str, object] = {}
        self.raw = b""

    def take(self, body: bytes) -> None:
        self.raw += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource = attributes(group.resource)
            for scope in group.scope_spans:
                self.spans += scope.spans


def attributes(of: Span) -> dict[str, object]:
    named = ((one.key, one.value) for one in of.attributes)
    told = {key: getattr(value, value.WhichOneof("value")) for key, value in named}
    return {
        key: [one.string_value for one in value.values] if hasattr(value, "values") else value
        for key, value in told.items()
    }


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    received = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            received.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_stream_has_a_span_below_the_clients_with_its_tokens_and_times_and_no_word(
    receiver: Receiver,
) -> None:
    tracing, log = Tracing("gateway-of-a-test", "1.2"), list[RequestRecord]()
    with echoing(echo_engine()) as urls:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", *urls),)))
        with gateway_of(board, record=log.append, around=tracing.around) as url:
            body = {"model": "echo", "prompt": SECRET, "stream": True, "max_tokens": 99}
            httpx.post(f"{url}/v1/completions", json=body, headers=CLIENT)
            httpx.get(f"{url}/health")
            assert wait(lambda: len(log) == 2, SECONDS)
    tracing.close()
    (span,) = receiver.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.name, span.kind) == ("text_completion echo", Span.SpanKind.SPAN_KIND_SERVER)
    assert receiver.resource["service.name"] == "gateway-of-a-test"
    told = attributes(span)
    first = told.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first <= (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9  # type: ignore[operator]
    assert told.pop("orchestrator.queue_seconds") >= 0  # type: ignore[operator]
    assert told == {
        "http.request.method": "POST",
        "url.path": "/v1/completions",
        "http.response.status_code": 200,
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "orchestrator",
        "gen_ai.request.model": "echo",
        "gen_ai.response.model": "echo",
        "gen_ai.usage.input_tokens": len(SECRET),
        "gen_ai.usage.output_tokens": len(SECRET),
        "gen_ai.response.finish_reasons": ["stop"],
        "orchestrator.revision": "r1",
        "orchestrator.pool": "pool-r1",
    }
    assert SECRET.encode() not in receiver.raw


def test_the_replica_gets_the_gateways_span_as_its_parent_and_the_log_the_trace(
    receiver: Receiver,
) -> None:
    tracing, log = Tracing("gateway", "1"), list[RequestRecord]()
    with scripted(sends(JSON + b"content-length: 2\r\n\r\n{}")) as server:
        board = Board(EndpointRoute(name="echo", revisions=(revision("r1", server.url),)))
        with gateway_of(board, record=log.append, around=tracing.around) as url:
            for headers in (CLIENT, {}):
                httpx.post(f"{url}/v1/chat/completions", json={"model": "echo"}, headers=headers)
            assert wait(lambda: len(log) == 2, SECONDS)
    tracing.close()
    parents = re.findall(r"traceparent: (00-.*)-0[13]\r", b"".join(server.asked).decode().lower())
    ours = {f"00-{s.trace_id.hex()}-{s.span_id.hex()}": s for s in receiver.spans}
    assert sorted(parents) == sorted(ours)
    assert [ours[sent].parent_span_id.hex() for sent in parents] == [PARENT, ""]
    assert {record.trace_id for record in log} == {s.trace_id.hex() for s in receiver.spans}
    assert b"tracestate: vendor=1" in server.asked[0].lower()


def test_a_failure_of_ours_is_an_error_and_a_refusal_is_none(receiver: Receiver) -> None:
    tracing = Tracing("gateway", "1")
    board = Board(EndpointRoute(name="echo", revisions=(revision("r1", "http://127.0.0.1:1"),)))
    with gateway_of(board, SOON, around=tracing.around) as url:
        httpx.post(f"{url}/v1/completions", json={"model": "no"})
        httpx.post(f"{url}/v1/completions", json={"model": "echo"}, timeout=30)
    tracing.close()
    spans = {attributes(span)["http.response.status_code"]: span for span in receiver.spans}
    refused, failed = spans.pop(404), spans.pop(503)
    assert not spans
    assert attributes(refused)["http.response.status_code"] == 404
    assert refused.status.code == Status.StatusCode.STATUS_CODE_UNSET
    assert attributes(failed)["error.type"] == "503"
    assert failed.status.code == Status.StatusCode.STATUS_CODE_ERROR


def test_the_sdk_is_imported_only_where_it_is_asked_for() -> None:
    code = (
        "import sys, orchestrator.service.daemons.gateway, orchestrator.wiring as w; w.tracing();"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
