"""Operators that a chip lacks."""

from __future__ import annotations

import pytest

from tests.emulation.interpreter import Interpreter


@pytest.mark.parametrize("name", ["aten::silu", "aten::silu.default", "aten::silu.out"])
def test_an_operator_that_the_chip_lacks_is_refused_by_torch_itself(
    npu: Interpreter, name: str
) -> None:
    told = npu.error(f"install([{name!r}])\ntorch.nn.functional.silu(torch.ones(2, device='npu'))")
    assert told.startswith("NotImplementedError: Could not run 'aten::silu")
    assert "with arguments from the 'npu' backend" in told


def test_an_operator_that_torch_makes_of_others_is_refused_by_the_first_of_them(
    npu: Interpreter,
) -> None:
    code = "install(['aten::zeros_like'])\ntorch.zeros_like(torch.ones(2, device='npu'))"
    told = npu.error(code)
    assert told.startswith("NotImplementedError: Could not run 'aten::zero")


def test_an_operator_that_torch_can_do_for_any_device_is_refused_all_the_same(
    npu: Interpreter,
) -> None:
    told = npu.error("install(['aten::view'])\ntorch.ones(2, device='npu').view(2, 1)")
    assert told.startswith("NotImplementedError: Could not run 'aten::view")


def test_one_overload_can_be_lacking_alone(npu: Interpreter) -> None:
    code = """
install(["aten::std.correction"])
x = torch.ones(2, 2, device="npu")
result = x.mean().item()
"""
    assert npu(code) == 1.0
    told = npu.error("install(['aten::std.correction'])\ntorch.ones(2, device='npu').std()")
    assert told.startswith("NotImplementedError: Could not run 'aten::std.correction'")


def test_a_gap_of_the_backward_pass_is_raised_by_it(npu: Interpreter) -> None:
    code = """
install(["aten::threshold_backward"])
x = torch.ones(2, device="npu", requires_grad=True)
torch.nn.functional.relu(x).sum().backward()
"""
    assert "Could not run 'aten::threshold_backward" in npu.error(code)
    assert npu("install()\nresult = torch.ones(2, device='npu').tolist()") == [1.0, 1.0]


def test_an_operator_that_the_host_does_warns_as_the_makers_software_does(
    npu: Interpreter,
) -> None:
    code = """
install(on_host=["aten::isin.Tensor_Tensor_out"])
x = torch.ones(2, device="npu")
with contextlib.redirect_stderr(io.StringIO()) as log:
    found = torch.isin(x, x)
    torch.isin(x, x)
result = [found.tolist(), str(found.device), log.getvalue()]
"""
    found, on, warning = npu(code)
    assert (found, on) == ([True, True], "npu:0")
    assert warning.count("\n") == 1  # once for each operator
    assert (
        "CAUTION: The operator 'aten::isin.Tensor_Tensor_out' is not currently supported on the "
        "NPU backend and will fall back to run on the CPU."
    ) in warning


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("aten::nope", "JobError: unsupported 'aten::nope' is no operator of torch"),
        ("nope::nope", "JobError: unsupported 'nope::nope' is no operator of torch"),
        ("aten::linear", "JobError: unsupported 'aten::linear' reaches no device"),
    ],
)
def test_a_gap_that_can_never_come_up_is_refused(npu: Interpreter, name: str, told: str) -> None:
    assert npu.error(f"install([{name!r}])").startswith(told)
    assert npu("install()\nresult = 1") == 1
