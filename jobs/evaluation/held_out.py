"""Measures a model on a split of a data set that it was not trained on.

Loss and perplexity of a trained model for any data set; for tasks also how often its answers are
right, beside what blind guessing would reach. Who answers is an engine, or an endpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Literal

import torch

from jobs.data.dataset import (
    IGNORE,
    RowBatch,
    RowSource,
    read_examples,
    read_facts,
    write_lines,
)
from jobs.data.splits import TEST
from jobs.data.tokens.training_data import open_rows, rows_config
from jobs.engines import EMBEDDED
from jobs.engines.weights import load
from jobs.evaluation.answer_table import NAME, table
from jobs.evaluation.intervals import majority, pass_at_k, ratio_interval, with_interval
from jobs.evaluation.respondents import (
    Ask,
    EndpointRespondent,
    EngineRespondent,
    Respondent,
)
from jobs.evaluation.scorers import Scorer, scores
from jobs.training.loss import TokenLoss, nll
from jobs.training.order import mix
from jobs.training.pretraining_recipe import check_tokens
from jobs.training.process_group import ProcessGroup
from jobs.training.step import wants_bf16
from orchestrator.engine import Sampling
from orchestrator.job import JobContext, Metrics

PREDICTIONS_NAME = "predictions.jsonl"
REPORT_NAME = "report.json"

Prediction = dict[str, Any]

_MOST_NATS = 700.0
_SHOWN = 5


def evaluate(  # noqa: PLR0913 - the parameters of a job are its configuration
    ctx: JobContext,
    *,
    split: str = TEST,
    examples: int = 500,
    batch_size: int = 64,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    max_tokens: int = 16,
    samples: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    pass_at: Sequence[int] = (),
    scorer: Scorer = "task",
    engine: str = EMBEDDED,
    options: dict[str, object] | None = None,
    endpoint: str = "",
    served: str = "",
    rows: dict[str, object] | None = None,
    micro_batch_tokens: int | None = None,
) -> Metrics:
    """Evaluate the input `model`, or an endpoint, on the input `data`.

    Args:
        ctx: The context.
        split: The split to measure on.
        examples: Most rows to measure on, from the beginning of the split.
        batch_size: Rows at once, for the loss.
        precision: Of the loss, as `pretrain` has it.
        max_tokens: Most tokens of an answer.
        samples: Answers to each question.
        temperature: At which they are drawn; 0 is greedy, and gives one.
        top_p: They are drawn from the likeliest tokens that have this probability together.
        pass_at: Numbers k of answers of which one is to be right (pass@k), up to `samples`.
        scorer: What is right: `task` (reasoning-gym's own scorer) or `math_verify`.
        engine: Dotted name of the engine class that answers.
        options: Options of the engine.
        endpoint: Address of an endpoint that answers instead (`http://HOST:PORT/v1`): then there
            is no loss, and no input `model`.
        served: The model's name there.
        rows: How rows are made of tokens, as `pretrain` has it.
        micro_batch_tokens: Most tokens at once, for the loss, in place of `batch_size`; one row at
            the least.
    """
    check_tokens(micro_batch_tokens)
    _check(samples, examples, temperature, pass_at)
    group, facts = ProcessGroup(ctx), read_facts(ctx.inputs["data"])
    table = open_rows(ctx.inputs["data"], split, rows_config(rows or {}))
    chosen = torch.arange(min(examples, len(table)))
    values: dict[str, float] = {}
    if not endpoint:
        most = _rows_at_once(batch_size, micro_batch_tokens, table.width)
        parts = group.parts(chosen, max(1, most // ctx.adjust.accumulate))
        values |= _likelihood(ctx, table, parts, group, bf16=wants_bf16(precision, ctx.hardware))
        if not values:
            ctx.log(f"no row of split {split!r} that was looked at has a label: it has no loss")
    if facts.task is not None:
        sampling = Sampling(max_tokens=max_tokens, temperature=temperature, top_p=top_p)
        with closing(_respondent(ctx, engine, options or {}, endpoint, served)) as respondent:
            mine = _predictions(ctx, split, group.share(chosen), respondent, sampling, samples)
        _score(mine, scorer, facts.task)
        predictions = _of_all(group, mine)
        values |= _figures(predictions, pass_at) | {"eval/chance": facts.chance or 0.0}
        _show(ctx, predictions)
    _keep(ctx, values)
    return values


def _of_all(group: ProcessGroup, mine: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions of all workers, by rank."""
    return [
        prediction for text in group.gather(json.dumps(mine)) for prediction in json.loads(text)
    ]


def _check(samples: int, examples: int, temperature: float, pass_at: Sequence[int]) -> None:
    """Refuse numbers that can't be. Raises `ValueError`."""
    if samples < 1 or examples < 0:
        raise ValueError(
            f"samples={samples!r} must be at least 1, and examples={examples!r} at least 0"
        )
    if samples > 1 and temperature == 0:
        raise ValueError(f"samples={samples!r} are all alike at temperature=0: give a temperature")
    for k in pass_at:
        pass_at_k(samples, 0, k)


def _rows_at_once(batch_size: int, tokens: int | None, width: int) -> int:
    """Return how many rows of `width` tokens are taken at once; the last one is a label alone."""
    return batch_size if tokens is None else tokens // max(1, width - 1)


def _likelihood(
    ctx: JobContext,
    table: RowSource,
    parts: Sequence[torch.Tensor],
    group: ProcessGroup,
    *,
    bf16: bool,
) -> dict[str, float]:
    """Return loss and perplexity over the tokens to be learnt; nothing where there are none."""
    loss = TokenLoss(load(ctx.inputs["model"], torch.float32, ctx.device), bf16=bf16)
    mine = [pair for part in parts for pair in _of_rows(loss, table.read(part), group.device)]
    gathered = [pair for text in group.gather(json.dumps(mine)) for pair in json.loads(text)]
    texts = [(total, count) for total, count in gathered if count]
    if not texts:
        return {}
    totals, counts = zip(*texts, strict=True)
    ends = zip(("_low", "_high"), ratio_interval(totals, counts), strict=True)
    losses = {"": math.fsum(totals) / sum(counts), **dict(ends)}
    return {
        **{f"eval/loss{end}": value for end, value in losses.items()},
        **{f"eval/perplexity{end}": math.exp(min(n, _MOST_NATS)) for end, n in losses.items()},
    }


@torch.no_grad()
def _of_rows(
    loss: TokenLoss, batch: RowBatch, device: torch.device
) -> Iterator[tuple[float, int]]:
    """Yield of each row its summed loss, nats, and how many tokens are to be learnt."""
    losses = nll(loss, batch, device=device, by_row=True).tolist()
    counts = (batch.labels[:, 1:] != IGNORE).sum(1).tolist()
    yield from zip(losses, counts, strict=True)


def _respondent(
    ctx: JobContext, engine: str, options: Mapping[str, object], endpoint: str, served: str
) -> Respondent:
    """Return who answers: the endpoint where there is one, else the engine."""
    if endpoint:
        return EndpointRespondent(endpoint, served)
    return EngineRespondent(engine, ctx.inputs["model"], ctx.hardware, options)


def _predictions(
    ctx: JobContext,
    split: str,
    rows: torch.Tensor,
    respondent: Respondent,
    sampling: Sampling,
    samples: int,
) -> list[Prediction]:
    """Return questions of some rows with the answers that were given to each."""
    items = read_examples(ctx.inputs["data"], split)
    asked = [
        Ask(items[row]["question"], mix(ctx.seed, row, sample))
        for row in rows.tolist()
        for sample in range(samples)
    ]
    answers = respondent.answers(asked, sampling, lambda done: ctx.progress(done, len(asked)))
    return [
        {"item": items[row], "predictions": answers[at * samples : (at + 1) * samples]}
        for at, row in enumerate(rows.tolist())
    ]


def _score(predictions: Sequence[Prediction], scorer: Scorer, task: str) -> None:
    """Put the score of each answer beside it, and the question and its answer alone."""
    items = [prediction["item"] for prediction in predictions]
    graded = scores(scorer, task, items, [prediction["predictions"] for prediction in predictions])
    for prediction, item, marks in zip(predictions, items, graded, strict=True):
        del prediction["item"]
        prediction |= {"question": item["question"], "answer": item["answer"], "scores": marks}


def _figures(predictions: Sequence[Prediction], pass_at: Sequence[int]) -> dict[str, float]:
    """Return the figures of all answers; an answer is right where its score is 1."""
    right = [[score == 1.0 for score in prediction["scores"]] for prediction in predictions]
    shares = [sum(marks) / len(marks) for marks in right]
    values = with_interval("eval/accuracy", shares)
    for k in pass_at:
        chances = [pass_at_k(len(marks), sum(marks), k) for marks in right]
        values |= with_interval(f"eval/pass_at_{k}", chances)
    if any(len(marks) > 1 for marks in right):
        voted = [
            float(marks[majority(prediction["predictions"])])
            for prediction, marks in zip(predictions, right, strict=True)
        ]
        values |= with_interval("eval/majority", voted)
    means = [math.fsum(each["scores"]) / len(each["scores"]) for each in predictions]
    values |= with_interval("eval/score", means)
    return {**values, "eval/examples": float(len(predictions))}


def _keep(ctx: JobContext, values: Mapping[str, float]) -> None:
    """Log the figures, and keep them in the artifact."""
    ctx.metrics(values, step=0)
    if ctx.rank == 0:
        text = json.dumps(values, indent=2, sort_keys=True)
        (ctx.output / REPORT_NAME).write_text(f"{text}\n", "utf-8")


def _show(ctx: JobContext, predictions: Sequence[Prediction]) -> None:
    """Keep all predictions, show a table of them, and log some."""
    if ctx.rank == 0:
        write_lines(ctx.output / PREDICTIONS_NAME, predictions)
        ctx.report(NAME, table([_row(prediction) for prediction in predictions]))
    for prediction in predictions[:_SHOWN]:
        said, right = prediction["predictions"][0], prediction["answer"]
        ctx.log(
            f"{prediction['question']} -> {said!r}" + ("" if said == right else f", not {right!r}")
        )


def _row(prediction: Prediction) -> dict[str, object]:
    marks = [score == 1.0 for score in prediction["scores"]]
    several = f"{sum(marks)} of {len(marks)} right"
    return {
        "question": prediction["question"],
        "answer": prediction["answer"],
        "prediction": prediction["predictions"][0],
        "verdict": several if len(marks) > 1 else ("right" if marks[0] else "wrong"),
    }
