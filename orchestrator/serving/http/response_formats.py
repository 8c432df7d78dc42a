"""What an answer must be like: response formats and structured outputs, as grammars."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.engine import Grammar

_STRICT = ConfigDict(strict=True, frozen=True, extra="forbid")
_MOST = 64 * 1024


class JsonSchema(BaseModel):
    """The schema of a response format, by OpenAI's fields."""

    model_config = _STRICT | {"populate_by_name": True}

    name: str | None = None
    description: str | None = None
    fields: dict[str, Any] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """`response_format`."""

    model_config = _STRICT

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _whole(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("'json_schema' stands with 'type': 'json_schema' alone")
        return self

    def grammar(self) -> Grammar | None:
        """Return it as a grammar."""
        if self.json_schema is not None:
            return Grammar("json_schema", json.dumps(self.json_schema.fields))
        return Grammar("json_object") if self.type == "json_object" else None


class StructuredOutputs(BaseModel):
    """`structured_outputs` of vLLM: one way of saying what the answer is like."""

    model_config = _STRICT | {"populate_by_name": True}

    schema_: str | dict[str, Any] | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Annotated[str, Field(min_length=1, max_length=_MOST)] | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    grammar_: Annotated[str, Field(min_length=1, max_length=_MOST)] | None = Field(
        None, alias="grammar"
    )

    @model_validator(mode="after")
    def _single(self) -> StructuredOutputs:
        given = (self.schema_, self.json_object or None, self.regex, self.choice, self.grammar_)
        if sum(value is not None for value in given) != 1:
            raise ValueError("takes one of json, json_object, regex, choice and grammar")
        return self

    def grammar(self) -> Grammar:
        """Return it as a grammar."""
        if self.schema_ is not None:
            schema = self.schema_
            text = schema if isinstance(schema, str) else json.dumps(schema)
            return Grammar("json_schema", text)
        if self.regex is not None:
            return Grammar("regex", self.regex)
        if self.choice is not None:
            return Grammar("choice", json.dumps(self.choice))
        return Grammar("grammar", self.grammar_) if self.grammar_ else Grammar("json_object")
