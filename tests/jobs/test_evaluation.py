from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from jobs.data import shakespeare
from jobs.data.dataset import read_examples, read_facts
from jobs.evaluation import evaluate
from jobs.parity.reference import measure
from jobs.pretraining import pretrain
from orchestrator.job import Changes
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, sums: Path, undisturbed: LocalContext
) -> LocalContext:
    inputs = {"data": sums, "model": undisturbed.output}
    ctx = LocalContext(folder=tmp_path_factory.mktemp("evaluated"), inputs=inputs)
    ctx.result = dict(evaluate(ctx, examples=24, batch_size=10, max_tokens=6))
    return ctx


def predictions(ctx: LocalContext) -> list[dict[str, object]]:
    text = (ctx.output / "predictions.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_perplexity_is_that_of_the_loss(evaluated: LocalContext) -> None:
    told = evaluated.result

    assert 0 < told["eval/loss"] < 6
    assert told["eval/perplexity"] == pytest.approx(math.exp(told["eval/loss"]))
    assert evaluated.points == [(0, told)]


def test_chance_stands_beside_the_accuracy(evaluated: LocalContext, sums: Path) -> None:
    assert evaluated.result["eval/chance"] == read_facts(sums).chance
    assert 0 < evaluated.result["eval/chance"] < 0.05


def test_every_prediction_is_kept_with_its_score(evaluated: LocalContext, sums: Path) -> None:
    kept, asked = predictions(evaluated), read_examples(sums, "test")[:24]

    assert [item["question"] for item in kept] == [item["question"] for item in asked]
    right = [item["prediction"] == item["answer"] for item in kept]
    assert [item["score"] == 1.0 for item in kept] == right
    assert evaluated.result["eval/accuracy"] == sum(right) / 24


def test_answers_do_not_depend_on_the_batch(
    tmp_path: Path, evaluated: LocalContext, sums: Path, undisturbed: LocalContext
) -> None:
    inputs = {"data": sums, "model": undisturbed.output}
    alone = LocalContext(folder=tmp_path, inputs=inputs)
    evaluate(alone, examples=24, batch_size=1, max_tokens=6)

    assert predictions(alone) == predictions(evaluated)


def test_what_ran_out_of_memory_is_done_in_smaller_micro_batches(
    tmp_path: Path, evaluated: LocalContext, sums: Path, undisturbed: LocalContext
) -> None:
    inputs = {"data": sums, "model": undisturbed.output}
    ctxs = [
        LocalContext(folder=tmp_path / name, inputs=inputs, adjust=Changes(accumulate=5))
        for name in ("evaluate", "reference")
    ]
    with largest_batch() as seen:
        told = evaluate(ctxs[0], examples=24, batch_size=10, max_tokens=6)
    assert max(seen) == 2
    assert told["eval/loss"] == pytest.approx(evaluated.result["eval/loss"])
    with largest_batch() as seen:
        measure(ctxs[1], questions=9, max_tokens=2)
    assert max(seen) == 1


@contextmanager
def largest_batch() -> Iterator[list[int]]:
    """Give the number of rows of every batch that a whole language model sees."""
    seen: list[int] = []

    def look(module: torch.nn.Module, _: object, output: Any) -> None:
        if isinstance(module, LlamaForCausalLM):
            seen.append(len(output.logits))

    hook = torch.nn.modules.module.register_module_forward_hook(look)
    try:
        yield seen
    finally:
        hook.remove()


def test_plain_text_has_a_loss_and_no_accuracy(tmp_path: Path) -> None:
    data = LocalContext(folder=tmp_path / "data")
    shakespeare.prepare(data, works=2, width=32, validation=0.1, test=0.1, vocab_size=300)
    model = LocalContext(folder=tmp_path / "model", inputs={"data": data.output})
    pretrain(model, **{**SHORT, "steps": 3})
    ctx = LocalContext(
        folder=tmp_path / "eval", inputs={"data": data.output, "model": model.output}
    )
    told = evaluate(ctx, examples=8)

    assert set(told) == {"eval/loss", "eval/perplexity"}
    assert not (ctx.output / "predictions.jsonl").exists()
