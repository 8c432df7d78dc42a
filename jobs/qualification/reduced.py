"""The pipeline's own model, cut down to what shows whether a chip can do it.

Two layers at full width, of different kinds where the model has several, and at most 8 experts:
the shapes and types of its products stay, and it fits on a chip and into the memory of a host.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from torch import nn
from transformers import AutoConfig

from jobs.qualification.vocabulary import Vocabulary
from jobs.training import config_fields
from jobs.training import model as models

LAYERS, EXPERTS = 2, 8
# What transformers raises of a config that it can't make a model of.
_FOREIGN = (
    *(AssertionError, AttributeError, ImportError, KeyError, NotImplementedError, TypeError),
    ValueError,
    StrictDataclassClassValidationError,
)
# What configs call the number of experts, and how many of them a token goes to.
_EXPERTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")


def fresh(architecture: str, fields: Mapping[str, object], seed: int) -> nn.Module:
    """Return the model that a pipeline trains, cut, with weights of `seed`.

    Raises:
        ValueError: transformers knows no such model, or none that is cut so.
    """
    torch.manual_seed(seed)
    cut = reduced(architecture, fields)
    try:
        return models.build(architecture, cut, Vocabulary())
    except _FOREIGN as error:
        raise _uncut(architecture, error) from error


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
    """Return `fields` of a config with two layers and few experts, of its text where it has parts.

    Raises:
        ValueError: transformers knows no such architecture, or its layers can't be cut.
    """
    small = models.SMALL if architecture == "llama" else {}
    try:
        default = AutoConfig.for_model(architecture)
    except ValueError as error:
        raise ValueError(f"architecture={architecture!r}: {error}") from error
    except _FOREIGN as error:
        raise _uncut(architecture, error) from error
    known = config_fields.described(architecture, default, fields)
    try:
        config = AutoConfig.for_model(architecture, **{**small, **known})
        text = config.get_text_config(decoder=True)
        cut = {**_layers(text), **_experts(text)}
    except _FOREIGN as error:
        raise _uncut(architecture, error) from error
    part = next((name for name in config.sub_configs if getattr(config, name) is text), None)
    return {**known, **cut} if part is None else {**known, part: {**text.to_dict(), **cut}}


def _uncut(architecture: str, error: Exception) -> ValueError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    return ValueError(
        f"a model of type {architecture!r} can't be cut to {LAYERS} layers to check a chip "
        f"({reason}); qualify without --model-of"
    )


def _layers(config: Any) -> dict[str, object]:  # noqa: ANN401 - a config of transformers
    count = int(config.num_hidden_layers)
    if count <= LAYERS:
        return {}
    fields: dict[str, Any] = config.to_dict()
    lists = {
        name: value
        for name, value in fields.items()
        if isinstance(value, list | tuple) and len(value) == count
    }
    kept = _kept([list(values) for values in lists.values()], count)
    cut: dict[str, object] = {name: [values[n] for n in kept] for name, values in lists.items()}
    cut["num_hidden_layers"] = LAYERS
    if own := fields.get("per_layer_config"):
        by_number = {int(number): value for number, value in own.items()}
        cut["per_layer_config"] = {n: by_number[k] for n, k in enumerate(kept) if k in by_number}
    dense = getattr(config, "first_k_dense_replace", None)
    if dense is not None:  # one layer of each kind
        cut["first_k_dense_replace"] = min(int(dense), 1)
    if getattr(config, "num_kv_shared_layers", None):
        cut["num_kv_shared_layers"] = 0  # each has keys and values of its own
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
