"""What the reference pass found, as a folder: JSON for the texts, safetensors for the figures.

reference.json          facts, questions, answers, encodings
scores.safetensors      `logprob` [places], `top` and `logprobs` [places, top]
norms.safetensors       of the blocks of each weight, by its name
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from jobs.parity.blocks import Norms
from jobs.parity.questions import Question
from orchestrator.engine import Score

FACTS_NAME = "reference.json"
SCORES_NAME = "scores.safetensors"
NORMS_NAME = "norms.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A chat, the text that the template made of it, and its tokens."""

    messages: tuple[dict[str, str], ...]
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the trained model does.

    Attributes:
        pool: Where that was measured.
        precision: Of its weights.
        task: Scorer of its answers in reasoning-gym, where it has one.
        max_tokens: Most tokens of an answer.
        top: Likeliest tokens that were kept a place.
        questions: What was asked.
        answers: Its greedy answers, one a question.
        texts: Plain texts with their tokens.
        chats: Chats with their tokens; none where there is no template.
        scores: Of each question the scores of what follows its prompt.
        norms: Of the blocks of its weights, by their names.
    """

    pool: str
    precision: str
    task: str | None
    max_tokens: int
    top: int
    questions: tuple[Question, ...]
    answers: tuple[str, ...]
    texts: tuple[tuple[str, tuple[int, ...]], ...]
    chats: tuple[Chat, ...]
    scores: tuple[tuple[Score, ...], ...]
    norms: Norms


def write(found: Reference, folder: Path) -> None:
    """Write what was found into a folder."""
    facts = asdict(replace(found, scores=(), norms={}))
    del facts["scores"], facts["norms"]
    (folder / FACTS_NAME).write_text(json.dumps(facts, ensure_ascii=False, indent=1), "utf-8")
    flat = [score for scores in found.scores for score in scores]
    arrays = {
        "logprob": torch.tensor([score.logprob for score in flat]),
        "top": torch.tensor([score.top for score in flat], dtype=torch.int32),
        "logprobs": torch.tensor([score.logprobs for score in flat]),
    }
    save_file(arrays, folder / SCORES_NAME)
    save_file(found.norms, folder / NORMS_NAME)


def read(folder: Path) -> Reference:
    """Read what the reference pass found.

    Raises:
        FileNotFoundError: The folder has no such thing.
    """
    path = folder / FACTS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} is no reference pass: it has no {FACTS_NAME}")
    facts = json.loads(path.read_text("utf-8"))
    questions = tuple(_question(one) for one in facts.pop("questions"))
    texts = tuple((text, tuple(tokens)) for text, tokens in facts.pop("texts"))
    chats = tuple(_chat(one) for one in facts.pop("chats"))
    answers = tuple(facts.pop("answers"))
    scores = _scores(load_file(folder / SCORES_NAME), questions)
    return Reference(
        questions=questions,
        texts=texts,
        chats=chats,
        answers=answers,
        scores=scores,
        norms=load_file(folder / NORMS_NAME),
        **facts,
    )


def _question(one: dict[str, Any]) -> Question:
    return Question(tokens=tuple(one["tokens"]), begin=one["begin"], example=one["example"])


def _chat(one: dict[str, Any]) -> Chat:
    return Chat(messages=tuple(one["messages"]), text=one["text"], tokens=tuple(one["tokens"]))


def _scores(
    arrays: dict[str, torch.Tensor], questions: Sequence[Question]
) -> tuple[tuple[Score, ...], ...]:
    columns = (arrays[name].tolist() for name in ("logprob", "top", "logprobs"))
    flat = iter(
        [Score(one, tuple(top), tuple(logs)) for one, top, logs in zip(*columns, strict=True)]
    )
    return tuple(
        tuple(next(flat) for _ in range(question.begin, len(question.tokens)))
        for question in questions
    )
