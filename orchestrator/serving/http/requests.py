"""What may be asked: requests of the OpenAI API with vLLM's fields, and their bounds.

Types are strict: no number is read from a string, though 5.0 is a whole number. Which fields there
are stands in `request_fields`; here is what those that are done look like.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)

from orchestrator.engine import Grammar, Sampling
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.bodies import is_token, json_object, shown, whole
from orchestrator.serving.http.chat import Message, Tool, ToolChoice
from orchestrator.serving.http.request_fields import CHAT, COMPLETION, admitted
from orchestrator.serving.http.response_formats import ResponseFormat, StructuredOutputs

DEFAULT_TOKENS = 16
_SEEDS = 1 << 63
_COLDEST = 1e-5  # as vLLM has it: below it is greedy
_ID = re.compile("[0-9]{1,9}")  # of a token
_WORTH_SHOWING = 64 * 1024  # bytes of a body whose faulty value is shown
_STRICT = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
_PROMPTS = 64
Prompt: TypeAlias = "str | list[int]"


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _numbered(value: object) -> object:
    """Return a bias with its token ids as numbers; JSON has them as texts."""
    if not isinstance(value, dict):
        return value
    wrong = next((key for key in value if not (isinstance(key, str) and _ID.fullmatch(key))), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is no token id")
    return {int(key): number for key, number in value.items()}


def _prompts(value: object) -> object:
    """Return the prompts in a field that holds one or several, each a text or token ids."""
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise ValueError("should be a text, token ids, or a list of these, and not empty")
    if all(map(is_token, value)):
        return [value]
    if len(value) > _PROMPTS:
        raise ValueError(f"{len(value)} prompts at once; {_PROMPTS} at most")
    for place, item in enumerate(value):
        tokens = isinstance(item, list) and all(map(is_token, item))
        if not item or not (isinstance(item, str) or tokens):
            raise ValueError(f"number {place} should be a text or token ids, and not empty")
    return value


Whole = BeforeValidator(whole)
Count = Annotated[int, Field(ge=1, lt=1 << 31), Whole]
Limit = Annotated[int, Field(ge=0, lt=1 << 31), Whole]
Top = Annotated[int, Field(ge=0, le=20), Whole]
Token = Annotated[int, Field(ge=0, lt=1 << 31), Whole]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]
_TEXT = {"type": "string", "minLength": 1}
_TOKENS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_MANY = {
    "type": "array",
    "minItems": 1,
    "maxItems": _PROMPTS,
    "items": {"anyOf": [_TEXT, _TOKENS]},
}
_STOPS = {"type": "array", "maxItems": 4, "items": {**_TEXT, "maxLength": 256}}


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = _STRICT | {"extra": "forbid"}

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None  # padding against eavesdroppers: inert


class _RequestModel(BaseModel):
    model_config = _STRICT

    model: str
    n: Annotated[int, Field(ge=1, le=16), Whole] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, lt=1 << 31), Whole] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-_SEEDS, lt=_SEEDS), Whole] | None = None
    stop: (
        Annotated[
            list[StopText],
            Field(max_length=4, fail_fast=True),
            BeforeValidator(_listed),
            WithJsonSchema({"anyOf": [{**_TEXT, "maxLength": 256}, _STOPS]}),
        ]
        | None
    ) = None
    stop_token_ids: Annotated[list[Token], Field(max_length=64, fail_fast=True)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: Limit | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    logit_bias: (
        Annotated[
            dict[int, Bias],
            Field(max_length=1024),
            BeforeValidator(_numbered),
            WithJsonSchema(
                {
                    "type": "object",
                    "maxProperties": 1024,
                    "propertyNames": {"pattern": f"^{_ID.pattern}$"},
                    "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
                }
            ),
        ]
        | None
    ) = None
    max_tokens: Limit | None = None
    prompt_logprobs: Top | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    request_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")] | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def running_usage(self) -> bool:
        """Whether each event of the stream has the usage until then."""
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most, where the client says so."""
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Likeliest tokens wanted a position; `None` where no log-probabilities are."""
        return None

    @property
    def prompt_alternatives(self) -> int | None:
        """The same of the prompt's tokens."""
        return self.prompt_logprobs

    def grammar(self) -> Grammar | None:
        """Return what the answer must be like."""
        formats = self.response_format.grammar() if self.response_format else None
        return self.structured_outputs.grammar() if self.structured_outputs else formats

    def sampling(
        self, choice: int, max_tokens: int, defaults: Mapping[str, float], grammar: Grammar | None
    ) -> Sampling:
        """Return how to draw choice number `choice`; each has a seed of its own."""
        plain = Sampling()
        drawn: dict[str, Any] = {}
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty"):
            asked = getattr(self, name)
            drawn[name] = defaults.get(name, getattr(plain, name)) if asked is None else asked
        if drawn["temperature"] < _COLDEST:
            drawn["temperature"] = 0.0
        return Sampling(
            **{**drawn, "top_k": max(0, int(drawn["top_k"]))},
            max_tokens=max_tokens,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=self.logit_bias or {},
            stop=tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            min_tokens=min(self.min_tokens or 0, max_tokens),
            ignore_eos=bool(self.ignore_eos),
            include_stop=bool(self.include_stop_str_in_output),
            # Negative ones stand apart from their opposites; -1 is vLLM's word for none.
            seed=None if self.seed in (None, -1) else (self.seed + choice) % (2 * _SEEDS),
            logprobs=self.alternatives,
            prompt_logprobs=self.prompt_alternatives,
            grammar=grammar,
        )

    def check(self) -> None:
        """Refuse fields that don't go together.

        Raises:
            ApiError: There are some.
        """
        if self.prompt_logprobs is not None and self.stream:
            _contrary("prompt_logprobs", "prompt_logprobs come with whole answers alone")
        if self.limit is not None and (self.min_tokens or 0) > self.limit:
            _contrary("min_tokens", f"min_tokens is over max_tokens, {self.limit}")
        if self.grammar() is not None and self.response_format and self.structured_outputs:
            _contrary("structured_outputs", "response_format says already what the answer is like")


class CompletionRequest(_RequestModel):
    """Body of `POST /v1/completions`."""

    source: ClassVar[str] = "prompt"  # the field that the prompt is made of
    prompt: Annotated[
        list[Any],
        BeforeValidator(_prompts),
        WithJsonSchema({"anyOf": [_TEXT, _TOKENS, _MANY]}),
    ]
    logprobs: Top | None = None
    echo: bool | None = None
    add_special_tokens: bool | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most."""
        return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Likeliest tokens wanted a position."""
        return self.logprobs

    @property
    def prompt_alternatives(self) -> int | None:
        """The prompt's: an echo has as many as the answer."""
        echoed = self.logprobs if self.echo else None
        wanted = [number for number in (echoed, self.prompt_logprobs) if number is not None]
        return max(wanted) if wanted else None if self.limit else 0

    @property
    def prompts(self) -> list[Prompt]:
        """All prompts, each as text or as token ids."""
        return self.prompt

    def check(self) -> None:
        """Refuse fields that don't go together."""
        super().check()
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            _contrary("max_tokens", "max_tokens: 0 needs echo or prompt_logprobs")


class ChatRequest(_RequestModel):
    """Body of `POST /v1/chat/completions`."""

    source: ClassVar[str] = "messages"
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000, fail_fast=True)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    tools: Annotated[list[Tool], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most, where the client says so."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Likeliest tokens wanted a position."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def chosen(self) -> str:
        """`none`, `auto` or `required`; or the name of the function that must be called."""
        if not self.tools:
            return "none"
        choice = self.tool_choice
        return "auto" if choice is None else choice if isinstance(choice, str) else choice.name

    def check(self) -> None:
        """Refuse fields that don't go together."""
        super().check()
        if self.top_logprobs and not self.logprobs:
            _contrary("top_logprobs", "top_logprobs needs 'logprobs': true")
        if self.continue_final_message and self.add_generation_prompt:
            _contrary("continue_final_message", "the last message goes on, or a new one begins")
        if self.tool_choice not in (None, "none", "auto") and not self.tools:
            _contrary("tool_choice", "tool_choice needs tools")
        names = [tool.function.name for tool in self.tools or ()]
        if self.chosen not in ("none", "auto", "required", *names):
            _contrary("tool_choice", f"there is no tool {self.chosen!r}")
        if self.chosen not in ("none", "auto") and self.grammar() is not None:
            _contrary("response_format", f"tool_choice {self.chosen!r} says what is answered")


Kind = TypeVar("Kind", CompletionRequest, ChatRequest)


def parse(kind: type[Kind], body: bytes) -> Kind:
    """Return the request in `body`.

    Raises:
        ApiError: It is no JSON, not what `kind` asks for, or asks for what is not done here.
    """
    fields = COMPLETION if issubclass(kind, CompletionRequest) else CHAT
    asked = validated(kind, admitted(fields, json_object(body)), len(body))
    asked.check()
    return asked


Model = TypeVar("Model", bound=BaseModel)


def validated(kind: type[Model], fields: Mapping[str, object], size: int) -> Model:
    """Return `fields` as a `kind`; of bodies of a small `size` the faulty value is shown.

    Raises:
        ApiError: They are not.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        small = size < _WORTH_SHOWING
        problem = error.errors(include_url=False, include_input=small)[0]
    where = ".".join(str(part) for part in problem["loc"])
    shows = small and problem["type"] not in ("missing", "value_error")
    given = f", not {shown(problem['input'])}" if shows else ""
    message = problem["msg"].removeprefix("Value error, ")
    param = str(problem["loc"][0]) if problem["loc"] else None
    unknown = "unsupported_parameter" if problem["type"] == "extra_forbidden" else None
    told_at = f"{where}: {message}{given}".lstrip(": ")
    raise ApiError(400, told_at, param=param, code=unknown)


def _contrary(param: str, message: str) -> None:
    raise ApiError(400, message, param=param)
