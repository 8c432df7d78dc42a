"""The protocol between an engine and the replica that holds it.

An engine is a class, named in a config by its dotted name. A replica makes it from a model folder
and the `orchestrator.job.Hardware` that it stands on, and streams what it generates.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

GrammarKind: TypeAlias = Literal["json_object", "json_schema", "regex", "grammar", "choice"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must be like.

    `text` is the schema as JSON, the regular expression, the grammar (Lark's or EBNF), or the
    choices as a JSON list; it is empty where any JSON object will do.
    """

    kind: GrammarKind
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to draw tokens.

    A `temperature` of 0 is greedy. Equal `seed`s give equal answers, in float32 whatever else
    runs beside; in types of 16 bits a batch of another size may round otherwise.
    `logprobs` asks for log-probabilities, and for that many of the likeliest tokens a position;
    they are the model's own, at temperature 1 and before whatever else stands here.
    `prompt_logprobs` asks the same of the prompt's tokens; see `Prompt`.

    Attributes:
        max_tokens: Of the answer, at most; 0 where only the prompt's log-probabilities are wanted.
        top_p: Draws from the likeliest tokens that have this probability together.
        top_k: Draws from that many likeliest tokens; from all where 0.
        min_p: Draws from tokens that are at least this many times as likely as the likeliest one.
        presence_penalty: Taken from the score of a token that is in the answer.
        frequency_penalty: Taken from a token's score as often as it is in the answer.
        repetition_penalty: Divides the score, where positive, of what is in prompt or answer, and
            multiplies it where negative.
        logit_bias: Added to the scores of these tokens; -100 or less forbids one.
        stop: Texts that end the answer.
        stop_token_ids: Tokens that end the answer, beside the model's own.
        min_tokens: Before so many tokens nothing ends the answer.
        ignore_eos: Whether the model's own ends of text are tokens like others.
        include_stop: Whether the stop string stays in the answer.
        grammar: What the answer must be like.
    """

    max_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    include_stop: bool = False
    seed: int | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """What a model says of a token of a text by those before it, at temperature 1.

    `logprob` is that token's; `top` has the likeliest tokens, best first, `logprobs` theirs.
    """

    logprob: float
    top: tuple[int, ...]
    logprobs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model says of the prompt: a score for each token, but none for the first.

    It comes before the first `Piece` where `Sampling.prompt_logprobs` is set.
    """

    scores: tuple[Score | None, ...]
    version: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A generated token: what it adds to the answer, its id, and its log-probability.

    `text` may be empty, where a character is not complete, or the start of a stop string is held
    back; the texts of all pieces together are the answer. Where log-probabilities were asked for,
    `top` has the likeliest tokens with theirs, best first.
    `finish` is set on the last piece: `stop` (end of text, a stop string or token, or the end of
    the grammar) or `length`. `stopped_by` is the string or token of the request that did it.
    `version` names the weights that made this token; see `Engine.update`.
    """

    text: str
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    finish: str | None = None
    version: str = ""
    stopped_by: str | int | None = None


class NotFiniteError(RuntimeError):
    """The model's scores were no finite numbers: this answer can't go on; all others do."""


class Engine(Protocol):
    """Loads a model folder and generates text. Named in a config by its dotted class name.

    It is made in the replica's process as `Engine(model_folder, hardware, **options)`. One option
    that all have is `version`; by default it is the name of the folder.

    Attributes:
        max_context: Tokens of a prompt and its answer together, at most.
        vocabulary: Token ids are from 0 up to this.
        longest_token: Bytes of the longest token: a text of more than `max_context` times these
            fits in no way.
        version: Names the weights that serve now; answers carry it as `system_fingerprint`.
        defaults: Fields of `Sampling` as the model's `generation_config.json` has them, for
            requests that say nothing else.
    """

    max_context: int
    vocabulary: int
    longest_token: int
    version: str
    defaults: Mapping[str, float]

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the model expects.

        Without `special` only those that the text names.
        """
        ...

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Return the token ids of a chat, by the model's own template.

        Messages are what clients sent: `role`, `content` (a text), `name`, `tool_calls`,
        `tool_call_id`. `variables` go to the template: `tools`, `add_generation_prompt` (by
        default true), `continue_final_message`, and whatever else it knows.

        Raises:
            ValueError: The model has no template, or the template refuses these messages.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, special ones included."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return what a token stands for; it may be a part of a character. Takes no time."""
        ...

    def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Prompt | Piece, None]:
        """Yield the answer, token by token, at least one. Closing it frees its slot.

        A `Prompt` comes first where it is asked for, and alone where `max_tokens` is 0. The caller
        has checked that `prompt` is not empty and that it fits, together with `max_tokens`, into
        `max_context`.

        Raises:
            ValueError: This engine can't do what this request asks for.
            NotFiniteError: The model has no answer to this prompt.
            RuntimeError: The engine is closed, or the device failed.
        """
        ...

    def statistics(self) -> Mapping[str, float]:
        """Return how busy the engine is, at once and from any thread.

        `running` and `waiting` are numbers of answers, `slots` of those that can run at once,
        `held` of the tokens in these and their prompts, `tokens` of those made ever; `cache_used`
        is a share of the key-value cache.
        """
        ...

    def health(self) -> str:
        """Return why it can't serve, at once and from any thread; nothing while it can."""
        ...

    def update(self, folder: Path, version: str, base: str | None = None) -> None:
        """Serve other weights from now on. Blocks until they do.

        The folder is a whole model; or, where `base` is set, what has changed since the version of
        that name. No answer is dropped. One that is being made goes on with the new weights, over
        a cache that is made anew from its tokens: so every token, with its log-probability, is
        wholly one version's, the one that its `Piece` names. An answer with several is a mixture,
        and says so.

        Raises:
            ValueError: The folder does not fit, or answers wrongly; or another version than `base`
                serves. The old weights serve on.
            RuntimeError: The engine is closed.
        """
        ...

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        ...


class Scorer(Protocol):
    """What an `Engine` may do besides: say how likely a text is, by its own way of serving."""

    def score(self, tokens: Sequence[int], begin: int, top: int) -> Sequence[Score]:
        """Return a score for each token from place `begin` (1 or later) on.

        What stands before is read as a prompt is, the rest token by token as answers are made.
        Blocks, and answers that are being made wait meanwhile.

        Raises:
            ValueError: The text does not fit into `max_context`.
            RuntimeError: The engine is closed, or the device failed.
        """
        ...


class Inspector(Protocol):
    """What a `Scorer` may tell besides, of the model as it holds it: either, both or none."""

    def norms(self) -> Mapping[str, Sequence[Sequence[float]]]:
        """Return the Euclidean norms of blocks and rows of each weight that serves, dequantised.

        Names are those of transformers' parameters. A weight is a matrix (its last dimension is
        the columns, all others are rows; a vector is one row), a block 128 of both, or what is
        left at the end. By `NAME` the norms of the blocks, by rows; by `NAME:rows` those of strips
        of whole rows, one a line, but for vectors: as many rows as have 128 weights together. What
        else is compared has names of its own: `jobs.parity.weight_norms.norms` says which.
        """
        ...

    def experts(self, tokens: Sequence[int], begin: int) -> Sequence[Sequence[Sequence[int]]]:
        """Return which experts the tokens before each token from place `begin` on are sent to.

        By token and layer; nothing where the model has no experts, or does not tell. Raises as
        `Scorer.score` does.
        """
        ...


class Predictor(Protocol):
    """Serves a model that is no language model: JSON in, JSON out, at `/v1/predict`.

    It is named and made as an `Engine` is; what it is asked and what it answers are its own.
    """

    async def predict(self, body: object) -> object:
        """Return the answer to `body`, both JSON as Python has it.

        Raises:
            ValueError: `body` is not what it takes; the message goes to the client.
            RuntimeError: The device failed.
        """
        ...

    def health(self) -> str:
        """Return why it can't serve, at once and from any thread; nothing while it can."""
        ...

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        ...
