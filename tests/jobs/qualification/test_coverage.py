"""Operators, one at a time."""

from __future__ import annotations

from typing import Any

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
from jobs.qualification.ties import INDEXES, other_picks

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
    products = [tried for tried in recorder.tried.values() if tried.name == "aten::mm"]
    assert [tried.phases for tried in products] == [{"forward", "backward"}, {"backward"}]


def test_what_a_backward_pass_does_is_tried_after_it_and_no_argument_is_kept() -> None:
    recorder, weight = Recorder(CPU), torch.ones(2, 2, requires_grad=True)
    with recorder:
        recorder.phase = "backward"
        (weight @ weight).exp().sum().backward()  # type: ignore[no-untyped-call]
    kept = {call.name for call in recorder._kept.values()}
    assert "aten::mul.Tensor" in kept
    recorder.flush()
    assert recorder._kept == {}
    assert all(tried.compared and not tried.wrong for tried in recorder.tried.values())
    assert all(tried.phases == {"backward"} for tried in recorder.tried.values())


def test_an_optimizer_s_operator_is_tried_on_one_tensor_of_each_kind() -> None:
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in (3, 3, 3, (2, 2), (2, 2))]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer = torch.optim.AdamW(weights, fused=True)
    copied: list[torch.Tensor] = []
    whole = torch.Tensor.clone

    def clone(self: torch.Tensor) -> torch.Tensor:
        copied.append(self)
        return whole(self)

    recorder = Recorder(CPU)
    with pytest.MonkeyPatch.context() as patched, recorder:
        patched.setattr(torch.Tensor, "clone", clone)
        optimizer.step()
    [fused] = [x for x in recorder.tried.values() if x.name == "aten::_fused_adamw_"]
    assert (fused.gap, fused.wrong, fused.compared) == ("", "", True)
    shapes = [tuple(one.shape) for one in copied if one.dim()]
    assert 0 < shapes.count((2, 2)) == shapes.count((3,))
    assert [weight.item() for weight in weights[0]] == [weight.item() for weight in weights[2]]


TIES = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])


@pytest.mark.parametrize(
    ("name", "found", "wanted", "dim", "said"),
    [
        ("argmax", torch.tensor([2, 3]), torch.tensor([1, 0]), 1, ""),
        ("argmax", torch.tensor([3, 3]), torch.tensor([1, 0]), 1, "places of other values"),
        ("argmax", torch.tensor([4, 0]), torch.tensor([1, 0]), 1, "not there"),
        ("argmax", torch.tensor(2), torch.tensor(1), None, ""),
        (
            "topk",
            (torch.tensor([[3.0, 3.0], [2.0, 2.0]]), torch.tensor([[2, 1], [3, 2]])),
            (torch.tensor([[3.0, 3.0], [2.0, 2.0]]), torch.tensor([[1, 2], [0, 1]])),
            1,
            "",
        ),
        (
            "topk",
            (torch.tensor([[3.0, 3.0], [2.0, 2.0]]), torch.tensor([[1, 1], [0, 1]])),
            (torch.tensor([[3.0, 3.0], [2.0, 2.0]]), torch.tensor([[1, 2], [0, 1]])),
            1,
            "a place twice",
        ),
        (
            "max.dim",
            (torch.tensor([3.0, 9.0]), torch.tensor([2, 0])),
            (torch.tensor([3.0, 2.0]), torch.tensor([1, 0])),
            1,
            "other values than its places",
        ),
    ],
)
def test_of_equal_values_any_place_is_right(
    name: str, found: Any, wanted: Any, dim: int | None, said: str
) -> None:
    assert f"aten::{name}" in INDEXES
    told = other_picks(TIES, found, wanted, dim)
    assert said in told
    assert bool(said) == bool(told)


@pytest.mark.parametrize("name", sorted(INDEXES))
def test_each_operator_that_gives_places_is_right_against_itself(name: str) -> None:
    space, _, rest = name.partition("::")
    base, _, overload = rest.partition(".")
    func = getattr(getattr(getattr(torch.ops, space), base), overload or "default")
    more: dict[str, tuple[Any, ...]] = {"topk": (2,), "kthvalue": (2,)}
    args = (TIES, *more.get(base, ()))
    if overload == "dim":
        args = (TIES, 1)
    named = {"stable": True} if overload == "stable" else {}
    tried = again(Call(func, args, named))
    assert (tried.gap, tried.wrong, tried.compared) == ("", "", True)


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


INFINITE = torch.tensor([1.0, float("-inf"), float("inf")])


def test_infinities_must_be_where_the_host_has_them_and_hide_nothing_else() -> None:
    assert difference(INFINITE, INFINITE.clone()) == ""
    assert difference(INFINITE * 1.0001, INFINITE) == ""
    for place, value in ((0, float("inf")), (1, -3e38), (2, 3.4028234663852886e38)):
        other = INFINITE.clone()
        other[place] = value
        assert difference(other, INFINITE) == "gives infinity elsewhere than the host"
        assert difference(INFINITE, other) == "gives infinity elsewhere than the host"
    assert difference(-INFINITE, INFINITE) == "gives infinity elsewhere than the host"
    assert difference(INFINITE + 1, INFINITE).startswith("differs from the host by 1.0e+00")


def test_whole_numbers_must_be_equal() -> None:
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 3])).startswith("gives other whole")
    assert difference(torch.tensor([1, 2]), torch.tensor([1, 2])) == ""
