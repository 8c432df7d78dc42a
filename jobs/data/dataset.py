"""The folder format of a data set, the same for tasks and for plain text.

    dataset.json            what it is: kind, task, sizes, pad token, how it was made
    tokenizer/              a Hugging Face tokenizer with its chat template
    train.safetensors       `tokens` and `labels`, int32 [rows, width]; the same per split
    validation.safetensors
    test.safetensors
    test.jsonl              the examples themselves, one a line; the same per split

A row is one training sample. Label i is token i where the model is to learn it and IGNORE where it
isn't (questions, padding); shifting by one is the trainer's business. Rows are padded on the
right, which a causal model can't see from the left, so no attention mask is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from safetensors.torch import load_file, save_file

from jobs.data.splits import SPLITS

IGNORE = -100
FACTS_NAME = "dataset.json"
TOKENIZER_NAME = "tokenizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a data set is.

    `task` names its scorer in reasoning-gym, where it has one; `parameters` are those of the job
    that prepared it.
    """

    kind: str
    pad: int
    task: str | None = None
    chance: float | None = None
    rows: Mapping[str, int] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


_FACTS = {known.name for known in fields(Facts)}


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows as a model takes them; all tensors are [rows, width].

    Attributes:
        tokens: Numbers of tokens, int32.
        labels: Token i where it is to be learnt, else `IGNORE`; int32.
        positions: Where each token stands in its document, int32; `None` is where it stands in
            its row.
        real: Which tokens do not merely fill a row up, bool; `None` are those that are no padding.
    """

    tokens: torch.Tensor
    labels: torch.Tensor
    positions: torch.Tensor | None = None
    real: torch.Tensor | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tokens)

    def __getitem__(self, rows: slice | torch.Tensor) -> Self:
        """Return some of the rows."""
        return type(self)(
            self.tokens[rows],
            self.labels[rows],
            None if self.positions is None else self.positions[rows],
            None if self.real is None else self.real[rows],
        )

    def split(self, parts: int) -> list[Self]:
        """Return the rows in so many parts of sizes that differ by one at most; none is empty."""
        spans = torch.arange(len(self)).tensor_split(parts)
        return [self[int(span[0]) : int(span[-1]) + 1] for span in spans if len(span)]

    @classmethod
    def joined(cls, batches: Sequence[RowBatch]) -> RowBatch:
        """Return the rows of all batches, which have positions and padding alike."""
        positions = [b.positions for b in batches if b.positions is not None]
        real = [b.real for b in batches if b.real is not None]
        return cls(
            torch.cat([b.tokens for b in batches]),
            torch.cat([b.labels for b in batches]),
            torch.cat(positions) if positions else None,
            torch.cat(real) if real else None,
        )


class RowSource(Protocol):
    """Rows of one width that are read when they are asked for."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    @property
    def width(self) -> int:
        """Tokens of a row."""
        ...

    @property
    def reads_to_count(self) -> bool:
        """Whether `counts` reads anything, as where masks in a store say what is to be learnt."""
        ...

    def read(self, part: torch.Tensor) -> RowBatch:
        """Return the rows of these numbers, int64 [rows]."""
        ...

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        """Return how many tokens these rows have, and how many labels beyond their first token."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """Samples of one split: int32 tensors of the same shape [rows, width]."""

    tokens: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self.tokens.shape[0])

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return int(self.tokens.shape[1])

    @property
    def reads_to_count(self) -> bool:
        """Whether `counts` reads anything: all is in memory."""
        return False

    def read(self, part: torch.Tensor) -> RowBatch:
        """Return the rows of these numbers, int64 [rows]."""
        return RowBatch(self.tokens[part], self.labels[part])

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        """Return how many tokens these rows have, and how many labels beyond their first token."""
        learnt = int((self.labels[part, 1:] != IGNORE).sum().item())
        return int((self.tokens[part] != pad).sum().item()), learnt


def rows_of(examples: Sequence[tuple[list[int], list[bool]]], *, pad: int) -> Rows:
    """Lay out tokens, one example a row, each with whether it is to be learnt."""
    width = max((len(tokens) for tokens, _ in examples), default=1)
    tokens = torch.full((len(examples), width), pad, dtype=torch.int32)
    labels = torch.full((len(examples), width), IGNORE, dtype=torch.int32)
    for row, (ids, learnt) in enumerate(examples):
        tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        chosen = torch.tensor(learnt, dtype=torch.bool)
        labels[row, : len(ids)][chosen] = tokens[row, : len(ids)][chosen]
    return Rows(tokens, labels)


def rows_of_stream(stream: Sequence[int], *, width: int) -> Rows:
    """Cut a stream of tokens into rows, all of it to be learnt; a short end is left out."""
    count = len(stream) // width
    tokens = torch.tensor(stream[: count * width], dtype=torch.int32).reshape(count, width)
    return Rows(tokens, tokens.clone())


def file_of(folder: Path, split: str) -> Path:
    """Return the file of the arrays of one split."""
    return folder / f"{split}.safetensors"


def write_split(folder: Path, split: str, rows: Rows, examples: Iterable[object]) -> None:
    """Write the arrays and the examples of one split."""
    arrays = {"tokens": rows.tokens, "labels": rows.labels}
    save_file(arrays, file_of(folder, split))
    write_lines(folder / f"{split}.jsonl", examples)


def write_lines(path: Path, items: Iterable[object]) -> None:
    """Write values as JSON, one a line."""
    lines = (json.dumps(item, sort_keys=True, ensure_ascii=False) for item in items)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def write_facts(folder: Path, facts: Facts) -> None:
    """Write what the data set is."""
    text = json.dumps(asdict(facts), indent=2, sort_keys=True)
    (folder / FACTS_NAME).write_text(f"{text}\n", "utf-8")


def read_facts(folder: Path) -> Facts:
    """Read what the data set in `folder` is."""
    path = folder / FACTS_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{str(folder)!r} is no data set: it has no {FACTS_NAME}")
    written = json.loads(path.read_text("utf-8"))
    return Facts(**{name: written[name] for name in _FACTS & written.keys()})


def read_rows(folder: Path, split: str) -> Rows:
    """Read the arrays of one split."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    arrays = load_file(file_of(folder, split))
    return Rows(arrays["tokens"], arrays["labels"])


def read_examples(folder: Path, split: str) -> list[dict[str, Any]]:
    """Read the examples of one split."""
    text = (folder / f"{split}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
