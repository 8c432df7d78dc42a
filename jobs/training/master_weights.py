"""Weights rounded to a narrower type, with masters in float32: so they are served as trained.

The model computes with rounded weights, the optimizer moves the masters ("Mixed Precision
Training", Micikevicius et al., 2018). What a step adds may be far below a step of the narrow type:
what rounding leaves out is kept with the optimizer's state until it adds up, and goes into
checkpoints with it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

_RESIDUAL = "rest"  # as checkpoints have it


@torch.no_grad()
def keep_master_weights(optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> None:
    """Round the weights of `optimizer` to `dtype`, now and after each of its steps."""
    for weight in _weights(optimizer):
        weight.copy_(weight.to(dtype))

    def restore(*_: object) -> None:
        for weight in _weights(optimizer):
            residual = optimizer.state.get(weight, {}).get(_RESIDUAL)
            if residual is not None:
                weight.add_(residual)

    def round_off(*_: object) -> None:
        for weight in _weights(optimizer):
            if not optimizer.state.get(weight):  # it took no part in any step
                continue
            master = weight.clone()
            weight.copy_(master.to(dtype))
            optimizer.state[weight][_RESIDUAL] = master.sub_(weight)

    optimizer.register_step_pre_hook(torch.no_grad()(restore))
    optimizer.register_step_post_hook(torch.no_grad()(round_off))


def _weights(optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    return (weight for group in optimizer.param_groups for weight in group["params"])
