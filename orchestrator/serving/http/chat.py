"""Messages and tools of a chat: as clients send them, and as chat templates know them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from orchestrator.engine import Grammar
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.request_fields import MESSAGE, admitted

_STRICT = ConfigDict(strict=True, frozen=True)
_NAME = r"^[A-Za-z0-9_.-]{1,64}$"
_KINDS = ("text", "refusal")  # of parts, and the field of each that has its text
_PARTS = [
    {
        "type": "object",
        "required": ["type", kind],
        "properties": {"type": {"const": kind}, kind: {"type": "string"}},
    }
    for kind in _KINDS
]
_CONTENT = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"anyOf": _PARTS}}]}


def _joined(value: object) -> object:
    """Return the text of a message that comes in parts."""
    if not isinstance(value, list):
        return value
    parts = []
    for place, item in enumerate(value):
        kind = item.get("type") if isinstance(item, dict) else None
        if kind not in _KINDS or not isinstance(item.get(kind), str):
            shown = f"of type {kind!r}" if isinstance(kind, str) else "of no type"
            raise ValueError(f"part {place} is {shown}; this engine reads parts of type 'text'")
        parts.append(item[kind])
    return "".join(parts)


class CalledFunction(BaseModel):
    """What an assistant called, with arguments as a JSON text."""

    model_config = _STRICT

    name: Annotated[str, Field(pattern=_NAME)]
    arguments: str

    @field_validator("arguments")
    @classmethod
    def _json(cls, value: str) -> str:
        try:
            json.dumps(json.loads(value or "{}"), ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise ValueError(f"should be a JSON text: {error}") from error
        return value


class ToolCall(BaseModel):
    """A call in the history of a chat."""

    model_config = _STRICT

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    def plain(self) -> dict[str, object]:
        """Return it as templates know it: with the arguments parsed."""
        arguments = json.loads(self.function.arguments or "{}")
        function = {"name": self.function.name, "arguments": arguments}
        return {"id": self.id, "type": self.type, "function": function}


class Message(BaseModel):
    """A message of a chat."""

    model_config = _STRICT

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[str, BeforeValidator(_joined), WithJsonSchema(_CONTENT)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _admitted(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        try:
            return admitted(MESSAGE, value)
        except ApiError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _whole(self) -> Message:
        said = self.tool_calls or self.refusal is not None
        if self.content is None and not (self.role == "assistant" and said):
            raise ValueError(f"a message of {self.role!r} needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("tool_calls are an assistant's")
        return self

    def plain(self) -> dict[str, object]:
        """Return the message as chat templates know it."""
        role = "system" if self.role == "developer" else self.role
        plain: dict[str, object] = {"role": role, "content": self.content or self.refusal or ""}
        for name in ("name", "tool_call_id", "reasoning", "reasoning_content"):
            if getattr(self, name) is not None:
                plain[name] = getattr(self, name)
        if self.tool_calls:
            plain["tool_calls"] = [call.plain() for call in self.tool_calls]
        return plain


class Function(BaseModel):
    """A function that the model may call."""

    model_config = _STRICT

    name: Annotated[str, Field(pattern=_NAME)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(BaseModel):
    """A tool that the model may use."""

    model_config = _STRICT

    type: Literal["function"]
    function: Function


class _FunctionName(BaseModel):
    model_config = _STRICT

    name: Annotated[str, Field(pattern=_NAME)]


class NamedTool(BaseModel):
    """The function that must be called."""

    model_config = _STRICT

    type: Literal["function"]
    function: _FunctionName

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name


def _choice(value: object) -> object:
    if isinstance(value, str) and value not in ("none", "auto", "required"):
        raise ValueError(f"should be 'none', 'auto', 'required' or a function, not {value!r}")
    return NamedTool.model_validate(value) if isinstance(value, dict) else value


_NAMED = NamedTool.model_json_schema()
ToolChoice: TypeAlias = Annotated[
    Literal["none", "auto", "required"] | NamedTool,
    BeforeValidator(_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"enum": ["none", "auto", "required"]},
                {
                    "type": "object",
                    "required": ["type", "function"],
                    "properties": {
                        "type": {"const": "function"},
                        "function": _NAMED["$defs"]["_FunctionName"],
                    },
                },
            ]
        }
    ),
]


def described(tools: Sequence[Tool]) -> list[dict[str, object]]:
    """Return the tools as chat templates know them."""
    return [tool.model_dump(exclude_none=True) for tool in tools]


def grammar_of_calls(tools: Sequence[Tool], chosen: str, *, several: bool) -> Grammar | None:
    """Return what an answer must be like that calls the `chosen` function, or any `required` one.

    A chosen one answers with its arguments; `required` with a list of names and arguments.
    """
    schemas = {tool.function.name: tool.function.parameters or _ANY for tool in tools}
    if chosen in schemas:
        return Grammar("json_schema", json.dumps(schemas[chosen]))
    if chosen != "required":
        return None
    calls = [
        _call(name, _embedded(parameters, f"#/items/anyOf/{place}/properties/arguments"))
        for place, (name, parameters) in enumerate(schemas.items())
    ]
    schema: dict[str, object] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    return Grammar("json_schema", json.dumps(schema if several else {**schema, "maxItems": 1}))


_ANY: Mapping[str, object] = {"type": "object"}


def _embedded(schema: Mapping[str, object], to: str) -> object:
    """Return a whole JSON schema as a part of another one: it has no name of its own there."""
    name = schema.get("$id")
    plain = {key: value for key, value in schema.items() if key not in ("$id", "$schema")}
    return moved(plain, to, name if isinstance(name, str) else "")


def moved(schema: object, to: str, name: str = "") -> object:
    """Return a JSON schema with its references to itself made for a place `to` in another one.

    They begin with `#`, or with its `name` before that.
    """
    if isinstance(schema, list):
        return [moved(item, to, name) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed: dict[str, object] = {}
    for key, value in schema.items():
        if key == "$ref" and isinstance(value, str):
            own = "#" if value == name else value.removeprefix(name)
            changed[key] = to + own[1:] if own == "#" or own.startswith("#/") else value
        elif key in _NAMED_SCHEMAS and isinstance(value, dict):
            changed[key] = {
                label: moved(subschema, to, name) for label, subschema in value.items()
            }
        else:
            changed[key] = value if key in _VALUES else moved(value, to, name)
    return changed


# Keywords of JSON Schema whose keys are names, and those that hold plain values.
_NAMED_SCHEMAS = frozenset(
    {"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"}
)
_VALUES = frozenset({"const", "enum", "default", "examples", "example"})


def _call(name: str, parameters: object) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }
