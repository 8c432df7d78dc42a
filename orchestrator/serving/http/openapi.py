"""The OpenAPI document of the gateway, made of the requests that are checked.

Those of the embedded engine are known wholly. What an engine server or a server outside takes is
its own: the gateway passes on what it does not know, and the document promises no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic.json_schema import models_json_schema

from orchestrator import __version__
from orchestrator.serving.http.encoding import encode
from orchestrator.serving.http.request_fields import CHAT, COMPLETION, MESSAGE, Fields
from orchestrator.serving.http.requests import ChatRequest, CompletionRequest

Json = dict[str, Any]

_REF = "#/components/schemas/{model}"
_ERRORS = {
    "400": "The request is malformed, or asks for more than there is.",
    "401": "No API key, an unknown or an expired one.",
    "403": "The key may not ask for this model.",
    "404": "No such model.",
    "408": "The request did not arrive in time.",
    "413": "The body is too long.",
    "429": "The queue is full, or the key has used its minute; see `Retry-After`.",
    "502": "The replica failed.",
    "503": "There is no replica at the moment; see `Retry-After`.",
    "504": "The answer took too long.",
}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "minLength": 1},
                "type": {"enum": ["invalid_request_error", "rate_limit_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_USAGE: Json = {
    "type": "object",
    "required": ["prompt_tokens", "completion_tokens", "total_tokens"],
    "properties": {
        "prompt_tokens": {"type": "integer", "minimum": 0},
        "completion_tokens": {"type": "integer", "minimum": 0},
        "total_tokens": {"type": "integer", "minimum": 0},
        "prompt_tokens_details": {"type": "object"},
    },
}
_ANSWER: Json = {
    "type": "object",
    "required": ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"],
    "properties": {
        "id": {"type": "string"},
        "object": {"enum": ["text_completion", "chat.completion"]},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "system_fingerprint": {"type": "string"},
        "choices": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "usage": {"$ref": _REF.format(model="Usage")},
    },
}
_MODEL: Json = {
    "type": "object",
    "required": ["id", "object", "created", "owned_by"],
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "max_model_len": {"type": "integer", "minimum": 1},
    },
}
_LIST: Json = {
    "type": "object",
    "required": ["object", "data"],
    "properties": {
        "object": {"const": "list"},
        "data": {"type": "array", "items": {"$ref": _REF.format(model="Model")}},
    },
}
_HEALTH: Json = {"type": "object", "properties": {"status": {"const": "ok"}}}
_ENDPOINT = {"name": "endpoint", "in": "path", "required": True, "schema": {"type": "string"}}
_NAME = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_SESSION = {
    "name": "x-session-id",
    "in": "header",
    "required": False,
    "description": "Keeps a client on one revision, where the endpoint says so.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,128}$"},
}


_OPEN_REQUEST: Json = {
    "type": "object",
    "description": "For a model of an engine server: what that takes, by its own documentation.",
    "properties": {"model": {"type": "string"}},
    "additionalProperties": True,
}
_OPEN_ANSWER: Json = {"type": "object", "description": "As the engine server has it."}
_OF_SERVERS = ("embeddings", "responses", "messages", "rerank", "score")


@dataclass(frozen=True, slots=True)
class Kinds:
    """What answers at the endpoints that there are.

    Attributes:
        own: Some embedded engine.
        servers: Some engine server, or a server outside.
    """

    own: bool
    servers: bool


@lru_cache(maxsize=4)
def document(kinds: Kinds) -> bytes:
    """Return the document for endpoints of such kinds, as JSON."""
    return encode(_document(kinds))


def _document(kinds: Kinds) -> Json:
    bodies = (CompletionRequest, ChatRequest)
    _, schemas = models_json_schema([(kind, "validation") for kind in bodies], ref_template=_REF)
    defs = schemas["$defs"]
    tables = {"CompletionRequest": COMPLETION, "ChatRequest": CHAT, "Message": MESSAGE}
    described = {name: _by_table(defs[name], table) for name, table in tables.items()}
    ours = {"Error": _ERROR, "Answer": _ANSWER, "Usage": _USAGE, "Model": _MODEL, "Models": _LIST}
    served = {"ServerRequest": _OPEN_REQUEST, "ServerAnswer": _OPEN_ANSWER}
    ours |= served if kinds.servers else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "orchestrator gateway", "version": __version__},
        "paths": {**_watching(), **_below("", kinds), **_below("/{endpoint}", kinds)},
        "components": {
            "schemas": {**defs, **described, **ours},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _by_table(schema: Json, fields: Fields) -> Json:
    """Return a schema with all fields that are known, and no others."""
    properties: Json = {}
    for name, field in fields.items():
        if field.state == "done":
            properties[name] = {**schema["properties"][name], "description": field.note}
        elif field.state == "inert":
            properties[name] = {"description": "Changes nothing."}
        else:
            described = "Not supported, but for these values."
            properties[name] = {"enum": list(field.neutral), "description": described}
    return {**schema, "properties": properties, "additionalProperties": False}


def _watching() -> Json:
    return {
        "/health": {"get": _operation("health", _json(_HEALTH))},
        "/ready": {"get": _operation("ready", _json(_HEALTH), ["503"])},
        "/openapi.json": {"get": _operation("openapi", _json({"type": "object"}))},
    }


def _below(prefix: str, kinds: Kinds) -> Json:
    """Return the paths of all endpoints, or of a fixed one."""
    of = "_of_endpoint" if prefix else ""
    more = [_ENDPOINT] if prefix else []
    names: Json = {"completions": "CompletionRequest", "chat/completions": "ChatRequest"}
    asked: Json = {path: _generation(kinds, name) for path, name in names.items()}
    if kinds.servers:
        asked |= {path: _generation(Kinds(own=False, servers=True)) for path in _OF_SERVERS}
    if prefix:
        asked["predict"] = ({}, _json({}))
    paths: Json = {}
    for path, (body, answers) in asked.items():
        operation = _operation(path.replace("/", "_") + of, answers, list(_ERRORS), kinds)
        operation["requestBody"] = {"required": True, "content": _json(body)}
        operation["parameters"] = [*more, _SESSION]
        paths[f"{prefix}/v1/{path}"] = {"post": operation}
    for path, schema, params in (("", "Models", more), ("/{model}", "Model", [*more, _NAME])):
        name = f"model{of}" if path else f"models{of}"
        operation = _operation(name, _json(_ref(schema)), ["401", "404"])
        paths[f"{prefix}/v1/models{path}"] = {"get": {**operation, "parameters": params}}
    return paths


def _generation(kinds: Kinds, name: str = "") -> tuple[Json, Json]:
    """Return what may be sent as `name`, and what is answered, where endpoints are of `kinds`."""
    own = (_ref(name), _ref("Answer")) if kinds.own else None
    served = (_ref("ServerRequest"), _ref("ServerAnswer")) if kinds.servers else None
    if own and served:
        body, whole = {"anyOf": [own[0], served[0]]}, {"anyOf": [own[1], served[1]]}
    else:
        body, whole = own or served or ({}, {})
    return body, {**_json(whole), "text/event-stream": {"schema": {"type": "string"}}}


_OWN = Kinds(own=True, servers=False)


def _operation(
    name: str, answers: Json, errors: list[str] | None = None, kinds: Kinds = _OWN
) -> Json:
    error = {"anyOf": [_ref("Error"), _ref("ServerAnswer")]} if kinds.servers else _ref("Error")
    refused = {
        status: {"description": _ERRORS[status], "content": _json(error)}
        for status in errors or []
    }
    return {
        "operationId": name,
        "responses": {"200": {"description": "The answer.", "content": answers}, **refused},
    }


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _ref(name: str) -> Json:
    return {"$ref": _REF.format(model=name)}
