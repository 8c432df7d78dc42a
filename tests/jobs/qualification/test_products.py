"""Products: exact where the chip is sound, wrong in any one element where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import Tensor

from jobs.qualification import exact
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench
from jobs.qualification.number_types import NumberType, number_types_of, scaled_product
from jobs.qualification.products import check_product, check_products
from orchestrator.core.spec.emulation import FaultType
from orchestrator.core.spec.hardware import Accelerator
from orchestrator.emulation import silent
from orchestrator.emulation.hooks import hooks
from tests.jobs.local_context import LocalContext

CPU = torch.device("cpu")
ALL = ("bf16", "fp8", "fp8_ue8m0", "fp8_fnuz", "int8", "mxfp8", "hif8")
KINDS = {kind.name: kind for kind in number_types_of(ALL)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalContext(folder=tmp_path))


def statuses(bench: Bench, check: str = "products") -> dict[str, str]:
    return {
        one.subject.removesuffix(" cpu"): one.status
        for one in bench.findings
        if one.check == check
    }


def altered(kind: NumberType, change: Callable[[Tensor], object], *, every: int = 1) -> NumberType:
    """Return the kind on a chip that alters each `every`th product."""
    calls = iter(range(1_000_000))

    def product(lhs: Tensor, rhs: Tensor) -> Tensor:
        assert kind.product is not None
        out = kind.product(lhs, rhs)
        if next(calls) % every == every - 1:
            change(out)
        return out

    return replace(kind, product=product)


def test_a_chip_that_is_slow_leaves_a_sign_of_life_after_each_product(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[Tensor] = []
    slow = altered(KINDS["int8"], taken.append)
    monkeypatch.setattr("jobs.qualification.bench._SIGN_SECONDS", 0.0)
    check_product(bench, CPU, slow)
    assert statuses(bench)["int8"] == PASSED
    assert len(bench.ctx.points) >= len(taken) - 3


@pytest.mark.parametrize("make", [exact.plain, exact.paired])
def test_sums_are_exact_in_float32_in_any_order(make: Callable[..., exact.Factors]) -> None:
    factors = make(64, 4096, 64, seed=3)
    assert factors.lhs.abs().max() == factors.rhs.abs().max() == exact.LARGEST
    backwards = factors.lhs.flip(1) @ factors.rhs.flip(0)
    assert torch.equal(backwards.double(), factors.product())
    rows, columns = factors.sums()
    assert torch.equal(factors.product().sum(1), rows)
    assert torch.equal(factors.product().sum(0), columns)


def test_pairs_keep_partial_sums_within_what_bfloat16_holds() -> None:
    factors = exact.paired(128, 4096, 128, seed=5)
    for split in (32, 512, 4096):  # as kernels split a sum
        parts = zip(factors.lhs.split(split, 1), factors.rhs.split(split, 0), strict=True)
        sums = torch.stack([lhs @ rhs for lhs, rhs in parts])
        assert torch.equal(sums.bfloat16().float(), sums)
        assert torch.equal(sums.bfloat16().sum(0).double(), factors.product())
    with pytest.raises(ValueError, match="inner=3 is odd"):
        exact.paired(2, 3, 2, seed=0)


def test_a_sound_chip_has_every_product_and_what_nobody_could_test_is_a_limit(
    bench: Bench,
) -> None:
    check_products(bench, CPU, ALL)
    found = statuses(bench)
    assert {name for name, status in found.items() if status == LIMITED} == {"mxfp8", "hif8"}
    assert set(found.values()) == {PASSED, LIMITED}
    limits = {one.subject: one.note for one in bench.findings if one.status == LIMITED}
    assert limits["hif8 cpu"] == "torch has no numbers of this format: nobody has tested them"
    assert "so nobody has tested it: ValueError" in limits["mxfp8 cpu"]
    assert statuses(bench, "product rate").keys() == found.keys() - {"mxfp8", "hif8", "512 rows"}


def test_each_format_is_tested_as_what_it_is() -> None:
    known = {form: [kind.name for kind in number_types_of((form,))][3:] for form in ALL}
    assert known == {
        "bf16": [],
        "fp8": ["float8_e4m3fn"],
        "fp8_ue8m0": ["float8_e4m3fn"],
        "fp8_fnuz": ["float8_e4m3fnuz"],
        "int8": ["int8"],
        "mxfp8": ["mxfp8"],
        "hif8": ["hif8"],
    }


def test_codes_are_handed_to_a_chip_with_scales_that_cancel() -> None:
    codes = torch.arange(-8, 8).repeat(16, 1).to(torch.float8_e4m3fn)
    product = scaled_product(codes, codes.t())
    assert torch.equal(product.float(), codes.float() @ codes.float().t())


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"mxfp8", "hif8"}))
def test_one_wrong_element_is_found_wherever_it_is(bench: Bench, name: str) -> None:
    check_product(bench, CPU, altered(KINDS[name], lambda out: out[-1, 77:78].add_(1)))
    [one] = bench.findings
    assert (one.status, one.roles) == (FAILED, KINDS[name].roles)
    assert "1 of " in one.note


def test_a_host_that_plays_a_chip_multiplies_few_codes(bench: Bench) -> None:
    products: list[int] = []

    def counted(lhs: torch.Tensor, rhs: torch.Tensor) -> torch.Tensor:
        products.append(lhs.numel() * rhs.shape[1])
        return (lhs.float() @ rhs.float()).bfloat16()

    check_product(bench, CPU, replace(KINDS["float8_e4m3fn"], product=counted))
    assert {one.status for one in bench.findings} == {PASSED}
    assert sum(products) < 40e6  # some take two minutes for a billion


def test_an_error_that_comes_now_and_then_is_found(bench: Bench) -> None:
    check_product(bench, CPU, altered(KINDS["bfloat16"], lambda out: out[3, 3].add_(1), every=6))
    assert [one.status for one in bench.findings] == [FAILED]
    assert bench.findings[0].note == "right at first; 1 of 3 repeats are wrong"


def test_a_third_of_the_rows_tripled_is_found_in_each_kind_and_by_sums(bench: Bench) -> None:
    silent.begin(FaultType.CORRUPT)
    undo = silent.on_host()
    check_products(bench, CPU, ("bf16", "int8", "fp8"))
    undo()
    hooks.clear()
    found = statuses(bench)
    assert set(found) == {"float32", "float16", "bfloat16", "int8", "float8_e4m3fn", "512 rows"}
    assert set(found.values()) == {FAILED}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotImplementedError("Could not run 'aten::_int_mm'"), LIMITED),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling cublasLt"), LIMITED),
        (
            RuntimeError("torch._scaled_mm is only supported on devices with capability 9.0"),
            LIMITED,
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), FAILED),
        (
            RuntimeError("NPU function error: HBM MULTI BIT ECC ERROR, error code is 507054"),
            FAILED,
        ),
    ],
)
def test_what_a_product_raises_is_a_fault_unless_it_says_that_there_is_none(
    bench: Bench, error: Exception, status: str
) -> None:
    def broken(*_: Tensor) -> Tensor:
        raise error

    check_product(bench, CPU, replace(KINDS["int8"], product=broken))
    assert [(one.status, one.roles) for one in bench.findings] == [(status, ("serve",))]
    assert str(error) in bench.findings[0].note


def test_the_number_types_of_training_must_be_there_and_float16_need_not(bench: Bench) -> None:
    def lacking(*_: Tensor) -> Tensor:
        raise NotImplementedError("Could not run 'aten::mm'")

    for name in ("float32", "float16", "bfloat16"):
        check_product(bench, CPU, replace(KINDS[name], product=lacking))
    assert [one.status for one in bench.findings] == [FAILED, SKIPPED, FAILED]


def chips() -> list[Accelerator]:
    """Return all that the product knows."""
    folder = Path(__file__).parents[3] / "conf/accelerator"
    facts = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
    return [TypeAdapter(Accelerator).validate_python(one) for one in facts]


@pytest.mark.parametrize("chip", chips(), ids=lambda chip: chip.name)
def test_no_sound_chip_of_any_maker_is_refused(bench: Bench, chip: Accelerator) -> None:
    formats = chip.computes or chip.formats
    check_products(bench, CPU, formats)
    found = statuses(bench)
    limits = {name for name, status in found.items() if status == LIMITED}
    assert limits == {"mxfp8", "hif8"} & set(formats)
    assert FAILED not in found.values()
