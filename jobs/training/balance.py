"""Keeps the experts of a model at work: a router left to itself soon sends all tokens to a few.

Two ways, each where the model has what it needs:

- a loss (Switch Transformer, Fedus et al., 2021), times the `router_aux_loss_coef` of its config,
  or what its type calls that: that of each layer, and their mean. Over the tokens of all layers
  together, as transformers adds it, two layers that send all to two different experts count as
  even;
- a bias of each expert (`e_score_correction_bias`, ...) that only the choice sees, and that each
  step moves towards an even load (DeepSeek-V3, 2.1.2): `bias += rate * sign(mean - load)`.

Loads are counted over the gang, and padding counts for nothing. What experts get is told by what
they are called with, or else by the scores of their router.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from jobs.training.layer_passes import in_backward_pass
from jobs.training.process_group import ProcessGroup

_EXPERTS = "experts"
_BIASES = ("e_score_correction_bias", "expert_bias", "balancing_biases")
_COEFFICIENTS = ("router_aux_loss_coef", "aux_loss_coef", "ffn_config.moe_loss_weight")
_ROUTERS = frozenset({"gate", "router"})
_STACKED = 3  # dimensions of the weights of all experts of a layer


@dataclass(slots=True, eq=False)
class _ExpertLayer:
    """A layer of experts.

    Attributes:
        name: Its number.
        bias: The bias of its choice, [experts], where it has one; one more may be for no expert.
        load: Tokens that each expert got, [experts + 1]; the last are nobody's.
        top_k: Experts that a token goes to.
        by_scores: Whether the scores of the router alone tell which experts a token goes to.
        scored: Whether the scores of its router are known.
        scores: What the router gave in the last forward pass, [tokens, experts].
    """

    name: str
    bias: torch.Tensor | None
    load: torch.Tensor
    top_k: int = 1
    by_scores: bool = False
    scored: bool = False
    scores: torch.Tensor | None = None

    @property
    def experts(self) -> int:
        """How many experts it has."""
        return len(self.load) - 1

    @property
    def skips(self) -> bool:
        """Whether a token may go to no expert: the first then gets it, with a weight of zero."""
        return self.bias is not None and self.bias.numel() > self.experts


class Balance:
    """The layers of experts of a model in training; there may be none."""

    def __init__(self, model: nn.Module, group: ProcessGroup, *, rate: float) -> None:
        """Count the tokens of the experts of `model` from now on."""
        self._group = group
        self._rate = rate
        self._mask = torch.empty(0)  # of the tokens at work: true where one is no padding
        self._coefficient = _coefficient(model)
        self._layers = list(self._find(model))

    @property
    def has_loss(self) -> bool:
        """Whether an uneven load is a loss."""
        return self._coefficient > 0 and bool(self._layers)

    @property
    def uneven(self) -> list[str]:
        """The layers of experts whose load nothing evens, by number."""
        return [
            layer.name
            for layer in self._layers
            if layer.bias is None and not (self.has_loss and layer.scored)
        ]

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
            load_balancing_loss_func((layer.scores,), layer.experts, layer.top_k, self._mask)
            for layer in routed
        ]
        for layer in routed:
            layer.scores = None
        return self._coefficient * torch.stack(losses).mean()

    @torch.no_grad()
    def end(self, *, finite: bool) -> None:
        """Add up the loads of the gang; move the biases if the step was `finite`."""
        if not self._layers:
            return
        loads = self._group.sum(torch.cat([layer.load for layer in self._layers]))
        parts = torch.split(loads, [len(layer.load) for layer in self._layers])
        for layer, load in zip(self._layers, parts, strict=True):
            layer.load.copy_(load)
            if finite and layer.bias is not None:
                counts = load[:-1].float()
                moved = (counts.mean() - counts).sign()
                layer.bias.view(-1)[: layer.experts].add_(moved, alpha=self._rate)

    def figures(self) -> dict[str, float]:
        """Return the load of the busiest expert of each layer, as a multiple of the mean."""
        loads = {layer.name: layer.load[:-1].double() for layer in self._layers}
        imbalances = {
            name: float(load.max() / load.mean()) for name, load in loads.items() if load.any()
        }
        values = {f"router/load/{name}": imbalance for name, imbalance in imbalances.items()}
        return values | ({"router/load": max(imbalances.values())} if imbalances else {})

    def _find(self, model: nn.Module) -> Iterator[_ExpertLayer]:
        names: set[str] = set()
        for name, block in model.named_modules():
            count = _experts_of(block)
            if count is None:
                continue
            number = _number(name)
            number = f"{number}.{name.rpartition('.')[2]}" if number in names else number
            names.add(number)
            load = torch.zeros(count + 1, dtype=torch.int64, device=self._group.device)
            layer = _ExpertLayer(number, _bias_of(block, count), load)
            self._hook(layer, block)
            yield layer

    def _hook(self, layer: _ExpertLayer, block: nn.Module) -> None:
        """Look at what goes through the experts and the router of a block."""
        experts: Any = getattr(block, _EXPERTS, None)
        layer.by_scores = experts is None or len(inspect.signature(experts.forward).parameters) < 2  # noqa: PLR2004 - the tokens, and their experts
        if not layer.by_scores:
            experts.register_forward_pre_hook(partial(self._count, layer), with_kwargs=True)
        for router in _routers_of(block):
            layer.top_k = getattr(router, "top_k", layer.top_k)
            if not any(_is_table(buffer) for buffer in router.buffers()):
                router.register_forward_hook(partial(self._keep, layer))
                layer.scored = True

    def _keep(self, layer: _ExpertLayer, router: nn.Module, _: object, output: object) -> None:
        """Keep the scores of a router, count by them where nothing else tells.

        Where the router alone knows, its scores stand behind what it has made of them.
        """
        if not (router.training and (self.has_loss or layer.by_scores)) or in_backward_pass():
            return
        given = output if isinstance(output, tuple) else (output,)
        floats = [
            tensor
            for tensor in given
            if isinstance(tensor, torch.Tensor)
            and tensor.is_floating_point()
            and tensor.ndim > 1
            and tensor.shape[-1] == layer.experts
        ]
        if not floats:
            return
        scores = floats[-1 if layer.by_scores else 0]
        if layer.by_scores:
            self._add(layer, scores.detach().topk(layer.top_k, dim=-1).indices)
        if self.has_loss:
            layer.scores = scores

    @torch.no_grad()
    def _count(
        self,
        layer: _ExpertLayer,
        experts: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        """Count what is sent to the experts of a layer: [tokens, top_k] numbers of experts."""
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        chosen = next((tensor for tensor in tensors if not tensor.is_floating_point()), None)
        if chosen is None:
            return
        layer.top_k = chosen.shape[-1]
        if layer.skips:
            weight = next(tensor for tensor in tensors[::-1] if tensor.shape == chosen.shape)
            chosen = chosen.masked_fill(weight == 0, layer.experts)
        if experts.training and not in_backward_pass():
            self._add(layer, chosen)

    @torch.no_grad()
    def _add(self, layer: _ExpertLayer, chosen: torch.Tensor) -> None:
        """Add the tokens that are no padding to the loads of the experts `chosen`."""
        if self._mask.numel() * layer.top_k == chosen.numel():
            weights = self._mask.to(torch.int64).repeat_interleave(layer.top_k)
            layer.load.scatter_add_(0, chosen.flatten(), weights)


def _coefficient(model: nn.Module) -> float:
    """Return the weight of the loss of an uneven load, as the model's config has it."""
    config: Any = model.config
    for path in _COEFFICIENTS:
        value: Any = config.get_text_config()
        for name in path.split("."):
            value = getattr(value, name, None)
        if value:
            return float(value)
    return 0.0


def _routers_of(block: nn.Module) -> list[nn.Module]:
    return [part for key, part in block.named_children() if key in _ROUTERS]


def _experts_of(block: nn.Module) -> int | None:
    """Return how many experts the router of a block chooses from, `None` where it has none."""
    experts: Any = getattr(block, _EXPERTS, None)
    if experts is None:
        own = [getattr(router, "num_experts", None) for router in _routers_of(block)]
        return next((count for count in own if isinstance(count, int)), None)
    if not isinstance(experts, nn.Module) or _routers_of(experts):  # a block of its own
        return None
    stacked = (len(weight) for weight in experts.parameters() if weight.ndim == _STACKED)
    said = getattr(experts, "num_experts", None)
    return next(stacked, said if isinstance(said, int) else None)


def _bias_of(block: nn.Module, count: int) -> torch.Tensor | None:
    named = (*block.named_buffers(), *block.named_parameters())
    sizes = {count, count + 1}
    biases = (tensor for key, tensor in named if key.endswith(_BIASES) and tensor.numel() in sizes)
    return next(biases, None)


def _number(name: str) -> str:
    """Return the number of a layer, as its name tells it."""
    return next((part for part in name.split(".") if part.isdecimal()), name)


def _is_table(buffer: torch.Tensor) -> bool:
    """Whether a buffer of a router tells the experts of each token, which nothing evens."""
    return not buffer.is_floating_point()
