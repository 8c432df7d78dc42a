"""The reference pass: what the trained model says, by its own forward pass, in its own precision.

It runs on the pool that trained it, or on one like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2
import torch
from torch import Tensor

from jobs.data.dataset import read_facts
from jobs.data.splits import TEST
from jobs.data.tokenizer import load_tokenizer
from jobs.engines.scoring import score_of
from jobs.generation import greedy
from jobs.parity.blocks import norms
from jobs.parity.figures import accuracy, perplexity
from jobs.parity.questions import CHATS, TEXTS, Question, choose
from jobs.parity.reading import Chat, Reference, write
from jobs.training import model as models
from orchestrator.engine import Score
from orchestrator.job import JobContext, Metrics

_AT_ONCE = 8  # questions


def measure(
    ctx: JobContext,
    *,
    split: str = TEST,
    questions: int = 64,
    max_tokens: int = 16,
    top: int = 256,
) -> Metrics:
    """Ask the input `model` questions of the input `data`, and keep what it says.

    Args:
        ctx: The context.
        split: The split that the questions come from.
        questions: How many; evenly over the split.
        max_tokens: Most tokens of a greedy answer.
        top: Likeliest tokens that are kept a place.
    """
    data, folder = ctx.inputs["data"], ctx.inputs["model"]
    task = read_facts(data).task
    asked = choose(data, split, questions, tasks=task is not None)
    tokenizer = load_tokenizer(folder)
    model = models.load(folder).to(ctx.device).eval()
    teller = _Teller(model, tokenizer, ctx.device)
    scores: list[tuple[Score, ...]] = []
    answers: list[str] = []
    for start in range(0, len(asked), _AT_ONCE):
        part = asked[start : start + _AT_ONCE]
        scores += teller.scores(part, top)
        answers += teller.answers(part, max_tokens)
        ctx.progress(len(answers), len(asked))
    found = Reference(
        pool=ctx.hardware.pool,
        precision=str(next(model.parameters()).dtype).removeprefix("torch."),
        task=task,
        max_tokens=max_tokens,
        top=top,
        questions=tuple(asked),
        answers=tuple(answers),
        texts=tuple((text, tuple(tokenizer(text)["input_ids"])) for text in _texts(asked)),
        chats=tuple(chats_of(tokenizer)),
        scores=tuple(scores),
        norms=norms(model),
    )
    if ctx.rank == 0:
        write(found, ctx.output)
    values = {"reference/perplexity": perplexity(scores), "reference/questions": float(len(asked))}
    right = accuracy(task, asked, answers)
    return values if right is None else {**values, "reference/accuracy": right}


def _texts(asked: Sequence[Question]) -> list[str]:
    """Return the texts that both must encode alike: the tasks' own words among them."""
    return [*TEXTS, *(str(one.example["question"]) for one in asked[:_AT_ONCE] if one.example)]


def chats_of(tokenizer: Any) -> list[Chat]:  # noqa: ANN401 - foreign and untyped
    """Return the chats as the tokenizer's template has them; none where it has no template."""
    return [
        Chat(messages=chat, text=text, tokens=tuple(_plain(tokenizer, text)))
        for chat in CHATS
        if (text := rendered(tokenizer, chat)) is not None
    ]


def rendered(tokenizer: Any, chat: Sequence[dict[str, str]]) -> str | None:  # noqa: ANN401 - as above
    """Return the text that the template makes of a chat; `None` where it makes none."""
    if not tokenizer.chat_template:
        return None
    try:
        text: str = tokenizer.apply_chat_template(
            list(chat), add_generation_prompt=True, tokenize=False
        )
    except jinja2.TemplateError:
        return None
    return text


def _plain(tokenizer: Any, text: str) -> list[int]:  # noqa: ANN401 - as above
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


class _Teller:
    """The model's own forward pass."""

    def __init__(self, model: Any, tokenizer: Any, device: str) -> None:  # noqa: ANN401 - as above
        self._model, self._tokenizer, self._device = model, tokenizer, device

    @torch.inference_mode()
    def scores(self, part: Sequence[Question], top: int) -> list[tuple[Score, ...]]:
        """Return the scores of what follows the prompts."""
        width = max(len(question.tokens) for question in part)
        rows = [[*q.tokens, *[q.tokens[-1]] * (width - len(q.tokens))] for q in part]
        logits = self._model(input_ids=torch.tensor(rows, device=self._device)).logits.cpu()
        return [_of_row(row, question, top) for row, question in zip(logits, part, strict=True)]

    def answers(self, part: Sequence[Question], max_tokens: int) -> list[str]:
        """Return the greedy answers to the prompts."""
        prompts = [question.prompt for question in part]
        return greedy(
            self._model, self._tokenizer, prompts, device=self._device, max_tokens=max_tokens
        )


def _of_row(logits: Tensor, question: Question, top: int) -> tuple[Score, ...]:
    places = range(question.begin, len(question.tokens))
    return tuple(score_of(logits[at - 1], question.tokens[at], top) for at in places)
