"""Arithmetic tasks of reasoning-gym, with its own answers and its own scoring.

Splits are disjoint by content: neither the wording of a question nor the order of the terms of a
sum makes it another one, so a held-out sum never occurs in training in any form.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.data.dataset import (
    TOKENIZER_NAME,
    Facts,
    Rows,
    rows_of,
    write_facts,
    write_split,
)
from jobs.data.reasoning import gym
from jobs.data.splits import SPLITS, TEST, TRAIN, split_of
from jobs.data.tokenizer import encode_chats, load_tokenizer, pad_of, train_tokenizer
from orchestrator.job import JobContext, Metrics

Entry = dict[str, Any]


# Sums of two numbers from 0 to 100, asked in four wordings.
SUMS: Mapping[str, object] = {
    "min_terms": 2,
    "max_terms": 2,
    "min_digits": 2,
    "max_digits": 2,
    "operators": ["+"],
    "allow_parentheses": False,
    "allow_negation": False,
    "format_style": "natural",
}


def prepare(  # noqa: PLR0913 - the parameters of a job are its configuration
    ctx: JobContext,
    *,
    task: str = "basic_arithmetic",
    options: dict[str, object] | None = None,
    draws: int = 5_000,
    validation: float = 0.02,
    test: float = 0.1,
    vocab_size: int = 384,
) -> Metrics:
    """Draw tasks, split them by content, tokenize them, and write the data set.

    With an input `model` its tokenizer and chat template are used; otherwise one is trained.

    Args:
        ctx: The context.
        task: Name of a reasoning-gym data set.
        options: Difficulty, in that data set's own words; `SUMS` where left out.
        draws: How many tasks to draw; repeated questions are dropped. Fewer tasks seen more often
            are learnt sooner than many seen once or twice.
        validation: Share of the contents held out for validation.
        test: Share of the contents held out for the test.
        vocab_size: Most tokens of a trained tokenizer.
    """
    chosen = dict(SUMS if options is None else options)
    entries = _distinct(gym().create_dataset(task, seed=ctx.seed, size=draws, **chosen))
    shares = {"validation": validation, "test": test}
    splits = _split(entries, seed=ctx.seed, shares=shares)
    tokenizer = _tokenizer(ctx, splits[TRAIN], vocab_size)
    tokenizer.save_pretrained(ctx.output / TOKENIZER_NAME)
    for done, (name, items) in enumerate(splits.items(), start=1):
        write_split(ctx.output, name, _rows(tokenizer, items), items)
        ctx.progress(done, len(splits))
    facts = Facts(
        kind="tasks",
        pad=pad_of(tokenizer),
        task=task,
        chance=chance_of(splits[TRAIN], splits[TEST]),
        rows={name: len(items) for name, items in splits.items()},
        parameters={"options": chosen, "draws": draws, "seed": ctx.seed, **shares},
    )
    write_facts(ctx.output, facts)
    ctx.log(f"{task}: {dict(facts.rows)}, e.g. {splits[TRAIN][0]['question']!r}")
    return {f"data/{name}_rows": float(size) for name, size in facts.rows.items()}


def content_key(entry: Mapping[str, Any]) -> str:
    """Return what the task asks, whatever its wording; terms of a plain sum are put in order."""
    asked = entry.get("metadata", {}).get("expression") or entry["question"]
    expression = "".join(str(asked).split())
    terms = expression.split("+")
    return "+".join(sorted(terms)) if all(term.isdigit() for term in terms) else expression


def chance_of(train: Sequence[Entry], test: Sequence[Entry]) -> float:
    """Return the accuracy on `test` of always giving the answer that is most frequent in `train`.

    Of several as frequent it is the first.
    """
    ((answer, _),) = Counter(entry["answer"] for entry in train).most_common(1)
    right = [entry for entry in test if entry["answer"] == answer]
    return len(right) / len(test)


def _distinct(source: Iterable[Entry]) -> list[Entry]:
    """Return the entries with each question once, in order, as plain JSON values."""
    first: dict[str, Entry] = {}
    for entry in source:
        first.setdefault(entry["question"], entry)
    return [json.loads(json.dumps(entry)) for entry in first.values()]


def _split(
    entries: Sequence[Entry], *, seed: int, shares: Mapping[str, float]
) -> dict[str, list[Entry]]:
    splits: dict[str, list[Entry]] = {name: [] for name in SPLITS}
    for entry in entries:
        splits[split_of(content_key(entry), seed=seed, **shares)].append(entry)
    for name, items in splits.items():
        if not items:
            raise ValueError(f"split {name!r} is empty after {len(entries)} tasks; raise `draws`")
    return splits


def _tokenizer(ctx: JobContext, train: Sequence[Entry], vocab_size: int) -> Any:  # noqa: ANN401 - foreign type
    if "model" in ctx.inputs:
        return load_tokenizer(ctx.inputs["model"])
    questions = (entry["question"] for entry in train)
    return train_tokenizer(questions, vocab_size=vocab_size, phrases=True)


def _rows(tokenizer: Any, entries: Sequence[Entry]) -> Rows:  # noqa: ANN401 - foreign type
    chats = [
        [
            {"role": "user", "content": entry["question"]},
            {"role": "assistant", "content": entry["answer"]},
        ]
        for entry in entries
    ]
    return rows_of(encode_chats(tokenizer, chats), pad=pad_of(tokenizer))
