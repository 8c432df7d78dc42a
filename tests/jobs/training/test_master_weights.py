"""Weights that are rounded to bfloat16 while the optimizer moves masters in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.pretraining import pretrain
from jobs.training.master_weights import keep_master_weights
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT
from tests.jobs.test_pretraining import same_bits, weights

BF16: dict[str, Any] = {**SHORT, "weights": "bf16"}


def step(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
    weight.grad = torch.ones_like(weight)
    optimizer.step()


def test_steps_too_small_for_the_grid_add_up() -> None:
    rounded, whole = (torch.nn.Parameter(torch.tensor([0.5, 1.0, 3.0])) for _ in range(2))
    kept = torch.optim.AdamW([rounded], lr=1e-5, weight_decay=0.0)
    plain = torch.optim.AdamW([whole], lr=1e-5, weight_decay=0.0)
    keep_master_weights(kept, torch.bfloat16)
    step(rounded, kept)
    assert torch.equal(rounded, torch.tensor([0.5, 1.0, 3.0])), "less than half a step of BF16"
    for _ in range(400):
        step(rounded, kept)
    for _ in range(401):
        step(whole, plain)
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert float(rounded.detach()[0]) < 0.5
    assert torch.equal(rounded + kept.state[rounded]["rest"], whole), "nothing was lost"


def test_a_weight_that_takes_part_late_begins_then() -> None:
    early, late, alone = (torch.nn.Parameter(torch.tensor([0.5, 1.0, 3.0])) for _ in range(3))
    optimizer = torch.optim.AdamW([early, late], lr=1e-3, weight_decay=0.0)
    keep_master_weights(optimizer, torch.bfloat16)
    step(early, optimizer)
    step(late, optimizer)
    other = torch.optim.AdamW([alone], lr=1e-3, weight_decay=0.0)
    keep_master_weights(other, torch.bfloat16)
    step(alone, other)
    assert torch.equal(late, alone)
    assert torch.equal(optimizer.state[late]["rest"], other.state[alone]["rest"])


def test_a_model_trained_so_is_the_one_that_bf16_serves_interrupted_or_not(
    tmp_path: Path, sums: Path
) -> None:
    whole = LocalContext(folder=tmp_path / "whole", inputs={"data": sums})
    pretrain(whole, **BF16)
    found = weights(whole)
    assert all(torch.equal(one, one.bfloat16().float()) for one in found.values())
    stored = load_file(whole.output / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    losses = whole.series("train/loss")
    assert losses[-1] < losses[0]
    lost = LocalContext(folder=tmp_path / "lost", inputs={"data": sums}, stop_after=15)
    with pytest.raises(InterruptedError):
        pretrain(lost, **BF16)
    resumed = replace(lost, stop_after=None)
    pretrain(resumed, **BF16)
    assert same_bits(whole, resumed)
