"""The pipeline's own model, cut down to what shows whether a chip can do it.

Two layers at full width, of different kinds where the model has several, and at most 8 experts:
the shapes and types of its products stay, and it fits on a chip and into the memory of a host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig

from jobs.qualification.vocabulary import Vocabulary
from jobs.training import model as models

LAYERS, EXPERTS = 2, 8
# What configs call the number of experts, and how many of them a token goes to.
_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")


def fresh(architecture: str, fields: Mapping[str, object], seed: int) -> nn.Module:
    """Return the model that a pipeline trains, cut, with weights of `seed`."""
    torch.manual_seed(seed)
    return models.build(architecture, reduced(architecture, fields), Vocabulary())


@torch.no_grad()
def spread(model: nn.Module, seed: int) -> nn.Module:
    """Return the model with matrices so large that each layer has its say, drawn from `seed`.

    Fresh ones are so small that attention looks at all alike, whatever its queries are.
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
    return model


def reduced(architecture: str, fields: Mapping[str, object]) -> dict[str, object]:
    """Return `fields` of a config with two layers and few experts.

    Raises:
        ValueError: transformers knows no such architecture.
    """
    small = models.SMALL if architecture == "llama" else {}
    try:
        config = AutoConfig.for_model(architecture, **{**small, **fields})
    except ValueError as error:
        raise ValueError(f"architecture={architecture!r}: {error}") from error
    return {**fields, **_layers(config), **_experts(config)}


def _layers(config: Any) -> dict[str, object]:  # noqa: ANN401 - a config of transformers
    count = int(config.num_hidden_layers)
    if count <= LAYERS:
        return {}
    lists = {
        name: value
        for name, value in config.to_dict().items()
        if isinstance(value, list | tuple) and len(value) == count
    }
    kept = _kept([list(values) for values in lists.values()], count)
    cut: dict[str, object] = {name: [values[n] for n in kept] for name, values in lists.items()}
    cut["num_hidden_layers"] = LAYERS
    dense = getattr(config, "first_k_dense_replace", None)
    if dense is not None:  # one layer of each kind
        cut["first_k_dense_replace"] = min(int(dense), 1)
    numbers = getattr(config, "moe_layers", None)
    if isinstance(numbers, list):
        cut["moe_layers"] = [n for n in numbers if n < LAYERS] or ([1] if numbers else [])
    return cut


def _kept(kinds: list[list[object]], count: int) -> tuple[int, int]:
    """Return the first layer, and the one that has most in common with it not."""

    def unlike(number: int) -> int:
        return sum(values[number] != values[0] for values in kinds)

    return 0, max(range(1, count), key=lambda number: (unlike(number), -number))


def _experts(config: Any) -> dict[str, object]:  # noqa: ANN401 - a config of transformers
    name = next((name for name in _EXPERTS if getattr(config, name, None)), "")
    if not name or getattr(config, name) <= EXPERTS:
        return {}
    half = EXPERTS // 2  # of a group at least two, and each token leaves some out
    cut: dict[str, object] = {key: EXPERTS for key in _EXPERTS if hasattr(config, key)}
    for key in (*_CHOSEN, "n_group", "topk_group"):
        value = getattr(config, key, None)
        if isinstance(value, int):
            cut[key] = min(value, half)
    return cut
