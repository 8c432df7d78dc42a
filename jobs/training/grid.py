"""Weights on the grid of a narrower type than the optimizer's, so that they are served as trained.

The model computes with rounded weights, the optimizer moves the whole ones ("Mixed Precision
Training", Micikevicius et al., 2018). What a step adds may be far below the grid's step: the rest
is kept with the optimizer's state until it adds up, and goes into checkpoints with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

_REST = "rest"


@torch.no_grad()
def keep_on_grid(optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> None:
    """Round the weights of `optimizer` to `dtype`, now and after each of its steps."""
    for weight in _weights(optimizer):
        weight.copy_(weight.to(dtype))

    def lift(*_: object) -> None:
        for weight in _weights(optimizer):
            rest = optimizer.state.get(weight, {}).get(_REST)
            if rest is not None:
                weight.add_(rest)

    def lay(*_: object) -> None:
        for weight in _weights(optimizer):
            if not optimizer.state.get(weight):  # it took no part in any step
                continue
            whole = weight.clone()
            weight.copy_(whole.to(dtype))
            optimizer.state[weight][_REST] = whole.sub_(weight)

    optimizer.register_step_pre_hook(torch.no_grad()(lift))
    optimizer.register_step_post_hook(torch.no_grad()(lay))


def _weights(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    return (weight for group in optimizer.param_groups for weight in group["params"])
