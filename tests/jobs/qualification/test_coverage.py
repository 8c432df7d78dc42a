"""Operators, one at a time."""

from __future__ import annotations

import pytest
import torch

from jobs.qualification.coverage import (
    Call,
    Recorder,
    again,
    difference,
    missing,
    name_of,
    on_host,
)

CPU = torch.device("cpu")
ATEN = torch.ops.aten


def test_what_says_that_an_operator_is_not_there_is_known() -> None:
    assert missing(NotImplementedError("x"))
    assert missing(RuntimeError("The operator 'aten::x' is not currently supported on the NPU"))
    assert missing(RuntimeError("EZ3002: Optype of Ops kernel is unsupported"))
    assert not missing(RuntimeError("EI0002: Notify register times out"))


def test_operators_are_named_as_logs_name_them() -> None:
    assert name_of(ATEN.silu.default) == "aten::silu"
    assert name_of(ATEN.isin.Tensor_Tensor) == "aten::isin.Tensor_Tensor"


def test_each_operator_is_kept_once_for_each_kind_of_arguments() -> None:
    recorder = Recorder(CPU)
    with recorder:
        recorder.phase = "forward"
        one = torch.ones(2, 2)
        one @ one
        recorder.phase = "backward"
        one @ one
        torch.ones(3, 3) @ torch.ones(3, 3)
    products = [call for call in recorder.calls.values() if call.name == "aten::mm"]
    assert [call.phases for call in products] == [{"forward", "backward"}, {"backward"}]


def test_the_host_does_what_a_device_lacks_in_the_same_memory() -> None:
    one, other = torch.ones(2), torch.full((2,), 3.0)
    out = on_host(ATEN.add_.Tensor, (one, other), {}, CPU)
    assert one.tolist() == [4.0, 4.0]
    assert out is one
    lists = [torch.ones(1), torch.ones(1)]
    on_host(ATEN._foreach_add_.Scalar, (lists, 2.0), {}, CPU)
    assert [float(item) for item in lists] == [3.0, 3.0]
    out = torch.empty(1)
    assert on_host(ATEN.add.out, (one[:1], one[:1]), {"out": out}, CPU) is out
    assert float(out) == 8.0


def test_an_operator_that_is_right_has_no_flaw() -> None:
    tried = again(Call(ATEN.add_.Tensor, (torch.ones(3), torch.ones(3)), {}))
    assert (tried.gap, tried.wrong) == ("", "")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (torch.tensor([1.0, 2.1]), "differs from the host by 4.8e-02"),
        (torch.tensor([1.0, float("nan")]), "gives NaN elsewhere"),
        (torch.tensor([1.0]), "gives torch.float32 (1,), not torch.float32 (2,)"),
        (torch.tensor([1, 2]), "gives torch.int64 (2,)"),
    ],
)
def test_a_result_that_differs_is_told(found: torch.Tensor, said: str) -> None:
    assert difference([found], [torch.tensor([1.0, 2.0])]).startswith(said[:20])


def test_whole_numbers_must_be_equal() -> None:
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 3])).startswith("gives other whole")
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 2])) == ""
