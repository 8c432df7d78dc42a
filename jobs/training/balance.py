"""Keeps the experts of a model at work: a router left to itself soon sends all tokens to a few.

Two ways, each where the model has what it needs:

- a loss (Switch Transformer, Fedus et al., 2021), times the `router_aux_loss_coef` of its config:
  that of each layer, and their mean. Over the tokens of all layers together, as transformers adds
  it, two layers that send all to two different experts count as even;
- a bias of each expert (`e_score_correction_bias`) that only the choice sees, and that each step
  moves towards an even load (DeepSeek-V3, 2.1.2): `bias += rate * sign(mean - load)`.

Loads are counted over the gang, and padding counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from jobs.training.process_group import ProcessGroup

_EXPERTS, _BIAS = "experts", "e_score_correction_bias"
_ROUTERS = frozenset({"gate", "router"})
_STACKED = 3  # dimensions of the weights of all experts of a layer


@dataclass(slots=True, eq=False)
class _ExpertLayer:
    """A layer of experts.

    Attributes:
        name: Its number.
        bias: The bias of its choice, [experts], where it has one.
        load: Tokens that each expert got, [experts + 1]; the last are nobody's.
        top_k: Experts that a token goes to.
        scores: What the router gave in the last forward pass, [tokens, experts].
    """

    name: str
    bias: torch.Tensor | None
    load: torch.Tensor
    top_k: int = 1
    scores: torch.Tensor | None = None


class Balance:
    """The layers of experts of a model in training; there may be none."""

    def __init__(self, model: nn.Module, group: ProcessGroup, *, rate: float) -> None:
        """Count the tokens of the experts of `model` from now on."""
        self._group = group
        self._rate = rate
        self._mask = torch.empty(0)  # of the tokens at work: true where one is no padding
        config: Any = model.config
        self._coefficient = getattr(config.get_text_config(), "router_aux_loss_coef", None) or 0.0
        self._layers = list(self._find(model))

    @property
    def has_loss(self) -> bool:
        """Whether an uneven load is a loss."""
        return self._coefficient > 0 and bool(self._layers)

    def begin(self) -> None:
        """Begin a step."""
        for layer in self._layers:
            layer.load.zero_()

    def watch(self, mask: torch.Tensor) -> None:
        """Count the tokens of the next forward pass where `mask` [rows, width] is true."""
        if self._layers:
            self._mask = mask.to(self._group.device).flatten()

    def loss(self) -> torch.Tensor | float:
        """Return the loss of the last forward pass: the greater, the less even its loads are."""
        routed = [layer for layer in self._layers if layer.scores is not None]
        if not self.has_loss or not routed:
            return 0.0
        losses = [
            load_balancing_loss_func((layer.scores,), len(layer.load) - 1, layer.top_k, self._mask)
            for layer in routed
        ]
        for layer in routed:
            layer.scores = None
        return self._coefficient * torch.stack(losses).mean()

    @torch.no_grad()
    def end(self, *, taken: bool) -> None:
        """Add up the loads of the gang; move the biases if the step was taken."""
        if not self._layers:
            return
        loads = self._group.sum(torch.cat([layer.load for layer in self._layers]))
        parts = torch.split(loads, [len(layer.load) for layer in self._layers])
        for layer, load in zip(self._layers, parts, strict=True):
            layer.load.copy_(load)
            if taken and layer.bias is not None:
                counts = load[:-1].float()
                layer.bias.view(-1).add_((counts.mean() - counts).sign(), alpha=self._rate)

    def figures(self) -> dict[str, float]:
        """Return the load of the busiest expert of each layer, as a multiple of the mean."""
        loads = {layer.name: layer.load[:-1].double() for layer in self._layers}
        imbalances = {
            name: float(load.max() / load.mean()) for name, load in loads.items() if load.any()
        }
        values = {f"router/load/{name}": imbalance for name, imbalance in imbalances.items()}
        return values | ({"router/load": max(imbalances.values())} if imbalances else {})

    def _find(self, model: nn.Module) -> Iterator[_ExpertLayer]:
        for name, block in model.named_modules():
            experts: Any = getattr(block, _EXPERTS, None)
            weights = experts.parameters() if isinstance(experts, nn.Module) else ()
            count = next((len(weight) for weight in weights if weight.ndim == _STACKED), None)
            if count is None:
                continue
            named = (*block.named_buffers(), *block.named_parameters())
            biases = (
                tensor for key, tensor in named if key.endswith(_BIAS) and tensor.numel() == count
            )
            load = torch.zeros(count + 1, dtype=torch.int64, device=self._group.device)
            layer = _ExpertLayer(_number(name), next(biases, None), load)
            experts.register_forward_pre_hook(partial(self._count, layer), with_kwargs=True)
            for key, router in block.named_children():
                if key in _ROUTERS and not any(_is_table(buffer) for buffer in router.buffers()):
                    router.register_forward_hook(partial(self._keep, layer))
            yield layer

    def _keep(self, layer: _ExpertLayer, router: nn.Module, _: object, output: object) -> None:
        """Keep the scores of a router, one of what it gives."""
        if not (router.training and self.has_loss):
            return
        given = output if isinstance(output, tuple) else (output,)
        floats = (
            tensor
            for tensor in given
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
        )
        layer.scores = next(
            (tensor for tensor in floats if tensor.shape[-1] == len(layer.load) - 1), None
        )

    @torch.no_grad()
    def _count(
        self,
        layer: _ExpertLayer,
        experts: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Count what is sent to the experts of a layer: [tokens, top_k] numbers of experts."""
        given = (*args, *kwargs.values())
        chosen = next(
            tensor
            for tensor in given
            if isinstance(tensor, torch.Tensor) and not tensor.is_floating_point()
        )
        layer.top_k = chosen.shape[-1]
        if experts.training and self._mask.numel() * layer.top_k == chosen.numel():
            weights = self._mask.to(torch.int64).repeat_interleave(layer.top_k)
            layer.load.scatter_add_(0, chosen.flatten(), weights)


def _number(name: str) -> str:
    """Return the number of a layer, as its name tells it."""
    return next((part for part in name.split(".") if part.isdecimal()), name)


def _is_table(buffer: torch.Tensor) -> bool:
    """Whether a buffer of a router tells the experts of each token, which nothing evens."""
    return not buffer.is_floating_point()
