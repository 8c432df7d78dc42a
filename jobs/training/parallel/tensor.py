"""Splits the products of each layer over workers, by the plan that transformers has of the model.

Of that plan the columns and rows of linear layers and of experts are taken (`base_model_tp_plan`);
what stands outside of the layers is dealt out as without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

PACKED = "packed_colwise"  # two matrices that stand in one: each is split
# What no weight is split by: experts as a whole, and norms of heads, which are split.
_EXPERTS, _OF_HEADS = "moe_tp_experts", "replicated_with_grad_allreduce"
_STYLES = frozenset({"colwise", "rowwise", PACKED, _EXPERTS, _OF_HEADS})
_PARTIAL = "gradient_is_partial"
_DIVIDED = (
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "moe_intermediate_size",
)


def plan_of(model: Any, size: int) -> Mapping[str, str]:  # noqa: ANN401 - a transformers model
    """Return how each linear layer is split over `size` workers, by its name.

    Raises:
        ValueError: The model has no plan, one that is not done here, or sizes that don't divide.
    """
    config = model.config.get_text_config()
    kind = f"parallel.tensor={size!r}: a {config.model_type}"
    plan = getattr(config, "base_model_tp_plan", None)
    if not plan:
        raise ValueError(f"{kind} has no plan for it (base_model_tp_plan); use parallel.shard")
    for style in sorted(set(plan.values()) - _STYLES):
        raise ValueError(f"{kind} has a plan with {style!r}, which is not done here; use shard")
    for field in _DIVIDED:
        length = getattr(config, field, None)
        if length and length % size:
            raise ValueError(f"{kind} has {field} {length!r}, which does not divide by it")
    return matched(model, plan)


def matched(model: Any, plan: Mapping[str, str]) -> dict[str, str]:  # noqa: ANN401 - as above
    """Return what a plan of a base model says of each module and weight of `model`, by name."""
    prefix = f"{model.base_model_prefix}." if model.base_model is not model else ""
    styles = {f"{prefix}{name}": style for name, style in plan.items()}
    named = (*model.named_modules(), *model.named_parameters())
    each = {name: styles.get(re.sub(r"\.\d+\.", ".*.", name)) for name, _ in named}
    return {name: style for name, style in each.items() if style}


def split(model: nn.Module, mesh: DeviceMesh) -> None:
    """Split the layers of a model without weights over the workers of `mesh`."""
    plan = plan_of(model, mesh.size())
    of_weights = {name: style_of(plan, name) for name, _ in model.named_parameters()}
    own = {name: style for name, style in of_weights.items() if style}
    for name in (name for name, style in plan.items() if style == _OF_HEADS):
        setattr(model.get_submodule(name), _PARTIAL, True)
    hooked = {name: style for name, style in plan.items() if style != _OF_HEADS}
    apply_tensor_parallelism(model, mesh, {**own, **hooked})


@torch.no_grad()
def add_partial_gradients(model: nn.Module, mesh: DeviceMesh) -> None:
    """Add up the gradients of norms of heads: each worker of `mesh` has those of its own."""
    for module in model.modules():
        for weight in module.parameters(recurse=False) if hasattr(module, _PARTIAL) else ():
            if isinstance(weight.grad, DTensor):
                dist.all_reduce(weight.grad.to_local(), group=mesh.get_group())


def style_of(plan: Mapping[str, str], weight: str) -> str | None:
    """Return how a weight is split: as the plan says of it, or of its linear layer."""
    style = plan.get(weight) or plan.get(weight.rpartition(".")[0])
    return None if style in {_EXPERTS, _OF_HEADS} else style


def split_along(style: str | None, dimensions: int) -> int | None:
    """Return the dimension along which a weight is split, `None` where each worker has all."""
    if style is None or (style == "rowwise" and dimensions == 1):
        return None
    return dimensions - 1 if style == "rowwise" else max(0, dimensions - 2)
