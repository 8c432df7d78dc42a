"""The trained model's own forward pass, in several arithmetics and batch shapes.

The first is the reference. The others are the noise floor: the same model, by the same pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jobs.engines.routing import by_token, recorded
from jobs.engines.scoring import score_of
from jobs.generation import greedy
from jobs.parity.questions import Question
from jobs.training.loss import forward
from orchestrator.engine import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A way to compute.

    Attributes:
        name: As people say it.
        weights: torch type of the weights.
        mixed: Whether products are done in bfloat16 whatever the weights are, as training does.
        batch: Questions at once.
        padding: Tokens more than the longest of a batch.
        answers: Whether greedy answers are asked for.
    """

    name: str
    weights: torch.dtype
    mixed: bool = False
    batch: int = 8
    padding: int = 0
    answers: bool = False

    @property
    def precision(self) -> str:
        """What it computes in."""
        dtype = torch.bfloat16 if self.mixed else self.weights
        return str(dtype).removeprefix("torch.")


REFERENCE = Pass(name="float32", weights=torch.float32, answers=True)
RESHAPED = Pass(name="float32, another batch shape", weights=torch.float32, batch=3, padding=5)
MIXED = Pass(name="mixed precision, as it was trained", weights=torch.float32, mixed=True)
HALVES = (
    Pass(name="bfloat16", weights=torch.bfloat16),
    Pass(
        name="bfloat16, another batch shape",
        weights=torch.bfloat16,
        batch=3,
        padding=5,
        answers=True,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a pass gives, of each question: scores, an answer where asked, chosen experts."""

    scores: tuple[tuple[Score, ...], ...]
    answers: tuple[str, ...]
    experts: tuple[npt.NDArray[np.int32], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asker:
    """Asks a model questions.

    Attributes:
        top: Likeliest tokens that are kept a place.
        split: Parts that a batch is made in, where memory is short.
        most_tokens: Of a forward pass, padding among them; a question is taken in any case.
    """

    model: Any
    tokenizer: Any
    device: str
    top: int
    max_tokens: int
    split: int = 1
    most_tokens: int | None = None

    def ask(
        self,
        by: Pass,
        questions: Sequence[Question],
        done: Callable[[int], object] = lambda _: None,
    ) -> Output:
        """Return what the model says; `done` is told how many questions are."""
        scores: list[tuple[Score, ...]] = []
        answers: list[str] = []
        experts: list[npt.NDArray[np.int32]] = []
        most = max(1, self._questions_at_once(by, questions) // self.split)
        for start in range(0, len(questions), most):
            part = questions[start : start + most]
            scored, chosen = self._forward(by, part)
            scores += scored
            experts += chosen
            if by.answers:
                prompts = [question.prompt for question in part]
                answers += greedy(
                    self.model,
                    self.tokenizer,
                    prompts,
                    device=self.device,
                    max_tokens=self.max_tokens,
                )
            done(len(scores))
        return Output(scores=tuple(scores), answers=tuple(answers), experts=tuple(experts))

    def _questions_at_once(self, by: Pass, questions: Sequence[Question]) -> int:
        if self.most_tokens is None or not questions:
            return by.batch
        width = max(len(question.tokens) for question in questions) + by.padding
        return min(by.batch, self.most_tokens // width)

    @torch.inference_mode()
    def _forward(
        self, by: Pass, part: Sequence[Question]
    ) -> tuple[list[tuple[Score, ...]], list[npt.NDArray[np.int32]]]:
        """Return scores and chosen experts of what follows the prompts, padded on the right."""
        width = max(len(question.tokens) for question in part) + by.padding
        rows = [[*q.tokens, *[q.tokens[-1]] * (width - len(q.tokens))] for q in part]
        ids = torch.tensor(rows, device=self.device)
        with recorded(self.model) as choices:
            logits = forward(self.model, ids, bf16=by.mixed).cpu()
        scores = [_of_row(row, q, self.top) for row, q in zip(logits, part, strict=True)]
        experts = by_token(choices, len(part))
        if experts is None:
            return scores, []
        return scores, [
            row[q.begin - 1 : len(q.tokens) - 1].numpy()
            for row, q in zip(experts, part, strict=True)
        ]


def _of_row(logits: Tensor, question: Question, top: int) -> tuple[Score, ...]:
    places = range(question.begin, len(question.tokens))
    return tuple(score_of(logits[at - 1], question.tokens[at], top) for at in places)
