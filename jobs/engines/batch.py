"""A batch that answers join and leave between steps.

Every answer has its own row of the cache. The rows are always 0 to n-1: first those of answers
that are read, which means that the cache holds all their tokens but the last, then the others.
When one leaves, another moves into its place. A step adds a token to each answer that is read,
and then reads a bounded number of tokens of the others. It knows no threads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jobs.engines.cache import SlotCache
from jobs.engines.forward import Forward
from jobs.engines.sampling import Choice, choose
from jobs.engines.text import Detokenizer, StopFilter
from orchestrator.engine import Piece, Sampling

Decode = Callable[[Sequence[int]], str]

READ_BESIDE = 512  # tokens a step while other answers wait for theirs
READ_ALONE = 1024  # tokens a step where nobody waits


@dataclass(frozen=True, slots=True)
class Source:
    """What tokens are of: the name of some weights, and the tokens that end an answer of them."""

    version: str
    eos: frozenset[int]


@dataclass(frozen=True, slots=True)
class Weights(Source):
    """Weights, as the forward pass over them."""

    run: Forward


class Answer:
    """One answer while it is made: its tokens, prompt first, and how it becomes text.

    `held` is the number of its tokens that the cache holds.
    """

    def __init__(self, prompt: Sequence[int], sampling: Sampling, decode: Decode) -> None:
        self.tokens = list(prompt)
        self.held = 0
        self.sampling = sampling
        self.random = random.Random(sampling.seed)  # noqa: S311 - draws tokens, guards nothing
        self.done = False
        self._end = len(prompt) + sampling.max_tokens
        self._text = Detokenizer(decode)
        self._stops = StopFilter(sampling.stop)

    @property
    def left(self) -> int:
        """Number of tokens that may still come."""
        return self._end - len(self.tokens)

    @property
    def unread(self) -> int:
        """Number of tokens that are not in the cache yet."""
        return len(self.tokens) - self.held

    def take(self, choice: Choice, source: Source) -> Piece:
        """Add a token of `source`; return what it adds to the answer."""
        self.tokens.append(choice.token)
        ended = choice.token in source.eos
        full = len(self.tokens) >= self._end
        last = ended or full
        text, stopped = self._stops.add(self._text.add(choice.token, last=last), last=last)
        self.done = last or stopped
        finish = ("stop" if ended or stopped else "length") if self.done else None
        return Piece(text, choice.token, choice.logprob, choice.top, finish, source.version)


class Batch:
    """The weights, a cache, and the answers that are being made."""

    def __init__(self, weights: Weights, cache: SlotCache) -> None:
        self.answers: list[Answer] = []
        self.weights = weights
        self._cache = cache
        self._read = 0

    @torch.inference_mode()
    def step(self, joining: Sequence[Answer]) -> list[tuple[Answer, Piece]]:
        """Make the next token of all that are read; read on in the others."""
        self.answers += joining
        ready = self.answers[: self._read]
        pieces = self._choose(ready, self._forward(0, ready, 1)) if ready else []
        group, width = self._next_to_read()
        if group:
            scores = self._forward(self._read, group, width)
            if not group[0].unread:
                self._read += len(group)
                pieces += self._choose(group, scores)
        self.leave([answer for answer in self.answers if answer.done])
        return pieces

    def leave(self, answers: Sequence[Answer]) -> None:
        """Free the rows of `answers`."""
        for answer in answers:
            row = self.answers.index(answer)
            if row < self._read:
                self._read -= 1
                self._move(self._read, row)
                row = self._read
            self._move(len(self.answers) - 1, row)
            self.answers.pop()

    def exchange(self, weights: Weights) -> None:
        """Go on with other weights; all answers are read anew, by these."""
        self.weights = weights
        self._read = 0
        for answer in self.answers:
            answer.held = 0

    def clear(self) -> None:
        """Free all rows."""
        self.answers.clear()
        self._read = 0

    def _next_to_read(self) -> tuple[list[Answer], int]:
        """Return answers that are read together, and how many tokens of each, at most.

        A long one is read by itself, in parts; others wholly.
        """
        limit = READ_BESIDE if self._read else READ_ALONE
        group: list[Answer] = []
        width = 0
        for answer in self.answers[self._read :]:
            wider = max(width, answer.unread)
            if group and (answer.held or wider * (len(group) + 1) > limit):
                break
            group.append(answer)
            width = wider
            if answer.held or width > limit:
                break
        return group, min(width, limit)

    def _forward(self, start: int, answers: Sequence[Answer], width: int) -> Tensor:
        """Read up to `width` tokens of each row from `start` on; return the scores after them."""
        held = [answer.held for answer in answers]
        new = [answer.tokens[answer.held : answer.held + width] for answer in answers]
        self._cache.cover(start, held, width)
        scores = self.weights.run(new, self._cache)
        for answer, tokens in zip(answers, new, strict=True):
            answer.held += len(tokens)
        return scores

    def _choose(self, answers: Sequence[Answer], scores: Tensor) -> list[tuple[Answer, Piece]]:
        samplings = [answer.sampling for answer in answers]
        choices = choose(scores, samplings, [answer.random for answer in answers])
        made = zip(answers, choices, strict=True)
        return [(answer, answer.take(choice, self.weights)) for answer, choice in made]

    def _move(self, source: int, target: int) -> None:
        if source == target:
            return
        moved = self.answers[target] = self.answers[source]
        if moved.held:  # the cache has memory for the rows that it has read, and no others
            with torch.inference_mode():
                self._cache.move(source, target)
