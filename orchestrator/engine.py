"""The protocol between an engine and the replica that holds it.

An engine is a class, named in a config by its dotted name. A replica makes it from a model folder
and the `orchestrator.job.Hardware` that it stands on, and streams what it generates.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How to draw tokens.

    A `temperature` of 0 is greedy. Equal `seed`s give equal answers, whatever else runs beside.
    `logprobs` asks for log-probabilities, and for that many of the likeliest tokens a position;
    they are the model's own, at temperature 1 and before `top_p`.
    """

    max_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A generated token: what it adds to the answer, its id, and its log-probability.

    `text` may be empty, where a character is not complete, or the start of a stop string is held
    back; the texts of all pieces together are the answer. Where log-probabilities were asked
    for, `token_text` is the token by itself, and `top` has the likeliest ones, best first.
    `finish` is set on the last piece: `stop` (end of text or a stop string) or `length`.
    `version` names the weights that made this token; see `Engine.swap`.
    """

    text: str
    token: int
    token_text: str = ""
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    finish: str | None = None
    version: str = ""


class Engine(Protocol):
    """Loads a model folder and generates text. Named in a config by its dotted class name.

    It is made in the replica's process as `Engine(model_folder, hardware, **options)`. One option
    that all have is `version`; by default it is the name of the folder.

    Attributes:
        max_context: Tokens of a prompt and its answer together, at most.
        vocabulary: Token ids are from 0 up to this.
        version: Names the weights that serve now; answers carry it as `system_fingerprint`.
    """

    max_context: int
    vocabulary: int
    version: str

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a prompt."""
        ...

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Return the token ids of a chat (`role`, `content`), by the model's own template.

        Raises:
            ValueError: The model has no template, or the template refuses these messages.
        """
        ...

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> AsyncGenerator[Piece, None]:
        """Yield the answer, token by token, at least one. Closing it frees its slot.

        The caller has checked that `prompt` is not empty and that it fits, together with
        `max_tokens`, into `max_context`.

        Raises:
            RuntimeError: The engine is closed, or the device failed.
        """
        ...

    def statistics(self) -> Mapping[str, float]:
        """Return how busy the engine is, at once and from any thread.

        `running` and `waiting` are numbers of answers, `held` of the tokens in these and their
        prompts, `tokens` of those made ever; `cache_used` is a share of the key-value cache.
        """
        ...

    def swap(self, model_folder: Path, version: str) -> None:
        """Serve the weights of another folder from now on. Blocks until they do.

        No answer is dropped. One that is being made goes on with the new weights, over a cache
        that is made anew from its tokens: so every token, with its log-probability, is wholly
        one version's, the one that its `Piece` names. An answer with several is a mixture, and
        says so.

        Raises:
            ValueError: The folder does not fit, or answers wrongly. The old weights serve on.
            RuntimeError: The engine is closed.
        """
        ...

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True)
class Score:
    """What a model says of a token of a text by those before it, at temperature 1.

    `logprob` is that token's; `top` has the likeliest tokens, best first, `logprobs` theirs.
    """

    logprob: float
    top: tuple[int, ...]
    logprobs: tuple[float, ...]


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

    def close(self) -> None:
        """Free everything. Safe to call twice."""
        ...
