"""What moves the weights, by a small config: `{kind: adamw}`, or `{kind: muon}`.

Muon (torch's own) moves the matrices within the layers; AdamW moves all else: embeddings, the
head, vectors, those of experts that are stacked as well, and experts that are stacked in one
tensor. Muon's steps are scaled to the size of AdamW's, so that one learning rate serves both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from jobs.training.tagged_config import fields_of, number

_ADAMW = ("beta1", "beta2", "epsilon", "weight_decay")
KINDS: Mapping[str, tuple[str, ...]] = {"adamw": _ADAMW, "muon": (*_ADAMW, "momentum")}
_MATRIX = 2  # dimensions
_STACKED_VECTORS = ("bias", "A_log")  # how names of such end, whatever their dimensions
DEALT_OUT = (
    "optimizer.kind='muon' moves whole matrices: with parallel take 'adamw', or leave parallel out"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Which optimizer, and its fields.

    Attributes:
        kind: `adamw` or `muon`.
        beta1: Of AdamW.
        beta2: Of AdamW.
        epsilon: Of AdamW.
        weight_decay: Of matrices; vectors have none.
        momentum: Of Muon.
    """

    kind: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    momentum: float = 0.95


def optimizer_of(config: Mapping[str, object] | None, **defaults: float) -> OptimizerConfig:
    """Return the optimizer that a config says; what it leaves out is as in `defaults`.

    Raises:
        ValueError: It has no such kind or field, or a value that is none.
    """
    kind, values = fields_of("optimizer", config or {}, KINDS)
    limits = dict.fromkeys(KINDS["muon"], 1.0)
    read = {key: number(f"optimizer.{key}", v, most=limits[key]) for key, v in values.items()}
    return OptimizerConfig(kind=kind, **{**defaults, **read})


def optimizer_for(
    model: nn.Module, config: OptimizerConfig, *, rate: float, device: torch.device
) -> torch.optim.Optimizer:
    """Make the optimizer of the weights that gradients move; matrices decay, vectors don't.

    Raises:
        ValueError: Muon can't move the model.
    """
    if config.kind == "muon":
        return MuonWithAdamW(model, config, rate=rate, device=device)
    trained = _trained(model)
    matrices = [parameter for parameter in trained if parameter.ndim > 1]
    vectors = [parameter for parameter in trained if parameter.ndim <= 1]
    return _adamw(_groups(matrices, vectors, config), config, rate=rate, device=device)


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the matrices within the layers of a model, AdamW for all else, as one optimizer.

    Both keep their state here, by parameter, so that it is saved and restored as any other.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a transformers model
        config: OptimizerConfig,
        *,
        rate: float,
        device: torch.device,
    ) -> None:
        """Share out the parameters of `model`."""
        inside = muon_matrices(model)
        own = {*inside}
        others = [p for p in _trained(model) if p not in own]
        if not inside:
            raise ValueError("optimizer.kind='muon': the model has no matrix in its layers")
        if any(isinstance(weight, DTensor) for weight in inside):
            raise ValueError(DEALT_OUT)
        matrices = [p for p in others if p.ndim > 1]
        vectors = [p for p in others if p.ndim <= 1]
        self._muon = torch.optim.Muon(
            inside,
            lr=rate,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        groups = _groups(matrices, vectors, config)
        self._adamw = _adamw(groups, config, rate=rate, device=device)
        super().__init__([{"params": inside}, *groups], {"lr": rate})
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step of both; there is no `closure`."""
        assert closure is None  # noqa: S101 - nobody here has one
        parts = ((self._muon, self.param_groups[:1]), (self._adamw, self.param_groups[1:]))
        for optimizer, groups in parts:  # what is loaded takes the place of both
            optimizer.param_groups = groups
            optimizer.state = self.state
            optimizer.step()


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def muon_matrices(model: Any) -> list[nn.Parameter]:  # noqa: ANN401 - as above
    """Return what Muon moves: matrices, but for embeddings, head and stacked vectors."""
    outside = set(_embeddings_and_head(model))
    outside |= {p for name, p in model.named_parameters() if name.endswith(_STACKED_VECTORS)}
    return [p for p in _trained(model) if p.ndim == _MATRIX and p not in outside]


def _embeddings_and_head(model: Any) -> Iterator[nn.Parameter]:  # noqa: ANN401 - as above
    parts = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    for part in (*parts, model.get_output_embeddings()):
        if part is not None:
            yield from part.parameters()


def _groups(
    matrices: list[nn.Parameter], vectors: list[nn.Parameter], config: OptimizerConfig
) -> list[dict[str, Any]]:
    return [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _adamw(
    groups: list[dict[str, Any]], config: OptimizerConfig, *, rate: float, device: torch.device
) -> torch.optim.Optimizer:
    weights = [weight for group in groups for weight in group["params"]]
    # where there is no fused kernel, torch takes several tensors at once if it may choose
    fused = True if device.type in {"cpu", "cuda"} else None
    betas = (config.beta1, config.beta2)
    meshes = {weight.device_mesh for weight in weights if isinstance(weight, DTensor)}
    if len(meshes) > 1:  # nor are weights on several meshes taken at once
        return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=config.epsilon, foreach=False)
    return torch.optim.AdamW(groups, lr=rate, betas=betas, eps=config.epsilon, fused=fused)
