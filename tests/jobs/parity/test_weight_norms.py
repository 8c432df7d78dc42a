"""Norms of blocks: small and odd shapes, and what a wrong block changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jobs.parity.weight_norms import ROWS, furthest, norms


def model(*shape: int) -> nn.Module:
    made = nn.Module()
    torch.manual_seed(0)
    made.weight = nn.Parameter(torch.randn(*shape))
    return made


@pytest.mark.parametrize(
    ("shape", "blocks", "strips"),
    [
        ((5,), (1, 1), 0),
        ((128, 128), (1, 1), 128),
        ((129, 300), (2, 3), 129),
        ((2, 64, 130), (1, 2), 128),
        ((70, 30), (1, 1), 14),
    ],
)
def test_every_element_is_in_one_block_and_in_one_strip_of_rows(
    shape: tuple[int, ...], blocks: tuple[int, int], strips: int
) -> None:
    made = model(*shape)
    found = norms(made)
    assert tuple(found["weight"].shape) == blocks
    assert len(found.get("weight" + ROWS, ())) == strips
    whole = made.weight.double().square().sum().item()
    for each in found.values():
        assert each.double().square().sum().item() == pytest.approx(whole, rel=1e-5)


def test_one_channel_of_another_scale_and_a_turned_matrix_show_in_the_rows() -> None:
    before, after, turned = model(256, 256), model(256, 256), model(256, 256)
    after.weight.data[17] *= 2
    assert furthest(norms(before), norms(after)) == (pytest.approx(1.0, abs=1e-3), "weight:rows")
    turned.weight.data = turned.weight.data.T.contiguous()
    assert furthest(norms(before), norms(turned))[0] > 0.1


def test_rows_that_are_all_but_nothing_may_round_to_nothing() -> None:
    before, after = model(256, 256), model(256, 256)
    before.weight.data[17] *= 1e-6
    after.weight.data[17] = 0.0
    assert furthest(norms(before), norms(after))[0] < 0.001


def test_a_block_of_another_scale_stands_out_by_its_tensor() -> None:
    before, after = model(300, 300), model(300, 300)
    rounded = after.weight.data.bfloat16().float()
    after.weight.data = rounded
    assert furthest(norms(before), norms(after))[0] < 1e-3
    after.weight.data[128:256, :128] *= 2
    change, name = furthest(norms(before), norms(after))
    assert (change, name) == (pytest.approx(1.0, abs=1e-3), "weight")


def test_what_is_missing_or_of_another_shape_or_no_number_is_infinitely_far() -> None:
    before = norms(model(4, 4))
    assert furthest(before, {})[0] == math.inf
    assert furthest(before, norms(model(200, 4)))[0] == math.inf
    broken = before | {"weight": torch.tensor([[math.nan]])}
    assert furthest(before, broken) == (math.inf, "weight")
    assert furthest({}, {}) == (0.0, "")
