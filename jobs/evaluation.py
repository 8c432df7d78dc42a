"""Measures a trained model on a split that it was not trained on.

Loss and perplexity for any data set; for tasks also how often the answer is right, by
reasoning-gym's own scorer, beside what blind guessing would reach.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch

from jobs.data.dataset import Rows, read_examples, read_facts, read_rows, write_lines
from jobs.data.reasoning import scorer
from jobs.data.splits import TEST
from jobs.data.tokenizer import load_tokenizer
from jobs.engines.weights import load
from jobs.generation import answer
from jobs.training.gang import Gang
from jobs.training.loss import TokenLoss, mean_nll
from jobs.training.step import wants_bf16
from orchestrator.job import JobContext, Metrics

PREDICTIONS_NAME = "predictions.jsonl"
REPORT_NAME = "report.json"

Example = dict[str, Any]
Prediction = dict[str, Any]
Answerer = Callable[[Sequence[str]], list[str]]

_MOST_NATS = 700.0
_SHOWN = 5


def evaluate(
    ctx: JobContext,
    *,
    split: str = TEST,
    examples: int = 500,
    batch_size: int = 64,
    max_tokens: int = 16,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> Metrics:
    """Evaluate the input `model` on the input `data`.

    Args:
        ctx: The context.
        split: The split to measure on.
        examples: Most rows to measure on, from the beginning of the split.
        batch_size: Rows at once.
        max_tokens: Most tokens of an answer.
        precision: Of the loss, as `pretrain` has it.
    """
    gang = Gang(ctx)
    data, folder = ctx.inputs["data"], ctx.inputs["model"]
    facts = read_facts(data)
    model = load(folder, torch.float32, ctx.device)
    rows = read_rows(data, split)
    most = max(1, batch_size // ctx.adjust.accumulate)
    parts = gang.parts(torch.arange(min(examples, len(rows))), most)
    bf16 = wants_bf16(precision, ctx.hardware)
    values = _likelihood(TokenLoss(model, bf16=bf16), rows, parts, gang)
    if not values:
        ctx.log(f"no row of split {split!r} that was looked at has a label: it has no loss")
    if facts.task is not None:
        answerer = partial(
            answer, model, load_tokenizer(folder), device=gang.device, max_tokens=max_tokens
        )
        items = read_examples(data, split)
        scored: list[Prediction] = []
        for part in parts:
            scored += _score(facts.task, [items[index] for index in part.tolist()], answerer)
            ctx.progress(len(scored), sum(map(len, parts)))
        predictions = [
            item for text in gang.gather(json.dumps(scored)) for item in json.loads(text)
        ]
        values |= _accuracy(predictions) | {"eval/chance": facts.chance or 0.0}
        _show(ctx, predictions)
        if ctx.rank == 0:
            write_lines(ctx.output / PREDICTIONS_NAME, predictions)
    ctx.metrics(values, step=0)
    if ctx.rank == 0:
        text = json.dumps(values, indent=2, sort_keys=True)
        (ctx.output / REPORT_NAME).write_text(f"{text}\n", "utf-8")
    return values


def _likelihood(
    loss: TokenLoss, rows: Rows, parts: Sequence[torch.Tensor], gang: Gang
) -> dict[str, float]:
    """Return loss and perplexity over the tokens to be learnt; nothing where there are none."""
    mean = mean_nll(loss, rows, parts, gang)
    if mean is None:
        return {}
    return {"eval/loss": mean, "eval/perplexity": math.exp(min(mean, _MOST_NATS))}


def _score(task: str, items: Sequence[Example], answerer: Answerer) -> list[Prediction]:
    score = scorer(task)
    answers = answerer([item["question"] for item in items])
    return [
        {
            "question": item["question"],
            "answer": item["answer"],
            "prediction": text,
            "score": float(score(text, item)),
        }
        for item, text in zip(items, answers, strict=True)
    ]


def _accuracy(predictions: Sequence[Prediction]) -> dict[str, float]:
    count = max(len(predictions), 1)
    return {
        "eval/accuracy": sum(item["score"] == 1.0 for item in predictions) / count,
        "eval/score": sum(item["score"] for item in predictions) / count,
        "eval/examples": float(len(predictions)),
    }


def _show(ctx: JobContext, predictions: Sequence[Prediction]) -> None:
    for item in predictions[:_SHOWN]:
        said, right = item["prediction"], item["answer"]
        ctx.log(f"{item['question']} -> {said!r}" + ("" if said == right else f", not {right!r}"))
