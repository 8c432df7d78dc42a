"""Codes and scales against a reference that is slow and literal."""

from __future__ import annotations

import struct
from bisect import bisect_left
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.formats import rounding
from jobs.formats.blocks import dequantise, quantise
from jobs.formats.schemes import SCHEMES, Scheme

# Every value of e4m3 that is not negative, by its definition: 4 bits of exponent, 3 of fraction.
E4M3 = [
    (fraction / 8 if not exponent else 1 + fraction / 8) * 2.0 ** (max(exponent, 1) - 7)
    for exponent in range(16)
    for fraction in range(8)
][:127]
SMALL = {  # the same with small blocks: many of them, and edges, in a small weight
    "fp8": replace(SCHEMES["fp8"], block=(4, 8)),
    "fp8_ue8m0": replace(SCHEMES["fp8_ue8m0"], block=(4, 8)),
    "mxfp8": replace(SCHEMES["mxfp8"], block=(1, 4), scales=torch.float32),
    "int8": SCHEMES["int8"],
}
FINITE = (
    st.floats(-(2.0**127), 2.0**127, width=32)
    | st.floats(-1, 1, width=32)
    | st.sampled_from([0.0])
)


def float32(value: float) -> float:
    found: float = struct.unpack("f", struct.pack("f", value))[0]
    return found


def nearest(value: float) -> float:
    """The nearest value of e4m3, ties to the even code; what is beyond the largest is that."""
    size = min(abs(value), E4M3[-1])
    above = bisect_left(E4M3, size)
    below = max(above - 1, 0)
    up, down = E4M3[above] - size, size - E4M3[below]
    code = above if up < down or (up == down and above % 2 == 0) else below
    return E4M3[code] if value >= 0 else -E4M3[code]


def reference(weight: list[list[float]], scheme: Scheme) -> tuple[list[float], list[float]]:
    """Scales by rows, and codes by rows."""
    rows, columns = len(weight), len(weight[0])
    tall, wide = scheme.block[0], scheme.block[1] or columns
    e4m3 = scheme.codes == torch.float8_e4m3fn
    scales: dict[tuple[int, int], float] = {}
    for top in range(0, rows, tall):
        for left in range(0, columns, wide):
            block = [abs(w) for row in weight[top : top + tall] for w in row[left : left + wide]]
            scale = max(float32(max(block) / (448 if e4m3 else 127)), 2.0**-126)
            if scheme.powers:
                power = 2.0**-126
                while power < scale:
                    power *= 2
                scale = power
            scales[top // tall, left // wide] = scale
    codes = [
        float32(w / scales[row // tall, column // wide])
        for row, line in enumerate(weight)
        for column, w in enumerate(line)
    ]
    return list(scales.values()), [nearest(c) if e4m3 else float(round(c)) for c in codes]


@st.composite
def weights(draw: st.DrawFn, most: int = 11) -> torch.Tensor:
    rows, columns = draw(st.integers(1, most)), draw(st.integers(1, 2 * most))
    values = draw(st.lists(FINITE, min_size=rows * columns, max_size=rows * columns))
    made = torch.tensor(values, dtype=torch.float32).view(rows, columns)
    return made.to(draw(st.sampled_from([torch.float32, torch.bfloat16])))


@pytest.mark.parametrize("form", SMALL)
@given(weight=weights())
@settings(max_examples=60)
def test_codes_and_scales_are_those_of_the_reference_bit_for_bit(
    form: str, weight: torch.Tensor
) -> None:
    scheme = SMALL[form]
    codes, scales = quantise(weight, scheme)
    expected_scales, expected_codes = reference(weight.float().tolist(), scheme)
    assert scales is not None
    assert scales.shape == scheme.grid((weight.shape[0], weight.shape[1]))
    assert scales.flatten().tolist() == expected_scales
    assert codes.float().flatten().tolist() == expected_codes


@pytest.mark.parametrize("form", SMALL)
@given(weight=weights())
@settings(max_examples=60)
def test_a_round_trip_stays_within_the_bound_of_the_format(
    form: str, weight: torch.Tensor
) -> None:
    scheme = SMALL[form]
    codes, scales = quantise(weight, scheme)
    assert scales is not None
    back = dequantise(codes, scales, scheme, torch.float32).double()
    step = spread(scales, scheme, weight).double()
    # Half a place of the last bit: 3 bits of fraction, down to 2^-9, or whole numbers.
    bound = step / 2 if form == "int8" else torch.maximum(weight.double().abs() / 16, step / 1024)
    assert bool(((back - weight.double()).abs() <= bound * (1 + 1e-6)).all())


@given(weight=weights())
@settings(max_examples=60)
def test_what_was_quantised_is_not_changed_by_doing_it_again(weight: torch.Tensor) -> None:
    scheme = SMALL["fp8_ue8m0"]
    codes, scales = quantise(weight, scheme)
    assert scales is not None
    once = dequantise(codes, scales, scheme, torch.float32)
    again_codes, again = quantise(once, scheme)
    assert again is not None
    assert torch.equal(dequantise(again_codes, again, scheme, torch.float32), once)


@pytest.mark.parametrize("shape", [(1, 1), (130, 70), (128, 128), (257, 300)])
@pytest.mark.parametrize("spread", [1, 6, 12])  # of the sizes of weights
def test_smaller_blocks_of_larger_ones_lose_nothing(shape: tuple[int, int], spread: int) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)) ** spread
    codes, scales = quantise(weight, SCHEMES["fp8_ue8m0"])
    assert scales is not None
    large = dequantise(codes, scales, SCHEMES["fp8_ue8m0"], torch.float32)
    smaller, stored = quantise(large, SCHEMES["mxfp8"])
    assert stored is not None
    assert stored.shape == SCHEMES["mxfp8"].grid(shape)
    back = dequantise(smaller, rounding.from_bytes(stored), SCHEMES["mxfp8"], torch.float32)
    assert torch.equal(back, large)


def test_smaller_blocks_of_floats_keep_what_larger_ones_flush() -> None:
    weight = torch.ones(128, 128)
    weight[5] = 1e-6
    kept = {}
    for form in ("fp8_ue8m0", "mxfp8"):
        codes, scales = quantise(weight, SCHEMES[form])
        assert scales is not None
        powers = rounding.from_bytes(scales) if scales.dtype == torch.uint8 else scales
        kept[form] = dequantise(codes, powers, SCHEMES[form], torch.float32)[5]
    assert kept["fp8_ue8m0"].count_nonzero() == 0
    assert torch.allclose(kept["mxfp8"], weight[5], rtol=1 / 16)


@pytest.mark.parametrize("form", SCHEMES)
def test_small_weights_are_as_exact_as_large_ones(form: str) -> None:
    weight = torch.randn(256, 256, generator=torch.Generator().manual_seed(1))
    errors = []
    for size in (1.0, 2.0**-30, 2.0**-100):
        codes, scales = quantise(weight * size, SCHEMES[form])
        assert scales is not None
        powers = rounding.from_bytes(scales) if scales.dtype == torch.uint8 else scales
        back = dequantise(codes, powers, SCHEMES[form], torch.float32) / size
        errors.append(float((back - weight).norm()))
    assert errors == pytest.approx([errors[0]] * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_code_means_what_torch_says_it_does(dtype: torch.dtype) -> None:
    scheme = replace(SCHEMES["fp8"], block=(1, 256))
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)[None]
    finite = codes[:, codes[0].float().isfinite()]
    for kind, scale in ((finite, 0.3), (codes, 0.3), (finite, 2.0**125)):
        found = dequantise(kind, torch.tensor([[scale]]), scheme, dtype)
        expected = (kind.float() * torch.tensor(scale)).to(dtype)
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", SCHEMES)
def test_what_is_not_finite_gets_no_scales(form: str, dtype: torch.dtype, value: float) -> None:
    weight = torch.ones(3, 40, dtype=dtype)
    weight[1, 35] = value
    assert quantise(weight, SCHEMES[form])[1] is None


@pytest.mark.gpu
@pytest.mark.parametrize("form", SCHEMES)
def test_a_gpu_makes_the_same_bits(form: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    weight = torch.randn(700, 900, generator=torch.Generator().manual_seed(2)) ** 5
    here, scales = quantise(weight, SCHEMES[form])
    there, others = quantise(weight.cuda(), SCHEMES[form])
    assert scales is not None
    assert others is not None
    assert torch.equal(there.cpu().view(torch.uint8), here.view(torch.uint8))
    assert torch.equal(others.cpu().view(torch.uint8), scales.view(torch.uint8))
    wide = rounding.from_bytes(scales) if scales.dtype == torch.uint8 else scales
    for dtype in (torch.float32, torch.bfloat16):
        back = dequantise(here, wide, SCHEMES[form], dtype)
        assert torch.equal(dequantise(there, wide.cuda(), SCHEMES[form], dtype).cpu(), back)


def spread(scales: torch.Tensor, scheme: Scheme, weight: torch.Tensor) -> torch.Tensor:
    """The scale of every weight."""
    tall, wide = scheme.block[0], scheme.block[1] or weight.shape[1]
    whole = scales.repeat_interleave(tall, 0).repeat_interleave(wide, 1)
    return whole[: weight.shape[0], : weight.shape[1]]


# --- powers of two ------------------------------------------------------------------------------


@given(st.floats(2.0**-126, 2.0**127, width=32))
def test_a_power_of_two_is_the_least_that_is_not_below(value: float) -> None:
    found = rounding.power_up(torch.tensor([value])).item()
    assert found / 2 < value <= found
    assert rounding.are_powers(torch.tensor([found]))


def test_all_powers_of_two_go_into_a_byte_and_back() -> None:
    powers = torch.tensor([2.0**exponent for exponent in range(-126, 128)])
    stored = rounding.to_bytes(powers)
    assert stored.tolist() == list(range(1, 255))
    assert torch.equal(rounding.from_bytes(stored), powers)
    assert rounding.from_bytes(torch.tensor([255], dtype=torch.uint8)).isnan()


@pytest.mark.parametrize("value", [0.0, -2.0, 3.0, 1 + 2.0**-23, float("inf"), float("nan")])
def test_what_is_no_power_of_two_is_told(value: float) -> None:
    assert not rounding.are_powers(torch.tensor([2.0, value]))
