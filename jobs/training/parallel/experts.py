"""Deals the experts of each layer out whole, by the plan that transformers has of the model.

Each worker computes the experts that it holds, on the tokens of all workers. A token travels to
each expert that its router has chosen, by an all-to-all, and what becomes of it travels back; so
do the gradients. Collectives of the group itself do it: transformers' own exchange takes
functional ones, which an emulated device has none of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers.distributed.expert_parallel import (
    EPImplementation,
    EPImplementationInterface,
    apply_expert_parallelism,
)

from jobs.training.parallel.degrees import MeshDegrees
from jobs.training.parallel.tensor import matched

_STACKED = "grouped_gemm"  # a weight of all experts of a layer: the first dimension is theirs
_STYLES = frozenset({_STACKED, "ep_dispatch_experts"})
_EXCHANGE = "all_to_all_of_the_group"  # the name of ours in the registry of transformers


def plan_of(model: Any, size: int) -> Mapping[str, str]:  # noqa: ANN401 - a transformers model
    """Return what is done with experts and their weights, by name, to deal them out to `size`.

    Raises:
        ValueError: The model has no plan, one that is not done here, or experts that don't divide.
    """
    config = model.config.get_text_config()
    kind = f"parallel.expert={size!r}: a {config.model_type}"
    plan = getattr(config, "base_model_ep_plan", None) or {}
    for style in sorted(set(plan.values()) - _STYLES):
        raise ValueError(f"{kind} has a plan with {style!r}, which is not done here; use shard")
    named = matched(model, plan)
    if not named:
        raise ValueError(
            f"{kind} has no plan for it (base_model_ep_plan), or no experts; use parallel.shard"
        )
    for name, weight in model.named_parameters():
        if is_stacked(named, name) and len(weight) % size:
            raise ValueError(f"{kind} has {len(weight)!r} experts, which does not divide by it")
    return named


def check_passes(parallel: MeshDegrees, compiled: str | None) -> None:
    """Refuse passes that are not done where experts are dealt out.

    Raises:
        ValueError: Layers are to be compiled.
    """
    if parallel.expert > 1 and compiled:
        raise ValueError(
            f"compile={compiled!r} with parallel.expert={parallel.expert!r} is not done here: "
            f"leave compile out, or take parallel.shard"
        )


def is_stacked(plan: Mapping[str, str], weight: str) -> bool:
    """Whether a weight has a part for each expert of a layer, by its plan."""
    return plan.get(weight) == _STACKED


def disperse(model: nn.Module, mesh: DeviceMesh, same_rows: DeviceMesh) -> None:
    """Deal the experts of a model without weights out over the workers of `mesh`.

    `same_rows` is the mesh of those that take the same rows: this worker alone.

    Raises:
        ValueError: They can't be.
    """
    plan = plan_of(model, mesh.size())
    weights = {name: style for name, style in plan.items() if style == _STACKED}
    in_turn = {**weights, **plan}  # an exchange counts the experts that its worker holds then
    EPImplementationInterface.register(_EXCHANGE, GroupExchange)
    apply_expert_parallelism(model, mesh, same_rows, in_turn, _EXCHANGE)


class GroupExchange(EPImplementation):  # type: ignore[misc] # untyped there
    """Brings tokens to the workers that hold their experts, and the results back."""

    def __call__(
        self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor
    ) -> Tensor:
        """Return what the experts make of the tokens of this worker, weighted and added up.

        Args:
            hidden_states: The tokens [tokens, width].
            top_k_index: The experts of each [tokens, chosen].
            top_k_weights: What each expert counts for [tokens, chosen].
        """
        group, workers = self.ep_mesh.get_group(), self.ep_mesh.size()
        chosen = top_k_index.flatten()
        order = chosen.argsort(stable=True)  # by expert, and so by worker
        leaving = chosen.new_zeros(workers * self.num_local_experts)
        leaving.scatter_add_(0, chosen, torch.ones_like(chosen))
        arriving = torch.empty_like(leaving)
        dist.all_to_all_single(arriving, leaving, group=group)
        counts = torch.stack((leaving, arriving)).view(2, workers, -1).sum(-1)
        sent, received = counts.tolist()
        tokens = hidden_states[order // top_k_index.shape[-1]]
        tokens = _AllToAll.apply(tokens, sent, received, group)  # type: ignore[no-untyped-call]
        results = self._computed(tokens, arriving.view(workers, -1))
        results = _AllToAll.apply(results, received, sent, group)  # type: ignore[no-untyped-call]
        of_each = torch.empty_like(results).index_copy(0, order, results)
        weighted = of_each.view(*top_k_weights.shape, -1) * top_k_weights.unsqueeze(-1)
        return weighted.sum(1)

    def _computed(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Return what the experts of this worker make of tokens [tokens, width] that came to it.

        They stand by the worker that they came from, and by expert: so many are in `counts`
        [workers, experts]. A worker to which none came computes a row of zeros, which nobody gets:
        its weights have a gradient then, as those of the others, which wait for it.
        """
        numbers = torch.arange(counts.shape[1], device=tokens.device).repeat(counts.shape[0])
        experts = numbers.repeat_interleave(counts.flatten()).unsqueeze(-1)
        rows = tokens
        if not len(tokens):
            rows, experts = tokens.sum(0, keepdim=True), experts.new_zeros((1, 1))
        results: Tensor = self.experts_forward(
            rows, experts, torch.ones_like(experts, dtype=rows.dtype)
        )
        return results[: len(tokens)]


class _AllToAll(torch.autograd.Function):
    """Sends rows to the workers of a group; their gradients go the other way."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        rows: Tensor,
        sent: list[int],
        received: list[int],
        group: dist.ProcessGroup,
    ) -> Tensor:
        ctx.back = (received, sent, group)
        return _exchanged(rows, sent, received, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401 - torch's own
        return _exchanged(gradient, *ctx.back), None, None, None


def _exchanged(
    rows: Tensor, sent: list[int], received: list[int], group: dist.ProcessGroup
) -> Tensor:
    """Return the rows that each worker has sent here; `sent` of `rows` go to each."""
    arrived = rows.new_empty((sum(received), *rows.shape[1:]))
    dist.all_to_all_single(arrived, rows.contiguous(), received, sent, group=group)
    return arrived
