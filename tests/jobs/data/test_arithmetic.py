from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from sklearn.dummy import DummyClassifier

from jobs.data.arithmetic import chance_of, content_key, prepare
from jobs.data.dataset import (
    IGNORE,
    TOKENIZER_NAME,
    read_examples,
    read_facts,
    read_rows,
)
from jobs.data.reasoning import scorer
from jobs.data.splits import SPLITS
from jobs.data.tokenizer import load_tokenizer
from jobs.evaluation.held_out import evaluate
from jobs.parity.reference import measure
from jobs.pretraining import pretrain
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT


def test_no_content_is_in_two_splits_in_any_wording_or_order(sums: Path) -> None:
    keys = [{content_key(item) for item in read_examples(sums, name)} for name in SPLITS]

    assert all(keys)
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]


def test_wording_spaces_and_the_order_of_terms_make_no_other_content() -> None:
    def sum_of(expression: str) -> dict[str, object]:
        return {"question": "?", "metadata": {"expression": expression}}

    assert content_key(sum_of("12 + 3")) == content_key(sum_of("3+12"))
    assert content_key(sum_of("12 - 3")) != content_key(sum_of("3 - 12"))


def test_rows_are_the_examples_and_only_answers_are_learnt(sums: Path) -> None:
    tokenizer = load_tokenizer(sums / TOKENIZER_NAME)
    rows, items = read_rows(sums, "test"), read_examples(sums, "test")

    for tokens, labels, item in zip(rows.tokens, rows.labels, items, strict=True):
        text = tokenizer.decode(tokens.tolist(), skip_special_tokens=True)
        learnt = tokenizer.decode(labels[labels != IGNORE].tolist(), skip_special_tokens=True)
        assert text.startswith(item["question"])
        assert learnt == item["answer"]


def test_the_answers_are_right_by_reasoning_gyms_own_scorer(sums: Path) -> None:
    score = scorer(str(read_facts(sums).task))

    assert all(score(item["answer"], item) == 1.0 for item in read_examples(sums, "test"))


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    def made(name: str, seed: int) -> dict[str, bytes]:
        ctx = LocalContext(folder=tmp_path / name, seed=seed)
        prepare(ctx, draws=300, validation=0.1, test=0.1)
        return {path.name: path.read_bytes() for path in ctx.output.rglob("*") if path.is_file()}

    first = made("first", 1)
    assert made("again", 1) == first
    assert made("other", 2)["test.jsonl"] != first["test.jsonl"]


@pytest.mark.parametrize(
    ("train", "test", "accuracy"),
    [("1123", "19", 0.5), ("1123", "1111", 1.0), ("1123", "2222", 0.0), ("21", "12", 0.5)],
)
def test_chance_is_the_accuracy_of_always_giving_the_most_frequent_answer(
    train: str, test: str, accuracy: float
) -> None:
    judge = DummyClassifier(strategy="most_frequent").fit([[0]] * len(train), list(train))
    entries = [[{"answer": answer} for answer in split] for split in (train, test)]

    assert chance_of(*entries) == accuracy
    if train != "21":  # of several as frequent the judge gives the smallest
        assert judge.score([[0]] * len(test), list(test)) == accuracy


def test_another_task_is_one_parameter(tmp_path: Path) -> None:
    ctx = LocalContext(folder=tmp_path)
    told = prepare(ctx, task="chain_sum", options={"max_terms": 2}, draws=200, test=0.2)

    assert read_facts(ctx.output).task == "chain_sum"
    assert told["data/test_rows"] == len(read_examples(ctx.output, "test"))


def test_too_few_draws_for_the_splits_are_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="raise `draws`"):
        prepare(LocalContext(folder=tmp_path), draws=3)


def test_a_tokenizer_without_a_pad_token_goes_the_whole_way(
    tmp_path: Path, undisturbed: LocalContext
) -> None:
    given = tmp_path / "given"
    shutil.copytree(undisturbed.output, given)
    tokenizer = load_tokenizer(given)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(given)
    assert load_tokenizer(given).pad_token_id is None
    data = LocalContext(folder=tmp_path / "data", inputs={"model": given})
    prepare(data, draws=600, validation=0.1, test=0.1)
    inputs = {"data": data.output, "model": given}
    trained = LocalContext(folder=tmp_path / "trained", inputs=inputs)
    pretrain(trained, **{**SHORT, "steps": 2, "checkpoint_every": 1})
    for job in (pretrain, evaluate, measure):
        ctx = LocalContext(
            folder=tmp_path / job.__name__, inputs={**inputs, "model": trained.output}
        )
        few: dict[str, Any] = {**SHORT, "steps": 1} if job is pretrain else {"max_tokens": 2}
        job(ctx, **few)
        assert any(ctx.output.iterdir())
