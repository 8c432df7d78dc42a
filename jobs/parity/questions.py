"""The held-out questions that both sides answer, and the texts that both must encode alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.data.dataset import IGNORE, read_examples
from jobs.data.tokens.training_data import read_samples

LONGEST_PROMPT = 16  # tokens, of a plain text
# Digits, runs of spaces, other scripts: what tokenizers differ in.
TEXTS = ("Hello, world!", "  two  spaces\n", "0123456789 + 17 = ?", "naïve 数学 🙂")
CHATS = (
    ({"role": "user", "content": "What is 17 + 25?"},),
    (
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "What is 1 + 2?"},
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A text of the data set.

    Attributes:
        tokens: The prompt and what follows it.
        begin: Where the prompt ends.
        example: The task, with `question` and `answer`; `None` for a plain text.
    """

    tokens: tuple[int, ...]
    begin: int
    example: dict[str, Any] | None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The tokens of the prompt."""
        return self.tokens[: self.begin]

    @property
    def places(self) -> int:
        """How many tokens follow the prompt."""
        return len(self.tokens) - self.begin


def choose(data: Path, split: str, count: int, *, most: int, tasks: bool) -> list[Question]:
    """Return `count` questions, evenly over the split, or all that there are.

    Of each at most `most` tokens follow the prompt; rows without a label are none. Nothing is
    learnt of the first token, as in training.
    """
    rows = read_samples(data, split)
    labelled = (rows.labels[:, 1:] != IGNORE).any(1).nonzero().flatten().tolist()
    examples = read_examples(data, split) if tasks else []
    return [
        _question(
            rows.tokens[place].tolist(),
            rows.labels[place].tolist(),
            examples[place] if tasks else None,
            most,
        )
        for place in (labelled[at] for at in spread(len(labelled), count))
    ]


def spread(size: int, count: int) -> list[int]:
    """Return `count` places evenly over `size`, or all."""
    return [place * size // count for place in range(count)] if count < size else [*range(size)]


def _question(
    tokens: Sequence[int], labels: Sequence[int], example: dict[str, Any] | None, most: int
) -> Question:
    learnt = [place for place, label in enumerate(labels) if label != IGNORE]
    end = learnt[-1] + 1
    begin = learnt[0] or min(LONGEST_PROMPT, end // 2)
    return Question(tokens=tuple(tokens[: min(end, begin + most)]), begin=begin, example=example)
