"""What may be asked: requests of the OpenAI API, with their bounds.

Types are strict: no number is read from a string. Fields that we do not know are ignored, so that
clients written for richer servers work: `tools`, `response_format`, `logit_bias`, penalties,
`echo`, `best_of`, `suffix` and `user` change nothing here.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.engine import Sampling
from orchestrator.serving.errors import ApiError

Text = Annotated[str, Field(min_length=1)]
# Lists stop at their first fault: a million faults would be a million errors.
Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, fail_fast=True)]
Count = Annotated[int, Field(ge=1, lt=1 << 31)]
StopText = Annotated[str, Field(min_length=1, max_length=256)]
Top = Annotated[int, Field(ge=0, le=20)]

_DEFAULT_TOKENS = 16
_SEEDS = 1 << 63
_WORTH_SHOWING = 64 * 1024  # bytes of a body whose faulty value is shown


class StreamOptions(BaseModel):
    """Options of a stream."""

    model_config = ConfigDict(strict=True, frozen=True)

    include_usage: bool = False


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    model: str
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-_SEEDS, lt=_SEEDS)] | None = None
    stop: StopText | Annotated[list[StopText], Field(max_length=4, fail_fast=True)] | None = None
    max_tokens: Count | None = None

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends with the usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most, where the client says so."""
        return self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Likeliest tokens wanted a position; `None` where no log-probabilities are."""
        return None

    def sampling(self, choice: int, max_tokens: int) -> Sampling:
        """Return how to draw choice number `choice`; each has a seed of its own."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_tokens=max_tokens,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=stop,
            seed=None if self.seed is None else self.seed + choice,
            logprobs=self.alternatives,
        )


class CompletionRequest(_Request):
    """Body of `POST /v1/completions`."""

    prompt: (
        Text
        | Tokens
        | Annotated[list[Text | Tokens], Field(min_length=1, max_length=64, fail_fast=True)]
    )
    logprobs: Top | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most."""
        return self.max_tokens or _DEFAULT_TOKENS

    @property
    def alternatives(self) -> int | None:
        """Likeliest tokens wanted a position."""
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """All prompts, each as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        several = [item for item in self.prompt if not isinstance(item, int)]
        return several or [[item for item in self.prompt if isinstance(item, int)]]


class Part(BaseModel):
    """A part of a message; text is all that is read here."""

    model_config = ConfigDict(strict=True, frozen=True)

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """A message of a chat."""

    model_config = ConfigDict(strict=True, frozen=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Field(fail_fast=True)] | None = None

    def plain(self) -> dict[str, str]:
        """Return role and text, as chat templates know them."""
        role = "system" if self.role == "developer" else self.role
        parts = [] if self.content is None else self.content
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": role, "content": text}


class ChatRequest(_Request):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000, fail_fast=True)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None

    @property
    def limit(self) -> int | None:
        """Tokens of an answer, at most, where the client says so."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Likeliest tokens wanted a position."""
        return (self.top_logprobs or 0) if self.logprobs else None


Kind = TypeVar("Kind", CompletionRequest, ChatRequest)


def parse(kind: type[Kind], body: bytes) -> Kind:
    """Return the request in `body`.

    Raises:
        ApiError: It is no JSON, or not what `kind` asks for.
    """
    try:
        asked = kind.model_validate_json(body)
    except ValidationError as error:
        small = len(body) < _WORTH_SHOWING
        problem = error.errors(include_url=False, include_input=small)[0]
    else:
        if isinstance(asked, ChatRequest) and asked.top_logprobs and not asked.logprobs:
            raise ApiError(400, "top_logprobs needs 'logprobs': true", param="top_logprobs")
        return asked
    if problem["type"] == "json_invalid":
        raise ApiError(400, f"the body is not valid JSON: {problem['msg']}", code="invalid_json")
    where = ".".join(str(part) for part in problem["loc"])
    told = small and problem["type"] != "missing"
    shown = f", not {_short(problem['input'])}" if told else ""
    param = str(problem["loc"][0]) if problem["loc"] else None
    raise ApiError(400, f"{where}: {problem['msg']}{shown}".lstrip(": "), param=param)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - one line in a terminal
