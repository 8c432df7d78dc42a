"""Writes the model folder of a model that is dealt out: a layer is gathered, written, and let go.

It comes together on the host of the first worker. The others take part with a piece at a time, of
which they keep nothing: however large the experts of a layer are, a chip holds little of them
beside its own part. The folder is the one that transformers would write: what it renames, splits
or joins on the way to the disk goes by its own table, which never reaches over a layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from transformers.core_model_loading import revert_weight_conversion

from jobs.formats.headers import Spec
from jobs.formats.sink import Sink
from jobs.training import model as models
from jobs.training.checkpoint import Tensors
from jobs.training.parallel.gathering import pieces
from jobs.training.parallel.sharding import layers
from orchestrator.job import JobContext

MOST_GATHERED = 2**28  # bytes of a tensor at once: 256 MiB


@torch.no_grad()
def save_dealt(
    model: Any,  # noqa: ANN401 - a transformers model
    ctx: JobContext,
    dtype: torch.dtype | None = None,
    *,
    most: int = MOST_GATHERED,
) -> None:
    """Write config and safetensors into `ctx.output`, as the first worker; all call this.

    Weights are turned into `dtype` where that loses nothing; buffers are not. Of a tensor at most
    so many bytes are gathered at once, as far as it can be cut.
    """
    kept = _kept(model)
    types = {name: tensor.dtype for name, tensor in kept.items()}
    if dtype is not None:
        types |= dict.fromkeys(_lossless(model, kept, dtype), dtype)
    units = list(_units(model, kept))
    with ExitStack() as stack:
        stack.enter_context(ctx.busy("saving the model"))
        sink = None
        if ctx.rank == 0:
            model.config.dtype = types[next(iter(types))]
            model.config.architectures = [type(model).__name__]
            models.save_shape(model, ctx.output)
            specs = [_specs(model, {name: types[name] for name in unit}, kept) for unit in units]
            sink = Sink(ctx.output, {k: v for unit in specs for k, v in unit.items()})
            stack.enter_context(sink)
        for unit in units:
            tensors = _on_host({name: kept[name] for name in unit}, types, most, ctx)
            if sink is not None:
                for name, tensor in revert_weight_conversion(model, tensors).items():
                    sink.write(name, 0, tensor)
    for name, sha256 in sink.hashes().items() if sink else ():
        ctx.hashed(name, sha256)


def _on_host(
    dealt: Tensors, types: Mapping[str, torch.dtype], most: int, ctx: JobContext
) -> Tensors:
    """Return whole tensors in the first worker; in the others, which take part, nothing."""
    copies: Tensors = {}
    for name, tensor in dealt.items():
        if ctx.rank == 0:
            copies[name] = torch.empty(tensor.shape, dtype=types[name], device="cpu")
        for place, piece in pieces(tensor, most):
            if ctx.rank == 0:
                copies[name][place].copy_(piece)
    return copies


def _kept(model: Any) -> Tensors:  # noqa: ANN401 - as above
    """Return what is written: parameters and buffers by name; what is tied by its own name."""
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    aside = model._keys_to_ignore_on_save or ()  # noqa: SLF001 - no public name for it
    kept: Tensors = {}
    seen: set[int] = set()
    weights = list(model.named_parameters(remove_duplicate=False))
    for name, weight in sorted(weights, key=lambda pair: pair[0] in tied):
        if id(weight) not in seen and name not in aside:
            seen.add(id(weight))
            kept[name] = weight.detach()
    buffers = model.state_dict().keys() - {name for name, _ in weights}
    return kept | {k: v for k, v in model.named_buffers() if k in buffers and k not in aside}


def _units(model: Any, kept: Tensors) -> Iterator[list[str]]:  # noqa: ANN401 - as above
    """Yield the names of what is gathered at once: what is in no layer, and each layer."""
    prefixes = [f"{name}." for name, _ in layers(model)]
    of = {name: next((p for p in prefixes if name.startswith(p)), "") for name in kept}
    for prefix in ("", *prefixes):
        yield [name for name in kept if of[name] == prefix]


def _specs(
    model: Any,  # noqa: ANN401 - as above
    types: Mapping[str, torch.dtype],
    kept: Tensors,
) -> dict[str, Spec]:
    """Return type and shape of what becomes of some tensors on the disk."""
    empty = {
        name: torch.empty(kept[name].shape, dtype=dtype, device="meta")
        for name, dtype in types.items()
    }
    written = revert_weight_conversion(model, empty)
    return {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in written.items()}


def _lossless(model: Any, kept: Tensors, dtype: torch.dtype) -> list[str]:  # noqa: ANN401 - as above
    """Return the weights that are the same numbers in `dtype`, in every worker's part."""
    names = [name for name, _ in model.named_parameters() if name in kept]
    parts = [_mine(kept[name]) for name in names]
    same = [torch.equal(part, part.to(dtype).to(part.dtype)) for part in parts]
    flags = torch.tensor(same, dtype=torch.int32, device=_mine(kept[names[0]]).device)
    dist.all_reduce(flags, op=dist.ReduceOp.MIN)
    return [name for name, flag in zip(names, flags.tolist(), strict=True) if flag]


def _mine(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
