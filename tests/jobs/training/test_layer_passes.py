"""Layers that are computed once more, or compiled, learn the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.pretraining import pretrain
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT, SMALL_EXPERTS
from tests.jobs.test_pretraining import close, same_bits, weights

EXPERTS = {**SMALL_EXPERTS, "num_experts": 4, "num_experts_per_tok": 2}


def test_layers_that_are_computed_once_more_give_the_same_bits(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(ctx, **SHORT, activation_checkpointing=True)
    assert same_bits(ctx, undisturbed)


def test_tokens_of_experts_are_counted_once_where_layers_are_computed_twice(
    tmp_path: Path, sums: Path
) -> None:
    recipe: dict[str, Any] = {**SHORT, "architecture": "qwen3_moe", "model": EXPERTS, "steps": 4}
    told = []
    for again in (False, True):
        ctx = LocalContext(folder=tmp_path / str(again), inputs={"data": sums})
        pretrain(ctx, **recipe, activation_checkpointing=again)
        told.append((ctx.series("router/load"), ctx.series("train/loss")))
    assert told[0] == told[1]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks
def test_compiled_layers_learn_the_same(
    tmp_path: Path, sums: Path, undisturbed: LocalContext
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(ctx, **SHORT, compile="aot_eager")
    assert close(weights(ctx), weights(undisturbed))


def test_a_compiler_that_is_none_is_refused(tmp_path: Path, sums: Path) -> None:
    with pytest.raises(ValueError, match="compile='inductr' is none of torch's backends: "):
        pretrain(LocalContext(folder=tmp_path, inputs={"data": sums}), **SHORT, compile="inductr")
