"""Deals a model out to the workers by torch's own `fully_shard` (FSDP2; HSDP with replicas).

Each layer is a unit: its weights are gathered for its forward and its backward pass, and given
back; its gradients are reduced to who holds the weights. What stands outside of the layers, the
embedding and the head, is one more unit, which stays gathered from forward to backward. What no
gradient moves, as the biases by which experts are chosen, stays with every worker, in float32. It
works over gloo on a CPU as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from jobs.training.parallel.degrees import MeshDegrees

REPLICATE, SHARD, TENSOR = "replicate", "shard", "tensor"


def device_mesh(parallel: MeshDegrees, device: torch.device) -> DeviceMesh:
    """Return the mesh of the workers.

    Ranks are sorted by node, so that what talks most, the innermost degree, is on one node.
    """
    degrees = (parallel.replicate, parallel.shard, parallel.tensor)
    return init_device_mesh(device.type, degrees, mesh_dim_names=(REPLICATE, SHARD, TENSOR))


def shard(loss: nn.Module, mesh: DeviceMesh, *, bf16: bool) -> None:
    """Deal the model of a loss out over `mesh`; every worker calls this with the same weights.

    With `bf16` the weights of the layers are gathered in bfloat16, for products in it.

    Raises:
        ValueError: The model can't be dealt out.
    """
    _check(loss)
    whole = mesh[REPLICATE, SHARD] if mesh[REPLICATE].size() > 1 else mesh[SHARD]
    narrow = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    size = mesh[SHARD].size()

    def place(weight: nn.Parameter) -> Shard:
        places: Any = weight.placements if isinstance(weight, DTensor) else ()
        packed = {place.dim for place in places if hasattr(place, "split_factor")}
        return Shard(dealt_along(weight.shape, size, packed))

    policy = narrow if bf16 else MixedPrecisionPolicy()
    kept = {weight for weight in loss.parameters() if not weight.requires_grad}
    deal = partial(fully_shard, mesh=whole, shard_placement_fn=place, ignored_params=kept)
    for _, layer in layers(loss):
        deal(layer, mp_policy=policy)
    deal(loss)


def dealt_along(shape: Sequence[int], size: int, packed: Collection[int] = ()) -> int:
    """Return the dimension of a weight along which it is dealt out to `size` workers.

    That is the first, but where it is too short for all, as experts are: FSDP then takes another
    that divides evenly, along which no matrices are `packed`.
    """
    if not shape or shape[0] >= size:
        return 0
    even = (dim for dim, length in enumerate(shape) if length % size == 0 and dim not in packed)
    return next(even, 0)


def reshard(loss: nn.Module) -> None:
    """Give back what is gathered, after passes without a backward one."""
    for module in loss.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def hold_all_reduce(loss: nn.Module, *, last: bool) -> None:
    """Have gradients meet over the replicas after the last micro-batch alone."""
    assert isinstance(loss, FSDPModule)  # noqa: S101 - who calls has sharded it
    loss.set_requires_all_reduce(last)
    loss.set_is_last_backward(last)


def layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and module of each layer: what stands in an outermost list and has weights."""
    lists: list[str] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer in lists)
        if isinstance(module, nn.ModuleList) and not inner:
            lists.append(name)
            for key, layer in module.named_children():
                if next(layer.parameters(), None) is not None:
                    yield f"{name}.{key}", layer


def _check(model: nn.Module) -> None:
    apart = next(experts_apart(model), None)
    if apart is not None:
        raise ValueError(
            f"parallel.shard: the experts of {apart!r} are modules of their own, of which some "
            f"get no token in a step; such a model trains unsharded alone"
        )


def experts_apart(model: nn.Module) -> Iterator[str]:
    """Yield the lists of experts, each a module of its own: one may get no token in a step."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2].endswith("experts"):
            yield name
