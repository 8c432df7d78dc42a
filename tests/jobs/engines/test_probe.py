"""What the probe of an engine takes for rounding, and what for a wrong pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from jobs.engines import probe
from jobs.engines.cache import SlotCache
from jobs.engines.forward import Forward, ModelForward
from tests.jobs.engines.test_forward import MOE, check, made


def spoilt(run: Forward, share: Callable[[int], float]) -> Forward:
    """Move the scores of pass K by `share(K)` of their spread, away from what they are."""
    passes = iter(range(1000))

    def moved(new: list[list[int]], cache: SlotCache) -> torch.Tensor:
        logs = run(new, cache).float().log_softmax(-1)
        centred = logs - logs.mean(-1, keepdim=True)
        # by its mirror image: the probe's own measure of it is `share`
        return logs - share(next(passes)) * centred

    return moved  # type: ignore[return-value] # a function is a forward pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_what_is_allowed_lies_between_rounding_and_a_wrong_pass(dtype: torch.dtype) -> None:
    model = made("llama", {}, dtype)
    allowed = probe.ALLOWED[dtype]
    check(model, spoilt(ModelForward(model), lambda _: 0.3 * allowed))
    with pytest.raises(ValueError, match=f"rounding is {allowed:g} at most"):
        check(model, spoilt(ModelForward(model), lambda _: 1.5 * allowed))
    with pytest.raises(ValueError, match="differ by"):
        check(model, spoilt(ModelForward(model), lambda number: 1.4 * (number == 6)))


FIRST = len(probe.COURSE)  # passes of the first prompt


@pytest.mark.parametrize(
    ("kind", "more", "dtype"),
    [
        ("qwen3_moe", MOE, torch.bfloat16),
        ("qwen3_moe", MOE, torch.float32),
        ("llama", {}, torch.bfloat16),
    ],
)
def test_other_experts_for_one_prompt_are_rounding_where_that_chooses_them(
    kind: str, more: dict[str, Any], dtype: torch.dtype
) -> None:
    model = made(kind, more, dtype)
    once = spoilt(ModelForward(model), lambda number: 0.8 * (number < FIRST))
    if more and dtype != torch.float32:
        check(model, once)
    else:
        with pytest.raises(ValueError, match="differ by"):
            check(model, once)
    with pytest.raises(ValueError, match="differ by"):
        check(model, spoilt(ModelForward(model), lambda _: 0.8))
