"""Fused operators are what they are made of; one that is not is found, whatever is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as nn

from jobs.qualification import composites, fused_table
from jobs.qualification.bench import FAILED, PASSED, SKIPPED, Bench
from jobs.qualification.composites import Draw
from jobs.qualification.fused import apart, check_fused, passes
from jobs.qualification.fused_table import TABLE, Fused, covered, table_of
from jobs.qualification.operators import _elsewhere
from tests.jobs.local_context import LocalContext

CPU = torch.device("cpu")
BOTH = ("train", "serve")
HERE = {one.name: one for one in TABLE if not one.package}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(LocalContext(folder=tmp_path), quick=True)


def checked(bench: Bench, monkeypatch: pytest.MonkeyPatch, one: Fused) -> set[str]:
    """Return the statuses of a table of one operator."""
    monkeypatch.setattr(fused_table, "TABLE", (one,))
    bench.findings.clear()
    check_fused(bench, [CPU], ["bf16"], BOTH)
    return {finding.status for finding in bench.findings}


def test_what_torch_has_here_is_right_in_each_number_type_and_far_from_the_limit(
    bench: Bench,
) -> None:
    check_fused(bench, [CPU], ["bf16"], BOTH)
    assert {one.status for one in bench.findings} == {PASSED}
    assert len(bench.findings) == sum(len(one.dtypes) for one in HERE.values())
    for one in bench.findings:
        name, dtype, _ = one.subject.rsplit(" ", 2)
        assert one.figure is not None
        assert one.figure < 0.5 * HERE[name].allowed(getattr(torch, dtype)), one


def test_only_what_the_roles_and_the_formats_use_is_tried(bench: Bench) -> None:
    check_fused(bench, [CPU], ["fp32"], ["serve"])
    subjects = {one.subject for one in bench.findings}
    assert "attention of a new token float32 cpu" in subjects
    assert not any("bfloat16" in one or "AdamW" in one or "entropy" in one for one in subjects)


@pytest.mark.parametrize("name", HERE)
def test_rows_that_stand_one_off_are_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    right = HERE[name].operator

    def shifted(*given: Tensor) -> Tensor:
        out = right(*given)
        return out.roll(1, -2 if out.dim() > 1 and out.shape[-2] > 1 else -1)

    if name == "cross entropy":  # a sum has no rows: its labels do
        one = replace(HERE[name], operator=lambda scores, labels: right(scores, labels.roll(1)))
    else:
        one = replace(HERE[name], operator=shifted)
    assert checked(bench, monkeypatch, one) == {FAILED}


def _late(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend to the next token too."""
    length = query.shape[-2]
    seen = torch.ones(length, length, dtype=torch.bool).tril(1)
    return nn.scaled_dot_product_attention(query, key, value, seen, enable_gqa=True)


def _other_heads(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Have the heads of a group far apart."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat(1, groups, 1, 1), value.repeat(1, groups, 1, 1)
    return nn.scaled_dot_product_attention(query, key, value, is_causal=True)


def _without_mask(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Take the padding for tokens."""
    del seen
    return nn.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def _one_short(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Miss the newest token."""
    key, value = key[:, :, :-1], value[:, :, :-1]
    return nn.scaled_dot_product_attention(query, key, value, enable_gqa=True)


def _neighbours(given: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (2 i, 2 i + 1)."""
    order = torch.stack(given.chunk(2, -1), -1).flatten(-2)
    return composites.rotary(order, cosines, sines)


def _next_expert(tokens: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """End each expert but the last one token late."""
    later = torch.cat((ends[:-1] + 1, ends[-1:]))
    return composites.grouped(tokens, weights, later)


def _of_epsilon(value: float) -> Callable[..., Tensor]:
    return lambda rows, weight: nn.rms_norm(rows, weight.shape, weight, value)


def _adamw(**facts: float) -> Callable[..., Tensor]:
    def steps(weights: Tensor, slopes: Tensor) -> Tensor:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in facts.items():
                patched.setattr(composites, name, value)
            return composites.adamw(weights, slopes)

    return steps


PLANTED: tuple[tuple[str, str, Callable[..., Tensor]], ...] = (
    ("rms_norm", "an epsilon ten times as large", _of_epsilon(1e-5)),
    ("rms_norm", "no epsilon", _of_epsilon(0.0)),
    (
        "layer_norm",
        "no mean",
        lambda rows, weight, bias: composites.rms_norm(rows, weight) + bias,
    ),
    (
        "swiglu",
        "gate and value exchanged",
        lambda both: composites.swiglu(both.roll(both.shape[-1] // 2, -1)),
    ),
    (
        "swiglu",
        "a tanh in its place",
        lambda both: nn.gelu(both.chunk(2, -1)[0]) * both.chunk(2, -1)[1],
    ),
    ("rotary", "the other way round", lambda given, cos, sin: composites.rotary(given, cos, -sin)),
    ("rotary", "neighbours as pairs", _neighbours),
    ("causal attention", "a look ahead", _late),
    (
        "causal attention",
        "another scale",
        lambda *given: composites.attention(1.1 * given[0], *given[1:]),
    ),
    ("grouped-query attention", "other heads", _other_heads),
    ("masked attention", "no mask", _without_mask),
    ("attention of a new token", "without the newest", _one_short),
    ("grouped products", "a token to the next expert", _next_expert),
    ("batched products", "experts exchanged", lambda one, other: torch.bmm(one, other.roll(1, 0))),
    (
        "cross entropy",
        "labels that are none counted",
        lambda scores, labels: nn.cross_entropy(scores, labels.clamp(min=0), reduction="sum"),
    ),
    ("fused AdamW", "another epsilon", _adamw(TINY=1e-7)),
    ("fused AdamW", "no decay", _adamw(DECAY=0.0)),
    ("foreach AdamW", "a step less", _adamw(STEPS=2)),
)


@pytest.mark.parametrize(
    ("name", "operator"),
    [pytest.param(name, operator, id=f"{name}: {what}") for name, what, operator in PLANTED],
)
def test_a_planted_fault_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, operator: Callable[..., Tensor]
) -> None:
    assert checked(bench, monkeypatch, replace(HERE[name], operator=operator)) == {FAILED}


def test_a_gradient_alone_that_is_wrong_is_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(both: Tensor) -> Tensor:
        return composites.swiglu(0.5 * both + 0.5 * both.detach())

    assert checked(bench, monkeypatch, replace(HERE["swiglu"], operator=half)) == {FAILED}


def test_infinities_must_be_where_they_belong_and_are_no_scale() -> None:
    right = torch.tensor([[1.0, float("-inf")], [2.0, 3.0]], dtype=torch.float64)
    assert apart([right, right], [right, right]) == 0.0
    assert apart([right.nan_to_num(neginf=-1e300)], [right]) == float("inf")
    assert apart([right], [right.nan_to_num(neginf=-1e300)]) == float("inf")
    assert apart([right + 1], [right]) == 1.0


def test_what_is_no_number_is_found(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(HERE["batched products"], operator=lambda one, two: one @ two / 0)
    assert checked(bench, monkeypatch, broken) == {FAILED}


def test_an_operator_that_is_not_there_is_a_limit_of_a_chip_and_an_error_is_a_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Tensor, text: str) -> Tensor:
        raise RuntimeError(text)

    says = {"not supported on this device": SKIPPED, "illegal memory access": FAILED}
    for text, status in says.items():
        one = replace(HERE["swiglu"], operator=partial(lacking, text=text))
        assert checked(bench, monkeypatch, one) == {status}
    monkeypatch.setattr(Bench, "real", property(lambda _: True))
    one = replace(
        HERE["swiglu"],
        operator=partial(lacking, text="not implemented"),
        inputs=lambda _: HERE["swiglu"].inputs(Draw(torch.Generator(), real=False)),
    )
    assert checked(bench, monkeypatch, one) == {"limited"}
    assert "nobody has tested it" in bench.findings[0].note


# --- a maker's own, as its manual says ----------------------------------------------------------


def _fusion(  # noqa: PLR0913 - the maker's form
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    *,
    atten_mask: Tensor,
    scale: float,
) -> tuple[Tensor, ...]:
    assert (head_num, input_layout) == (query.shape[1], "BNSD")
    exact = query * (scale * query.shape[-1] ** 0.5)
    return composites.attention(exact, key, value, ~atten_mask), key, value


ASCEND = SimpleNamespace(
    npu_rms_norm=lambda rows, weight, epsilon: (
        nn.rms_norm(rows, weight.shape, weight, epsilon),
        1,
    ),
    npu_rotary_mul=composites.rotary,
    npu_swiglu=lambda both, dim: composites.swiglu(both),  # noqa: ARG005 - the maker's name
    npu_fusion_attention=_fusion,
)


def test_the_operators_of_a_maker_are_tried_where_its_package_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = [one for one in TABLE if one.package == "torch_npu"]
    assert not any(one in own for one in table_of("npu")), "the package is not there"
    monkeypatch.setitem(sys.modules, "torch_npu", ASCEND)  # type: ignore[arg-type]
    assert all(one in table_of("npu") for one in own)
    assert not any(one in own for one in table_of("cuda"))
    for one in own:
        arguments = one.inputs(Draw(torch.Generator().manual_seed(0), real=False))
        wanted = passes(one.composite, arguments, one.learnt)
        found = passes(one.operator, arguments, one.learnt)
        assert apart(found, wanted) < one.allowed(torch.float32), one.name
    monkeypatch.delattr(ASCEND, "npu_swiglu")
    assert "npu_swiglu" not in {one.name for one in table_of("npu")}


def test_an_operator_of_a_model_that_the_table_has_is_not_called_untested(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not covered("npu::npu_swiglu", "npu")
    monkeypatch.setitem(sys.modules, "torch_npu", ASCEND)  # type: ignore[arg-type]
    assert covered("npu::npu_rms_norm_backward", "npu")
    assert not covered("npu::npu_rms_norm", "cuda")
    assert _elsewhere("npu::npu_fusion_attention_v2", "npu")
    assert not _elsewhere("npu::npu_conv3d", "npu")
