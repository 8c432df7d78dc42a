"""What the reference pass found, as a folder: JSON for the texts, safetensors for the figures.

reference.json          facts, questions, answers, encodings, names of the floor's passes
scores.safetensors      `logprob` [places], `top` and `logprobs` [places, top]; where the model has
                        experts, `experts` [places, layers, k]
floor.safetensors       of each pass of the floor the arrays of its comparison, as `NUMBER/NAME`
norms.safetensors       what is kept of each weight (`weight_norms`), by its name
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from jobs.parity.comparison import NAMES, Comparison, Responses, arrays
from jobs.parity.distances import right
from jobs.parity.questions import Question
from jobs.parity.tokenizer_parts import Digests
from jobs.parity.weight_norms import GROUPS, ROWS, Norms
from orchestrator.engine import Score

FACTS_NAME = "reference.json"
SCORES_NAME = "scores.safetensors"
FLOOR_NAME = "floor.safetensors"
NORMS_NAME = "norms.safetensors"
# What later versions have added.
_LATER = {
    "floor": "noise floor",
    "ends": "tokens that end an answer",
    "config": "config",
    "generation": "generation config",
    "tokenizers": "digests of its tokenizer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat:
    """A chat, the text that the template made of it, and its tokens."""

    messages: tuple[dict[str, str], ...]
    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The trained model again, in another arithmetic: how far it is from the reference.

    Attributes:
        name: Of the pass, as people say it.
        precision: What it computed in: `float32` or `bfloat16`.
        comparison: With the reference.
    """

    name: str
    precision: str
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """What the trained model does.

    Attributes:
        pool: Where that was measured.
        precision: Of its weights.
        seed: Of the draws by which it is judged.
        task: Scorer of its answers in reasoning-gym, where it has one.
        max_tokens: Most tokens of an answer.
        top: Likeliest tokens that were kept a place.
        questions: What was asked.
        answers: Its greedy answers, one a question.
        texts: Plain texts with their tokens.
        chats: Chats with their tokens; none where there is no template.
        ends: Tokens that end an answer.
        config: Fields of its config, as JSON has them.
        generation: What the generation config of an export says.
        tokenizers: Digests of the parts of its tokenizer, as it is and as it is saved.
        scores: Of each question the scores of what follows its prompt.
        experts: Of each question the chosen experts (places, layers, k); none where untold.
        floor: The same model in other arithmetics.
        norms: What is kept of its weights (`weight_norms`), by their names.
    """

    pool: str
    precision: str
    seed: int
    task: str | None
    max_tokens: int
    top: int
    questions: tuple[Question, ...]
    answers: tuple[str, ...]
    texts: tuple[tuple[str, tuple[int, ...]], ...]
    chats: tuple[Chat, ...]
    ends: tuple[int, ...]
    config: dict[str, Any]
    generation: dict[str, Any]
    tokenizers: tuple[Digests, ...]
    scores: tuple[tuple[Score, ...], ...]
    experts: tuple[npt.NDArray[np.int32], ...]
    floor: tuple[Floor, ...]
    norms: Norms

    @property
    def responses(self) -> Responses:
        """What it says to the questions."""
        return Responses(
            scores=self.scores,
            answers=self.answers,
            right=right(self.task, self.questions, self.answers),
            experts=self.experts,
        )


def write(reference: Reference, folder: Path) -> None:
    """Write what was found into a folder."""
    facts = asdict(replace(reference, scores=(), norms={}, experts=(), floor=()))
    del facts["scores"], facts["norms"], facts["experts"]
    facts["floor"] = [
        {"name": floor.name, "precision": floor.precision} for floor in reference.floor
    ]
    (folder / FACTS_NAME).write_text(json.dumps(facts, ensure_ascii=False, indent=1), "utf-8")
    flat = [score for scores in reference.scores for score in scores]
    tensors = {
        "logprob": torch.tensor([score.logprob for score in flat]),
        "top": torch.tensor([score.top for score in flat], dtype=torch.int32),
        "logprobs": torch.tensor([score.logprobs for score in flat]),
    }
    if reference.experts:
        tensors["experts"] = torch.from_numpy(np.concatenate(reference.experts))
    save_file(tensors, folder / SCORES_NAME)
    passes = {
        f"{number}/{name}": torch.from_numpy(array)
        for number, floor in enumerate(reference.floor)
        for name, array in arrays(floor.comparison).items()
    }
    save_file(passes, folder / FLOOR_NAME)
    save_file(reference.norms, folder / NORMS_NAME)


def read(folder: Path) -> Reference:
    """Read what the reference pass found.

    Raises:
        FileNotFoundError: The folder has no such thing.
        ValueError: It was made by a version that measured less.
    """
    path = folder / FACTS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} is no reference pass: it has no {FACTS_NAME}")
    facts, kept = json.loads(path.read_text("utf-8")), load_file(folder / NORMS_NAME)
    lacking = [words for name, words in _LATER.items() if name not in facts]
    if any(f"{name.removesuffix(ROWS)}{GROUPS}" not in kept for name in kept if ROWS in name):
        lacking.append("largest weights of groups")
    if lacking:
        raise ValueError(
            f"the reference pass in {str(folder)!r} has no {lacking[0]}, an earlier version "
            f"made it: make it anew (orchestrator rerun RUN reference)"
        )
    questions = tuple(_question(fields) for fields in facts.pop("questions"))
    texts = tuple((text, tuple(tokens)) for text, tokens in facts.pop("texts"))
    chats = tuple(_chat(fields) for fields in facts.pop("chats"))
    answers = tuple(facts.pop("answers"))
    tensors = load_file(folder / SCORES_NAME)
    return Reference(
        questions=questions,
        texts=texts,
        chats=chats,
        answers=answers,
        ends=tuple(facts.pop("ends")),
        tokenizers=tuple(facts.pop("tokenizers")),
        scores=_scores(tensors, questions),
        experts=_experts(tensors, questions),
        floor=_floor(load_file(folder / FLOOR_NAME), facts.pop("floor")),
        norms=kept,
        **facts,
    )


def _floor(
    tensors: dict[str, torch.Tensor], passes: Sequence[dict[str, str]]
) -> tuple[Floor, ...]:
    return tuple(
        Floor(
            name=facts["name"],
            precision=facts["precision"],
            comparison=Comparison(**{name: tensors[f"{number}/{name}"].numpy() for name in NAMES}),
        )
        for number, facts in enumerate(passes)
    )


def _experts(
    tensors: dict[str, torch.Tensor], questions: Sequence[Question]
) -> tuple[npt.NDArray[np.int32], ...]:
    if "experts" not in tensors:
        return ()
    parts = torch.split(tensors["experts"], [question.places for question in questions])
    return tuple(part.numpy() for part in parts)


def _question(fields: dict[str, Any]) -> Question:
    return Question(
        tokens=tuple(fields["tokens"]), begin=fields["begin"], example=fields["example"]
    )


def _chat(fields: dict[str, Any]) -> Chat:
    return Chat(
        messages=tuple(fields["messages"]), text=fields["text"], tokens=tuple(fields["tokens"])
    )


def _scores(
    arrays: dict[str, torch.Tensor], questions: Sequence[Question]
) -> tuple[tuple[Score, ...], ...]:
    columns = (arrays[name].tolist() for name in ("logprob", "top", "logprobs"))
    flat = iter(
        [
            Score(logprob, tuple(top), tuple(logs))
            for logprob, top, logs in zip(*columns, strict=True)
        ]
    )
    return tuple(
        tuple(next(flat) for _ in range(question.begin, len(question.tokens)))
        for question in questions
    )
