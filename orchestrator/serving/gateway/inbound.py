"""A request as the gateway knows it: what it must, of what is handed on unread.

That is the model, whether the answer is a stream, how many answers are wanted and how long each
may be. The rest of a body, known or not, is the business of whoever answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from orchestrator.serving.gateway.charging import MAKING, READING
from orchestrator.serving.gateway.fair_queue import Share
from orchestrator.serving.gateway.routes import RevisionRoute
from orchestrator.serving.gateway.upstream import Sent
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.asgi import ANSWER_SECONDS, Scope, header
from orchestrator.serving.http.depth import check_depth
from orchestrator.serving.http.encoding import encode
from orchestrator.serving.http.request_limits import GatewayLimits

_PATH = re.compile(r"(?:/[A-Za-z0-9_:@~-][A-Za-z0-9_:@~.-]*)+")  # and so no `..`, nothing escaped
ROOT_PATHS = frozenset(
    {"/tokenize", "/detokenize", "/score", "/rerank", "/v2/rerank", "/classify", "/pooling"}
)
_LONG_NUMBER = 64  # characters: what a server may still read as a number
# Paths whose requests name a model, where the path of the gateway does not.
_MODELLED = frozenset(
    f"/v1/{name}"
    for name in ("completions", "chat/completions", "embeddings", "responses", "messages")
)
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
# What is JSON, whatever its sender calls it: in a form its limits would not be seen.
_NO_FORM = MAKING | READING | {"/v1/predict", "/tokenize", "/detokenize"}
# Fields that are read here, under these names alone: some servers read them in other letters too.
_READ = frozenset(
    {"model", "n", "prompt", "stream", "stream_options", "stream_interval", "priority", *_LIMITS}
)
_ADMINISTRATION = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
_HANDED_ON = frozenset({"accept", "content-type", "traceparent", "tracestate", "user-agent"})
_FAMILIES = ("openai-", "anthropic-")
_USAGE_ASKED = frozenset({"/v1/completions", "/v1/chat/completions"})
_MODEL = re.compile(rb'\bname="?model"?\s*(?:;|\r\n|$)', re.IGNORECASE)
_ANYBODY = Share()
_LONG_NAME = 64
_USAGE = b'"stream_options":{"include_usage":true},'


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundRequest:
    """A checked request.

    Attributes:
        endpoint: Whose it is.
        path: Below the replica's address, with its query.
        body: As the client sent it.
        method: Of HTTP.
        headers: What is handed on of the client's.
        client: What keeps it on a revision; empty where nothing does.
        choices: How many answers it wants, which is how much room it takes.
        streams: Whether the answer is a stream.
        interval: Tokens of each event of a stream.
        hides_usage: Whether the client did not ask for the usage that the gateway asks for.
        fields: The body, where it is an object of JSON.
        max_tokens: Of each answer, at most, where the client says so.
        priority: When it is its turn among those of its key.
        share: Whose it is, and what it weighs against others.
    """

    endpoint: str
    path: str
    body: bytes
    method: str = "POST"
    headers: Sent = field(default_factory=list)
    client: str = ""
    choices: int = 1
    streams: bool = False
    interval: int = 1
    hides_usage: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    priority: int = 0
    share: Share = _ANYBODY

    def outbound(self, revision: RevisionRoute) -> tuple[Sent, bytes]:
        """Return headers and body for a replica of `revision`."""
        model = revision.model if revision.model != self.endpoint else ""
        headers = self.headers
        if revision.far is not None:
            own = {ANSWER_SECONDS, *(name for name, _ in revision.far.headers)}
            headers = [
                *(header for header in headers if header[0] not in own),
                *revision.far.headers,
            ]
        elif revision.token:
            headers = [*headers, ("authorization", f"Bearer {revision.token}")]
        if not self.fields:
            return headers, _form_for(self.headers, self.body, model) if model else self.body
        options = self.fields.get("stream_options")
        if not model and not revision.outside and not (self.hides_usage and options):
            if not self.hides_usage:
                return headers, self.body
            start = self.body.index(b"{") + 1
            return headers, self.body[:start] + _USAGE + self.body[start:]
        changed = dict(self.fields)  # one of each field, whatever the client wrote twice
        if model and "model" in changed:
            changed["model"] = model
        if self.hides_usage:
            more = options if isinstance(options, dict) else {}
            changed["stream_options"] = {**more, "include_usage": True}
        return headers, encode(changed)


def is_passed(path: str) -> bool:
    """Whether a path is one of those that replicas answer: what we know of, and what we don't.

    Not passed on are paths that change the server, and those that are written in odd ways.
    """
    public = path in ROOT_PATHS or path.startswith("/v1/")
    return public and path not in _ADMINISTRATION and _PATH.fullmatch(path) is not None


def inbound(
    scope: Scope, path: str, endpoint: str, body: bytes, limits: GatewayLimits
) -> InboundRequest:
    """Return the request; its `endpoint` is the model that it names.

    Raises:
        ApiError: It is malformed, or wants too much.
    """
    kind = (header(scope, b"content-type") or b"").lower()
    query = scope.get("query_string", b"").decode("latin-1")
    whole_path = f"{path}?{query}" if query else path
    method, headers = scope["method"], _handed_on(scope)
    if kind.startswith(b"multipart/form-data") and path not in _NO_FORM:
        model = _form_model(kind_of(scope), body) or endpoint
        return InboundRequest(
            endpoint=model, path=whole_path, body=body, method=method, headers=headers
        )
    if not body:
        return InboundRequest(
            endpoint=endpoint, path=whole_path, body=body, method=method, headers=headers
        )
    check_depth(body, limits.depth)
    fields = _object(body)
    _check_names(fields)
    if endpoint and path in _MODELLED and "model" not in fields and body.lstrip()[:1] == b"{":
        fields = {"model": endpoint, **fields}  # the path has named it
        body = encode(fields)
    streams = fields.get("stream") is True
    choices = _choices(fields)
    max_tokens, priority = _max_tokens(fields, limits), fields.get("priority")
    if choices > limits.choices:
        what = f"{choices} answers at once; {limits.choices} at most"
        raise ApiError(400, what, param="n")
    options = fields.get("stream_options")
    include_usage = options.get("include_usage") if isinstance(options, dict) else None
    return InboundRequest(
        endpoint=_model(fields, endpoint),
        path=whole_path,
        body=body,
        method=method,
        headers=[(n, v) for n, v in headers if n != "content-type"]
        + [("content-type", "application/json")],
        choices=choices,
        streams=streams,
        interval=_interval(fields),
        hides_usage=streams
        and path in _USAGE_ASKED
        and _absent(options)
        and (include_usage is None or include_usage is False),
        fields=fields,
        max_tokens=max_tokens,
        priority=priority if isinstance(priority, int) else 0,
    )


def request_id(scope: Scope) -> str:
    """Return the client's own `x-request-id`, where it is one; else nothing."""
    own = header(scope, b"x-request-id") or b""
    text = own.decode("latin-1")
    return text if 0 < len(text) <= 128 and text.isascii() and text.isprintable() else ""  # noqa: PLR2004 - what logs bear


def kind_of(scope: Scope) -> bytes:
    """Return the content type."""
    return header(scope, b"content-type") or b""


def _handed_on(scope: Scope) -> Sent:
    headers: Sent = []
    for raw, value in scope["headers"]:
        name = raw.decode("latin-1")
        if name in _HANDED_ON or name.startswith(_FAMILIES):
            headers.append((name, value.decode("latin-1")))
    return headers


def _object(body: bytes) -> dict[str, Any]:
    try:
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        what = f"the body is not valid JSON: {error}"
        raise ApiError(400, what, code="invalid_json") from error
    return fields if isinstance(fields, dict) else {}


def _check_names(fields: Mapping[str, Any]) -> None:
    """Refuse a field that another server may take for one that is read here."""
    for name in fields:
        if name not in _READ and len(name) < _LONG_NAME and name.casefold() in _READ:
            what = f"unknown field {name!r}; write {name.casefold()!r}"
            raise ApiError(400, what, param=name, code="unsupported_parameter")


def _absent(options: object) -> bool:
    """Whether `stream_options` may be filled in: one of a wrong type is refused by the replica."""
    return options is None or isinstance(options, dict)


def _model(fields: Mapping[str, Any], endpoint: str) -> str:
    model = fields.get("model", endpoint)
    if not isinstance(model, str):
        raise ApiError(400, f"model: a text is needed, not {model!r:.80}", param="model")
    return model


def _choices(fields: Mapping[str, Any]) -> int:
    prompt = fields.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and not _is_count(prompt[0])
    prompts = len(prompt) if several and isinstance(prompt, list) else 1
    return prompts * max(1, _counted(fields.get("n")) or 1)


def _max_tokens(fields: Mapping[str, Any], limits: GatewayLimits) -> int | None:
    """Return the most that any of its limits allows: servers read one or another of them."""
    most = None
    for name in _LIMITS:
        count = _counted(fields.get(name))
        if count is not None:
            if count > limits.max_tokens:
                raise ApiError(400, f"{name} is over {limits.max_tokens}", param=name)
            most = max(most or 0, count)
    return most


def _interval(fields: Mapping[str, Any]) -> int:
    """Return how many tokens a server waits for before it tells them, where that may be said."""
    return max(1, _counted(fields.get("stream_interval")) or 1)


def _counted(value: object) -> int | None:
    """Return a number as any server may read it: 5.0 and, where they are lenient, "5" too."""
    if isinstance(value, str) and len(value) < _LONG_NUMBER:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if _is_count(value) and isinstance(value, int) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _parts(kind: bytes, body: bytes) -> tuple[bytes, list[bytes]]:
    """Return what stands between the parts of a form, and the parts."""
    _, _, rest = kind.partition(b"boundary=")
    boundary = b"--" + rest.split(b";")[0].strip().strip(b'"')
    return boundary, body.split(boundary) if len(boundary) > 2 else []  # noqa: PLR2004 - its dashes


def _form_model(kind: bytes, body: bytes) -> str:
    """Return the model that a form names; nothing where it names none.

    Raises:
        ApiError: It names several.
    """
    _, parts = _parts(kind, body)
    models = [value for head, value in map(_field, parts) if _MODEL.search(head)]
    if len(models) > 1:
        raise ApiError(400, "the form names several models", param="model")
    return models[0].decode("utf-8", "replace") if models else ""


def _field(part: bytes) -> tuple[bytes, bytes]:
    head, _, value = part.partition(b"\r\n\r\n")
    return head + b"\r\n", value.removesuffix(b"\r\n")


def _form_for(headers: Sent, body: bytes, model: str) -> bytes:
    """Return a form with another model in it, where it has one."""
    kind = next((value for name, value in headers if name == "content-type"), "").encode()
    boundary, parts = _parts(kind, body)
    if not parts:
        return body
    return boundary.join(
        part.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + model.encode() + b"\r\n"
        if _MODEL.search(_field(part)[0])
        else part
        for part in parts
    )
