"""Norms of blocks: small and odd shapes, and what a wrong block changes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from jobs.formats import rounding
from jobs.formats.blocks import dequantise, quantise
from jobs.formats.schemes import SCHEMES
from jobs.parity.weight_norms import (
    COLUMN_SUMS,
    GROUPS,
    ROW_SUMS,
    ROWS,
    VALUES,
    Figure,
    furthest,
    norms,
    of_plain,
    plain,
)
from tests.jobs.parity.conftest import LIMITS


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
    for key, each in found.items():
        if key.endswith(GROUPS):
            continue
        if key.endswith((ROW_SUMS, COLUMN_SUMS)):
            each = each[:, -1]  # noqa: PLW2901 - the norms alone
        if key.endswith(ROWS):
            each = each[:, 0]  # noqa: PLW2901 - the norms alone
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
    assert furthest(broken, before)[0] == math.inf
    assert furthest({}, {}) == (0.0, "")
    masked = before | {"mask:values": torch.tensor([[0.0, -math.inf]])}
    assert furthest(masked, masked) == (0.0, "weight:rows")
    assert furthest(masked, before | {"mask:values": torch.zeros(1, 2)})[0] == math.inf


def rounded(weight: torch.Tensor, form: str) -> torch.Tensor:
    """What is read of a weight that was stored in a format."""
    if form in ("bf16", "fp16"):
        return weight.to(torch.bfloat16 if form == "bf16" else torch.float16).float()
    scheme = SCHEMES[form]
    codes, by = quantise(weight, scheme)
    assert by is not None
    scales = rounding.from_bytes(by) if by.dtype == torch.uint8 else by.float()
    return dequantise(codes, scales, scheme, torch.bfloat16).float()


def sums_apart(before: torch.Tensor, after: torch.Tensor) -> float:
    return apart(before, after, "sums")


def apart(before: torch.Tensor, after: torch.Tensor, figure: Figure) -> float:
    pair = []
    for weight in (before, after):
        pair.append(nn.Module())
        pair[-1].weight = nn.Parameter(weight)
    return furthest(norms(pair[0]), norms(pair[1]), figure=figure)[0]


@pytest.mark.parametrize("form", [form for form in LIMITS if form != "fp32"])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "large channel"])
def test_sums_tell_rounding_from_what_keeps_every_norm(form: str, kind: str) -> None:
    torch.manual_seed(1)
    weight = torch.randn(300, 256) * 0.02
    if kind == "heavy tails":
        weight = torch.distributions.StudentT(3.0).sample((300, 256)) * 0.02
    if kind == "large channel":
        weight[:, 7] *= 40
    stored = rounded(weight, form)
    limit = LIMITS[form]["sums"]
    assert sums_apart(weight, stored) < limit / 2
    assert apart(weight, stored, "rows") < LIMITS[form]["rows"] / 2
    if LIMITS[form]["groups"] < 64:
        assert apart(weight, stored, "groups") <= LIMITS[form]["groups"] / 2
    negated = stored.clone()
    negated[3] *= -1
    assert sums_apart(weight, negated) > 2 * limit
    assert sums_apart(weight, stored[:, [0, 2, 1, *range(3, 256)]]) > limit


def test_experts_are_summed_each_by_itself() -> None:
    before, after = model(8, 64, 128), model(8, 64, 128)
    after.weight.data[5, :, [0, 1]] = after.weight.data[5, :, [1, 0]].clone()
    assert furthest(norms(before), norms(after))[0] < 1e-6
    assert furthest(norms(before), norms(after), figure="sums")[0] > 0.5


def test_buffers_that_are_saved_count_and_vectors_are_compared_value_by_value() -> None:
    before, after = model(4, 4), model(4, 4)
    for each in (before, after):
        each.register_buffer("bias", torch.linspace(-0.1, 0.1, 8))
        each.register_buffer("table", torch.arange(4.0), persistent=False)
    kept = norms(before)
    assert kept["bias" + VALUES].shape == (1, 8)
    assert not [name for name in kept if "table" in name]
    after.bias = after.bias.flip(0)
    assert furthest(kept, norms(after)) == (pytest.approx(2.0), "bias:values")


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_one_scale_of_a_row_s_blocks_shows_beyond_what_rounding_does(factor: float) -> None:
    before = model(64, 320)
    wrong = model(64, 320)
    wrong.weight.data = before.weight.data.clone()
    wrong.weight.data[40, 32:64] *= factor
    change, name = furthest(norms(before), norms(wrong), figure="rows")
    assert (change > LIMITS["mxfp8"]["rows"], name) == (True, "weight:rows")


@pytest.mark.parametrize("width", [32, 320, 4096, 16384])
@pytest.mark.parametrize("factor", [2.0**-64, 2.0**-4, 0.5, 2.0, 2.0**8])
def test_a_scale_of_32_weights_is_seen_in_a_row_of_any_width(width: int, factor: float) -> None:
    weight = torch.randn(40, width, generator=torch.Generator().manual_seed(width)) * 0.02
    stored, limit = rounded(weight, "mxfp8"), LIMITS["mxfp8"]["groups"]
    assert apart(weight, stored, "groups") <= limit / 2
    for row, group in ((0, 0), (17, width // 64), (39, width // 32 - 1)):
        wrong = stored.clone()
        wrong[row, group * 32 : group * 32 + 32] *= factor
        assert apart(weight, wrong, "groups") > limit


def test_scales_of_zeros_and_of_all_but_nothing_are_no_change() -> None:
    weight = torch.randn(64, 128)
    weight[3, :32], weight[4, 32:64] = 0.0, 1e-9
    wrong = weight.clone()
    wrong[4, 32:64] *= 0.25
    assert apart(weight, wrong, "groups") == 0.0
    wrong[3, :32] = 0.1
    assert apart(weight, wrong, "groups") > 1


def test_what_an_engine_tells_of_its_weights_is_what_is_kept() -> None:
    kept = norms(model(70, 100))
    again = of_plain(plain(kept))
    assert again.keys() == kept.keys()
    assert all(torch.equal(again[name], kept[name]) for name in kept)
    assert isinstance(plain(kept)["weight" + GROUPS][0], bytes), "a byte for 32 weights"
