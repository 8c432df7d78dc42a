"""One answer while it is made: its tokens, and how they become text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jobs.engines.detokenizer import Detokenizer, StopFilter
from jobs.engines.processors import Constraint, Processor, needed
from jobs.engines.sampling import ChosenToken, randomness
from orchestrator.engine import Piece, Prompt, Sampling, Score

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class TokenSource:
    """What tokens are of: the name of some weights, and the tokens that end an answer of them."""

    version: str
    eos: frozenset[int]


class Answer:
    """One answer while it is made: its tokens, prompt first, and how it becomes text.

    Args:
        prompt: The tokens before the answer.
        sampling: How its tokens are drawn.
        decode: Returns the text of tokens.
        token_bytes: Returns what a token stands for, where that is known.
        constraint: What the answer must be like.

    Attributes:
        cached: Number of its tokens that the cache holds.
        scores: What the model says of the prompt's tokens, as far as they are read.
        done: Whether it has ended.
    """

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        decode: Decode,
        token_bytes: Callable[[int], bytes] | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        self.tokens = list(prompt)
        self.cached = 0
        self.sampling = sampling
        self.random = randomness(sampling.seed)
        self.done = False
        self.processor: Processor | None = None
        if needed(sampling):
            self.processor = Processor(sampling, list(prompt), constraint)
        self.scores: list[Score | None] = [None]
        self._scored = sampling.prompt_logprobs is None
        self._begin = len(prompt)
        self._end = len(prompt) + sampling.max_tokens
        self._text = Detokenizer(decode, token_bytes)
        self._stops = StopFilter(sampling.stop, include=sampling.include_stop)

    @property
    def remaining(self) -> int:
        """Number of tokens that may still come."""
        return self._end - len(self.tokens)

    @property
    def end(self) -> int:
        """Number of its tokens, prompt included, at most."""
        return self._end

    @property
    def unread(self) -> int:
        """Number of tokens that are not in the cache yet."""
        return len(self.tokens) - self.cached

    @property
    def wants_scores(self) -> bool:
        """Whether the scores of the prompt's tokens are still wanted."""
        return not self._scored

    def forget(self) -> None:
        """Read all tokens anew."""
        self.cached = 0
        self.scores = [None]

    def scored(self, version: str) -> Prompt:
        """Return what the model says of the prompt, all of which is read now."""
        self._scored = True
        self.done = not self.sampling.max_tokens
        return Prompt(tuple(self.scores), version)

    def take(self, choice: ChosenToken, source: TokenSource) -> Piece:
        """Add a token of `source`; return what it adds to the answer."""
        token = choice.token
        self.tokens.append(token)
        complete = self.processor is not None and self.processor.take(token)
        generated = len(self.tokens) - self._begin
        enough = generated >= self.sampling.min_tokens
        stopping = enough and token in self.sampling.stop_token_ids
        ended = enough and not self.sampling.ignore_eos and token in source.eos
        last = stopping or ended or complete or not self.remaining
        text = self._add(token, hidden=stopping or ended, last=last)
        stop = self._stops.came
        self.done = last or stop is not None
        by_rule = stopping or ended or complete or stop is not None
        finish = ("stop" if by_rule else "length") if self.done else None
        stopped_by = stop if stop is not None else token if stopping and not ended else None
        return Piece(
            text, token, choice.logprob, choice.top, finish, source.version, stopped_by=stopped_by
        )

    def _add(self, token: int, *, hidden: bool, last: bool) -> str:
        """Return what a token adds to the text, as far as no stop string ends that.

        What ends the answer is no part of it, be it marked as special or not.
        """
        if hidden and not self.sampling.include_stop:
            text = self._text.rest()
        else:
            text = self._text.add(token, last=last)
        if len(self.tokens) - self._begin <= self.sampling.min_tokens and not last:
            return text
        return self._stops.add(text, last=last)[0]
