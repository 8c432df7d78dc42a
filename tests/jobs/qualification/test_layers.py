"""Work that repeats itself, attention against what it is made of, and how a soak ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jobs.qualification import attention
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench
from jobs.qualification.layers import SteadyWork, works
from jobs.qualification.pace import soak
from tests.jobs.local_context import LocalContext

CPU = torch.device("cpu")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalContext(folder=tmp_path), quick=True)


def test_work_is_done_in_the_number_types_of_the_roles(bench: Bench) -> None:
    train = works(bench, CPU, ["train"], ["bf16", "fp8"])
    assert [{result.dtype for result in work()} for work in train] == [{torch.bfloat16}] * 2
    assert len(train[0]()) == 8, "the result, and gradients of the input and six weights"
    serve = works(bench, CPU, ["serve"], ["bf16", "fp8", "int8", "hif8"])
    assert [len(work()) for work in serve] == [1, 1, 1, 1]
    assert {result.dtype for work in serve for result in work()} == {torch.bfloat16, torch.int32}
    assert works(bench, CPU, ["train"], ["fp32"])[0]()[0].dtype is torch.float32
    for work in (*train[1:], *serve[1:]):
        assert torch.equal(work()[0], work.exact[0]), "products that are known"


def faulty(every: int) -> SteadyWork:
    """Return work whose result is another one each `every`th time."""
    calls = iter(range(10_000_000))
    return SteadyWork(lambda: [torch.tensor([float(next(calls) % every == every - 1)])])


def worn(sound: int, after: Callable[[], Tensor], exact: tuple[Tensor, ...] = ()) -> SteadyWork:
    """Return work that is right so many times, and then gives what `after` does."""
    calls = iter(range(10_000_000))
    return SteadyWork(lambda: [torch.ones(4) if next(calls) < sound else after()], exact)


@pytest.mark.parametrize(
    ("every", "status"), [(10_000_000, PASSED), (50, FAILED), (2, FAILED), (1, PASSED)]
)
def test_a_result_that_is_once_another_is_found(bench: Bench, every: int, status: str) -> None:
    soak(bench, [faulty(every)], 0.01)
    [one] = bench.findings
    assert one.status == status
    assert ("results differ from the first" in one.note) == (status == FAILED)


def test_results_that_always_differ_tell_no_fault(bench: Bench) -> None:
    soak(bench, [SteadyWork(lambda: [torch.rand(4)])], 0.01)
    assert [one.status for one in bench.findings] == [LIMITED]


@pytest.mark.parametrize("sound", [1, 3])
def test_a_chip_that_is_wrong_for_good_is_found(bench: Bench, sound: int) -> None:
    soak(bench, [worn(sound, lambda: torch.zeros(4))], 0.01)
    [one] = bench.findings
    assert (one.status, "as one before did" in one.note) == (FAILED, True)


def test_a_product_that_is_known_is_found_wrong_however_often_and_in_whatever_manner(
    bench: Bench,
) -> None:
    for sound in (0, 1, 3, 500):
        bench.findings.clear()
        soak(bench, [worn(sound, lambda: torch.rand(4), (torch.ones(4),))], 0.01)
        [one] = bench.findings
        assert (one.status, "products of whole numbers are wrong" in one.note) == (FAILED, True)


def test_a_kernel_whose_results_always_differ_hides_no_fault_of_another(bench: Bench) -> None:
    soak(bench, [SteadyWork(lambda: [torch.rand(4)]), faulty(50)], 0.01)
    assert [one.status for one in bench.findings] == [FAILED]


def test_a_soak_that_is_not_tried_is_said(bench: Bench) -> None:
    soak(bench, [faulty(1)], 0.0)
    [one] = bench.findings
    assert (one.status, one.note) == (SKIPPED, "not tried at this depth (--soak SECONDS)")


def test_results_that_are_no_numbers_are_not_right_because_they_are_the_same(bench: Bench) -> None:
    soak(bench, [SteadyWork(lambda: [torch.full((4,), float("inf"))])], 0.01)
    assert [one.status for one in bench.findings] == [FAILED]


def test_a_kernel_of_attention_is_not_excused_by_a_composite_that_gives_infinity(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = attention.composite

    def infinite(query: Tensor, *others: Tensor, is_causal: bool = True) -> Tensor:
        result = exact(query, *others)
        return result + float("inf") if query.dtype is torch.bfloat16 else result

    monkeypatch.setattr(attention, "composite", infinite)
    monkeypatch.setattr(attention, "scaled_dot_product_attention", infinite)
    attention.check_attention(bench, CPU, ["bf16"])
    bfloat16 = {one.status for one in bench.findings if "bfloat16" in one.subject}
    assert bfloat16 == {FAILED}


def test_a_kernel_of_attention_that_is_wrong_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention.check_attention(bench, CPU, ["bf16"])
    assert {one.status for one in bench.findings} == {PASSED, SKIPPED}
    right = attention.scaled_dot_product_attention
    bench.findings.clear()

    def forgetful(*given: Tensor, is_causal: bool) -> Tensor:
        return right(*given, is_causal=not is_causal)

    with monkeypatch.context() as patched:
        patched.setattr(attention, "scaled_dot_product_attention", forgetful)
        attention.check_attention(bench, CPU, ["bf16"])
    assert {one.status for one in bench.findings} - {SKIPPED} == {FAILED}


@pytest.mark.parametrize("width", [16, 64])
def test_the_composite_is_attention(width: int) -> None:
    query, key, value = torch.randn(3, 2, 2, 33, width)
    wanted = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(attention.composite(query, key, value), wanted)


def test_an_error_of_a_kernel_is_a_fault_and_one_that_is_not_there_is_said(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text, of_default, of_others in (
        ("illegal memory access", FAILED, FAILED),
        ("No available kernel", LIMITED, SKIPPED),
    ):
        bench.findings.clear()

        def broken(*_: Tensor, text: str = text, is_causal: bool) -> Tensor:
            raise RuntimeError(text)

        with monkeypatch.context() as patched:
            patched.setattr(attention, "scaled_dot_product_attention", broken)
            attention.check_attention(bench, CPU, [])
        by_kernel = {one.subject.partition(" ")[0]: one.status for one in bench.findings}
        assert by_kernel.pop("default") == of_default
        assert {*by_kernel.values()} == {of_others}
