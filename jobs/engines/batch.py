"""A batch that answers join and leave between steps.

Every answer has its own row of the cache, and the rows are always 0 to n-1: when one leaves, the
last one moves into its place. A step first reads the prompts of new answers, then adds a token
to each of the others. It knows no threads.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from jobs.engines.cache import SlotCache, Span
from jobs.engines.sampling import Choice, choose
from jobs.engines.text import Detokenizer, StopFilter
from orchestrator.job import Piece, Sampling

Decode = Callable[[Sequence[int]], str]


class Answer:
    """One answer while it is made: its tokens, prompt first, and how it becomes text."""

    def __init__(self, prompt: Sequence[int], sampling: Sampling, decode: Decode) -> None:
        self.tokens = list(prompt)
        self.sampling = sampling
        self.random = random.Random(sampling.seed)  # noqa: S311 - draws tokens, guards nothing
        self.done = False
        self._end = len(prompt) + sampling.max_tokens
        self._decode = decode
        self._text = Detokenizer(decode)
        self._stops = StopFilter(sampling.stop)

    def take(self, choice: Choice, eos: frozenset[int]) -> Piece:
        """Add a token; return what it adds to the answer."""
        self.tokens.append(choice.token)
        ended = choice.token in eos
        full = len(self.tokens) >= self._end
        last = ended or full
        text, stopped = self._stops.add(self._text.add(choice.token, last=last), last=last)
        self.done = last or stopped
        finish = ("stop" if ended or stopped else "length") if self.done else None
        if choice.logprob is None:
            return Piece(text, choice.token, finish=finish)
        top = tuple((self._decode([token]), logprob) for token, logprob in choice.top)
        word = self._decode([choice.token])
        return Piece(text, choice.token, word, choice.logprob, top, finish)


class Batch:
    """The model, its cache, and the answers that are being made."""

    def __init__(self, model: Any, cache: SlotCache, eos: frozenset[int]) -> None:  # noqa: ANN401 - any causal language model of transformers
        self.answers: list[Answer] = []
        self._model = model
        self._cache = cache
        self._eos = eos

    @torch.inference_mode()
    def step(self, joining: Sequence[Answer]) -> list[tuple[Answer, Piece]]:
        """Make the first token of `joining` and the next one of all others."""
        pieces = self._advance(0, [answer.tokens[-1:] for answer in self.answers])
        begin = len(self.answers)
        self.answers += joining
        pieces += self._advance(begin, [answer.tokens for answer in joining])
        self.leave([answer for answer in self.answers if answer.done])
        return pieces

    @torch.inference_mode()
    def leave(self, answers: Sequence[Answer]) -> None:
        """Free the rows of `answers`."""
        for answer in answers:
            row = self.answers.index(answer)
            last = self.answers.pop()
            if last is not answer:
                self.answers[row] = last
                self._cache.move(len(self.answers), row)

    def _advance(self, start: int, new: Sequence[Sequence[int]]) -> list[tuple[Answer, Piece]]:
        if not new:
            return []
        answers = self.answers[start : start + len(new)]
        scores = self._forward(start, new, [len(answer.tokens) for answer in answers])
        samplings = [answer.sampling for answer in answers]
        choices = choose(scores, samplings, [answer.random for answer in answers])
        made = zip(answers, choices, strict=True)
        return [(answer, answer.take(choice, self._eos)) for answer, choice in made]

    def _forward(self, start: int, new: Sequence[Sequence[int]], lengths: list[int]) -> Tensor:
        """Return the scores after the last of the `new` tokens of each row from `start` on."""
        device = self._model.device
        width = max(map(len, new))
        padded = [[*tokens, *[0] * (width - len(tokens))] for tokens in new]
        ids = torch.tensor(padded, device=device)
        last = torch.tensor([[len(tokens) - 1] for tokens in new], device=device)
        first = torch.tensor(lengths, device=device)[:, None] - last - 1
        positions = first + torch.arange(width, device=device)
        longest = max(lengths)
        self._cache.span = Span(start, start + len(new), positions, longest)
        seen = torch.arange(longest, device=device) <= positions[:, None, :, None]
        mask = torch.zeros(seen.shape, dtype=self._model.dtype, device=device)
        mask.masked_fill_(~seen, torch.finfo(self._model.dtype).min)
        scores: Tensor = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache.past,
            use_cache=True,
            logits_to_keep=last,
        ).logits
        return scores[:, 0]
