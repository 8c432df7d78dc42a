"""Small corpora in the formats that people have, and what is made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.data.tokenizer import train_tokenizer
from jobs.data.tokens.preparation import prepare
from tests.jobs.local_context import LocalContext

WORDS = (
    *("the", "cat", "sat", "on", "a", "mat", "and", "saw", "one"),
    *("red", "bird", "fly", "over", "two", "old", "trees", "near", "water"),
)
RECIPE: dict[str, Any] = {
    "model": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
    "rows": {"sequence": 32},
    "steps": 12,
    "batch_size": 8,
    "warmup": 2,
    "log_every": 1,
    "validate_every": 6,
    "validation_rows": 8,
    "checkpoint_every": 5,
}


def texts(count: int, begin: int = 0) -> list[str]:
    """Return texts that differ, of 4 to 30 words."""
    return [
        " ".join(
            WORDS[(number * 7 + at * (1 + number % 5)) % len(WORDS)]
            for at in range(4 + number % 27)
        )
        + f" {number}."
        for number in range(begin, begin + count)
    ]


def chats(count: int) -> list[list[dict[str, str]]]:
    """Return chats of one to three turns."""
    return [
        [
            message
            for turn in range(1 + number % 3)
            for message in (
                {"role": "user", "content": f"what is {number} and {turn}?"},
                {"role": "assistant", "content": f"it is {number + turn}"},
            )
        ]
        for number in range(count)
    ]


def write_records(path: Path, records: Sequence[Any]) -> Path:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), "utf-8")
    return path


def write_tokenizer(folder: Path, size: int = 320) -> Path:
    """Train a tokenizer on the texts."""
    train_tokenizer(texts(200), vocab_size=size).save_pretrained(folder)
    return folder


def prepared(folder: Path, tokenizer: Path, source: Path, **params: Any) -> Path:
    """Prepare tokens; return their folder."""
    ctx = LocalContext(folder=folder)
    settings = {"validation": 0.1, "test": 0.0, "part_mb": 0.004, **params}
    prepare(ctx, source=str(source), tokenizer=str(tokenizer), **settings)
    return ctx.output
