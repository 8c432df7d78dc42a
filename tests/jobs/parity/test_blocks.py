"""Norms of blocks: small and odd shapes, and what a wrong block changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jobs.parity.blocks import furthest, norms


def model(*shape: int) -> nn.Module:
    made = nn.Module()
    torch.manual_seed(0)
    made.weight = nn.Parameter(torch.randn(*shape))
    return made


@pytest.mark.parametrize(
    ("shape", "blocks"),
    [((5,), (1, 1)), ((128, 128), (1, 1)), ((129, 300), (2, 3)), ((2, 64, 130), (1, 2))],
)
def test_every_element_is_in_one_block(shape: tuple[int, ...], blocks: tuple[int, int]) -> None:
    made = model(*shape)
    (found,) = norms(made).values()
    assert tuple(found.shape) == blocks
    whole = made.weight.double().square().sum().item()
    assert found.double().square().sum().item() == pytest.approx(whole, rel=1e-5)


def test_a_block_of_another_scale_stands_out_by_its_tensor() -> None:
    before, after = model(300, 300), model(300, 300)
    rounded = after.weight.data.bfloat16().float()
    after.weight.data = rounded
    assert furthest(norms(before), norms(after))[0] < 1e-4
    after.weight.data[128:256, :128] *= 2
    change, name = furthest(norms(before), norms(after))
    assert (change, name) == (pytest.approx(1.0, abs=1e-3), "weight")


def test_what_is_missing_or_of_another_shape_or_no_number_is_infinitely_far() -> None:
    before = norms(model(4, 4))
    assert furthest(before, {}) == (math.inf, "weight")
    assert furthest(before, norms(model(200, 4))) == (math.inf, "weight")
    assert furthest(before, {"weight": torch.tensor([[math.nan]])}) == (math.inf, "weight")
    assert furthest({}, {}) == (0.0, "")
