"""Deals a model out to the workers by torch's own `fully_shard` (FSDP2; HSDP with replicas).

Each layer is a unit: its weights are gathered for its forward and its backward pass, and given
back; its gradients are reduced to who holds the weights. What stands outside of the layers, the
embedding and the head, is one more unit, which stays gathered from forward to backward. Experts
that are dealt out whole are units of their own, among the workers that hold the same ones. What no
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

REPLICATE, SHARD, TENSOR, EXPERT = "replicate", "shard", "tensor", "expert"


def device_mesh(parallel: MeshDegrees, device: torch.device) -> DeviceMesh:
    """Return the mesh of the workers, as all that is no expert is dealt out over it.

    Ranks are sorted by node, so that what talks most, the innermost degree, is on one node.
    """
    degrees = (parallel.replicate, parallel.dealt, parallel.tensor)
    return init_device_mesh(device.type, degrees, mesh_dim_names=(REPLICATE, SHARD, TENSOR))


def expert_mesh(parallel: MeshDegrees, device: torch.device) -> DeviceMesh | None:
    """Return the mesh of the same workers that experts are dealt out over, if they are."""
    if parallel.expert == 1:
        return None
    degrees = (parallel.replicate, parallel.shard, parallel.expert)
    return init_device_mesh(device.type, degrees, mesh_dim_names=(REPLICATE, SHARD, EXPERT))


def shard(
    loss: nn.Module, mesh: DeviceMesh, experts: DeviceMesh | None = None, *, bf16: bool
) -> None:
    """Deal the model of a loss out over `mesh`; every worker calls this with the same weights.

    Experts that were dealt out whole are dealt out further over `experts`, their own mesh. With
    `bf16` the weights of the layers are gathered in bfloat16, for products in it.

    Raises:
        ValueError: The model can't be dealt out.
    """
    _check(loss)
    narrow = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    policy = narrow if bf16 else MixedPrecisionPolicy()
    kept = {weight for weight in loss.parameters() if not weight.requires_grad}
    if experts is not None:
        for module in _dispersed(loss):
            unit = fully_shard(
                module,
                mesh=_over(experts),
                shard_placement_fn=partial(_place_of_experts, size=experts[SHARD].size()),
                ignored_params=kept,
                mp_policy=policy,
            )
            _average_over(unit, experts)
    deal = partial(
        fully_shard,
        mesh=_over(mesh),
        shard_placement_fn=partial(_place, size=mesh[SHARD].size()),
        ignored_params=kept,
    )
    for _, layer in layers(loss):
        deal(layer, mp_policy=policy)
    deal(loss)


def _over(mesh: DeviceMesh) -> DeviceMesh:
    """Return what of a mesh `fully_shard` works over: replicas, where there are, and shards."""
    return mesh[REPLICATE, SHARD] if mesh[REPLICATE].size() > 1 else mesh[SHARD]


def _place(weight: nn.Parameter, size: int) -> Shard:
    places: Any = weight.placements if isinstance(weight, DTensor) else ()
    packed = {place.dim for place in places if hasattr(place, "split_factor")}
    return Shard(dealt_along(weight.shape, size, packed))


def _place_of_experts(weight: nn.Parameter, size: int) -> Shard:
    assert isinstance(weight, DTensor)  # noqa: S101 - `_dispersed` has looked
    return Shard(dealt_along(weight.to_local().shape, size))


def _dispersed(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules whose experts were dealt out whole."""
    for module in model.modules():
        weights = module.parameters(recurse=False)
        if any(_is_dispersed(weight) for weight in weights):
            yield module


def _is_dispersed(weight: nn.Parameter) -> bool:
    return isinstance(weight, DTensor) and EXPERT in (weight.device_mesh.mesh_dim_names or ())


def _average_over(unit: FSDPModule, experts: DeviceMesh) -> None:
    """Have the gradient of experts be the mean over all workers that take rows.

    What comes to a worker is the sum over those whose tokens came to it. Sums are divided
    afterwards: few backends scale while they add up, and one worker alone divides as it is.
    """
    unit.set_gradient_divide_factor(float(experts.size()))
    if experts[SHARD].size() > 1:
        unit.set_force_sum_reduction_for_comms(enable=True)


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
