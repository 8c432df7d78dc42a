from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from jobs.data import shakespeare
from jobs.data.dataset import read_examples
from jobs.data.tokens.training_data import RowsConfig, open_rows
from jobs.evaluation.held_out import evaluate
from jobs.parity.reference import measure
from jobs.pretraining import pretrain
from orchestrator.job import Changes
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT
from tests.ports import free_address


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, sums: Path, undisturbed: LocalContext
) -> LocalContext:
    inputs = {"data": sums, "model": undisturbed.output}
    ctx = LocalContext(folder=tmp_path_factory.mktemp("evaluated"), inputs=inputs)
    ctx.result = dict(evaluate(ctx, examples=24, batch_size=10, max_tokens=6))
    return ctx


def predictions(ctx: LocalContext) -> list[dict[str, Any]]:
    text = (ctx.output / "predictions.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_perplexity_is_that_of_the_loss(evaluated: LocalContext) -> None:
    told = evaluated.result

    assert 0 < told["eval/loss"] < 6
    assert told["eval/perplexity"] == pytest.approx(math.exp(told["eval/loss"]))
    for end in ("_low", "_high"):
        loss = told[f"eval/loss{end}"]
        assert told[f"eval/perplexity{end}"] == pytest.approx(math.exp(loss))
        assert abs(loss - told["eval/loss"]) < 0.5
    assert told["eval/loss_low"] < told["eval/loss"] < told["eval/loss_high"]
    assert told["eval/score_low"] <= told["eval/score"] <= told["eval/score_high"]
    assert evaluated.points == [(0, told)]


def test_chance_is_the_accuracy_of_always_giving_the_most_frequent_answer(
    evaluated: LocalContext, sums: Path
) -> None:
    frequent = statistics.mode(row["answer"] for row in read_examples(sums, "train"))
    right = [row["answer"] == frequent for row in read_examples(sums, "test")]
    assert evaluated.result["eval/chance"] == statistics.mean(right)


def test_every_prediction_is_kept_with_its_score(evaluated: LocalContext, sums: Path) -> None:
    kept, asked = predictions(evaluated), read_examples(sums, "test")[:24]

    assert [item["question"] for item in kept] == [item["question"] for item in asked]
    right = [item["predictions"] == [item["answer"]] for item in kept]
    assert [item["scores"] == [1.0] for item in kept] == right
    assert evaluated.result["eval/accuracy"] == sum(right) / 24
    low, high = (evaluated.result[f"eval/accuracy_{end}"] for end in ("low", "high"))
    assert 0 <= low <= sum(right) / 24 <= high < 1


def test_a_table_shows_which_answers_are_right(evaluated: LocalContext) -> None:
    shown = list(csv.DictReader(io.StringIO(evaluated.reports["answers.csv"])))
    assert [(row["question"], row["prediction"], row["verdict"] == "right") for row in shown] == [
        (item["question"], item["predictions"][0], item["scores"] == [1.0])
        for item in predictions(evaluated)
    ]


def test_several_answers_give_the_odds_that_one_is_right(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    ctxs = [
        LocalContext(folder=tmp_path / name, inputs={"data": sums, "model": undisturbed.output})
        for name in "ab"
    ]
    asked: dict[str, Any] = {"examples": 12, "samples": 6, "temperature": 1.5, "max_tokens": 4}
    told = [evaluate(ctx, **asked, pass_at=[1, 6]) for ctx in ctxs]
    kept = predictions(ctxs[0])
    assert told[0] == told[1]
    assert kept == predictions(ctxs[1])
    assert any(len(set(item["predictions"])) > 1 for item in kept)
    some = sum(any(score == 1.0 for score in item["scores"]) for item in kept) / 12
    assert told[0]["eval/pass_at_6"] == pytest.approx(some)
    assert told[0]["eval/pass_at_1"] == pytest.approx(told[0]["eval/accuracy"])
    assert told[0]["eval/pass_at_1_low"] <= told[0]["eval/pass_at_1"]
    assert "eval/majority" in told[0]
    row = next(csv.DictReader(io.StringIO(ctxs[0].reports["answers.csv"])))
    assert row["verdict"].endswith(" of 6 right")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"samples": 4}, "samples=4 are all alike at temperature=0: give a temperature"),
        ({"pass_at": [2]}, "k=2 is not from 1 to samples=1"),
        ({"samples": 0}, "samples=0 must be at least 1"),
        ({"examples": -1}, "examples=-1 at least 0"),
        ({"scorer": "guess", "examples": 1}, "scorer='guess' is none of"),
        ({"engine": "Engine", "examples": 1}, "engine='Engine' is no dotted name"),
        ({"split": "exam"}, "no split 'exam'"),
    ],
)
def test_what_can_not_be_measured_is_refused(
    tmp_path: Path, sums: Path, undisturbed: LocalContext, asked: dict[str, Any], said: str
) -> None:
    inputs = {"data": sums, "model": undisturbed.output}
    with pytest.raises(ValueError, match=said):
        evaluate(LocalContext(folder=tmp_path, inputs=inputs), **asked)


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


def test_tokens_that_are_taken_at_once_have_a_bound_which_changes_nothing(
    tmp_path: Path, evaluated: LocalContext, sums: Path, undisturbed: LocalContext
) -> None:
    inputs = {"data": sums, "model": undisturbed.output}
    ctxs = [
        LocalContext(folder=tmp_path / name, inputs=inputs) for name in ("evaluate", "measure")
    ]
    width = open_rows(sums, "test", RowsConfig()).width - 1
    with largest_batch() as seen:
        told = evaluate(ctxs[0], examples=24, max_tokens=6, micro_batch_tokens=3 * width + 1)
    assert max(seen) == 3
    assert told["eval/loss"] == pytest.approx(evaluated.result["eval/loss"])
    with largest_batch() as seen:
        measure(ctxs[1], questions=9, max_tokens=2, micro_batch_tokens=1)
    assert max(seen) == 1
    for job in (evaluate, measure):
        with pytest.raises(ValueError, match="micro_batch_tokens=0: give a whole number"):
            job(ctxs[0], micro_batch_tokens=0)


def test_an_endpoint_answers_as_the_engine_does(
    tmp_path: Path, evaluated: LocalContext, sums: Path, endpoint: str
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    told = evaluate(ctx, examples=24, max_tokens=6, endpoint=endpoint, served="sums")
    assert predictions(ctx) == predictions(evaluated)
    assert told == {
        name: value
        for name, value in evaluated.result.items()
        if not name.startswith(("eval/loss", "eval/perplexity"))
    }
    assert ctx.done == (24, 24)


def test_an_endpoint_draws_several_answers(tmp_path: Path, sums: Path, endpoint: str) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    asked: dict[str, Any] = {"examples": 4, "samples": 4, "temperature": 2.0, "max_tokens": 4}
    evaluate(ctx, **asked, endpoint=endpoint, served="sums")
    assert all(len(item["predictions"]) == 4 for item in predictions(ctx))
    assert any(len(set(item["predictions"])) > 1 for item in predictions(ctx))


def test_an_endpoint_that_is_away_or_has_no_such_model_is_named_in_one_line(
    tmp_path: Path, sums: Path, endpoint: str
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    address = f"http://{free_address()}/v1"
    with pytest.raises(ConnectionError, match=re.escape(f"endpoint {address!r} can't")) as away:
        evaluate(ctx, examples=2, endpoint=address, served="sums")
    with pytest.raises(ValueError, match=re.escape(f"{endpoint!r} refuses: ")) as refused:
        evaluate(ctx, examples=2, endpoint=endpoint, served="other")
    assert "\n" not in f"{away.value}{refused.value}"


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

    ends = ("", "_low", "_high")
    assert set(told) == {f"eval/{name}{end}" for name in ("loss", "perplexity") for end in ends}
    assert not (ctx.output / "predictions.jsonl").exists()
