"""Spans of requests by OpenTelemetry's SDK, with the names of its conventions for generative AI.

This module imports the SDK: it is imported only where an exporter is set. A span is the child of
the client's (`traceparent`), and the parent of what the replica makes. It is exported by a thread,
in batches; no word of a prompt or an answer is in it.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.serving.gateway.gateway_metrics import Tally
from orchestrator.serving.gateway.inbound import is_passed
from orchestrator.serving.http.api_errors import CLIENT_LEFT
from orchestrator.serving.http.asgi import Handler, Receive, Scope, Send

SERVICE = "orchestrator-gateway"
_CONTEXT = ("traceparent", "tracestate")
_FAILED = 500
_OPERATIONS = {
    "/v1/completions": "text_completion",
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/embeddings": "embeddings",
}


class Tracing:
    """Makes spans, and exports them to where the SDK's own variables say (`OTEL_...`)."""

    def __init__(self, name: str, version: str) -> None:
        """Begin; `name` is the service's."""
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: name, SERVICE_VERSION: version})
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("orchestrator.serving", version)
        self._propagator = TraceContextTextMapPropagator()

    def around(self, app: Handler) -> Handler:
        """Return `app` with a span around each request to a model."""

        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not is_passed(_below(scope["path"])):
                await app(scope, receive, send)
                return
            span = self._begin(scope)
            answered = _TracedSend(send)
            try:
                await app(scope, receive, answered)
            finally:
                _describe(span, scope, answered.status or CLIENT_LEFT)
                span.end()

        return handle

    def close(self) -> None:
        """Export what is left, for as long as the exporter may try (10 s unless set)."""
        self._provider.shutdown()

    def _begin(self, scope: Scope) -> Span:
        """Begin the span of a request, which takes the place of the client's in its headers."""
        carrier = {
            name: value.decode("latin-1")
            for raw, value in scope["headers"]
            if (name := raw.decode("latin-1")) in _CONTEXT
        }
        parent = self._propagator.extract(carrier)
        operation = _OPERATIONS.get(_below(scope["path"]), "")
        known = {"gen_ai.operation.name": operation} if operation else {}
        span = self._tracer.start_span(
            operation or f"{scope['method']} {_below(scope['path'])}",
            parent,
            SpanKind.SERVER,
            {"http.request.method": scope["method"], "url.path": scope["path"], **known},
        )
        ours: dict[str, str] = {}
        self._propagator.inject(ours, set_span_in_context(span))
        others = [pair for pair in scope["headers"] if pair[0].decode("latin-1") not in _CONTEXT]
        scope["headers"] = [*others, *((n.encode(), v.encode()) for n, v in ours.items())]
        return span


class _TracedSend:
    """What sends an answer; `status` is 0 until it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def _describe(span: Span, scope: Scope, status: int) -> None:
    """Say in a span what came of its request."""
    span.set_attribute("http.response.status_code", status)
    if status >= _FAILED:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))
    tally: Tally | None = scope.get("tally")
    if tally is None or not tally.endpoint:
        return
    operation = _OPERATIONS.get(_below(scope["path"]), "")
    if operation:
        span.update_name(f"{operation} {tally.endpoint}")
    span.set_attribute("gen_ai.provider.name", "orchestrator")
    span.set_attribute("gen_ai.request.model", tally.endpoint)
    span.set_attribute("orchestrator.queue_seconds", tally.queued)
    if tally.key:
        span.set_attribute("orchestrator.key", tally.key)
    _describe_answer(span, tally)


def _describe_answer(span: Span, tally: Tally) -> None:
    if tally.revision is not None:
        span.set_attribute("gen_ai.response.model", tally.revision.model or tally.endpoint)
        span.set_attribute("orchestrator.revision", tally.revision.name)
        span.set_attribute("orchestrator.pool", tally.revision.pool)
    if tally.status:
        span.set_attribute("gen_ai.usage.input_tokens", tally.prompt_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", tally.completion_tokens)
    if tally.reasons:
        span.set_attribute("gen_ai.response.finish_reasons", tuple(tally.reasons))
    if tally.first:
        span.set_attribute("gen_ai.response.time_to_first_chunk", tally.first - tally.began)


def _below(path: str) -> str:
    """Return a path without the endpoint that may stand before it."""
    start = path.find("/v1/")
    return path[start:] if start > 0 else path
