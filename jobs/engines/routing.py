"""Which experts a mixture of experts sends each token to, as its modules are called.

transformers calls the experts of a layer with the hidden states, the chosen experts and their
weights. A model whose experts are called otherwise tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_SUFFIX = "Experts"


def has_experts(model: Any) -> bool:  # noqa: ANN401 - a transformers model
    """Return whether a model sends its tokens to experts."""
    return any(type(part).__name__.endswith(_SUFFIX) for part in model.modules())


@contextmanager
def recorded(model: Any) -> Iterator[list[Tensor]]:  # noqa: ANN401 - a transformers model
    """Yield a list that takes the chosen experts (tokens, k) of each layer, in calling order."""
    module: nn.Module = model
    choices: list[Tensor] = []

    def note(_: nn.Module, args: tuple[Any, ...]) -> None:
        chosen = args[1] if len(args) > 1 else None
        if isinstance(chosen, Tensor) and not chosen.is_floating_point():
            choices.append(chosen.detach().to("cpu", torch.int32).reshape(-1, chosen.shape[-1]))

    hooks = [
        part.register_forward_pre_hook(note)
        for part in module.modules()
        if type(part).__name__.endswith(_SUFFIX)
    ]
    try:
        yield choices
    finally:
        for hook in hooks:
            hook.remove()


def by_token(choices: list[Tensor], rows: int) -> Tensor | None:
    """Return the experts (rows, tokens, layers, k) of a pass; `None` where none were told.

    Layers that choose fewer experts than others are filled up with -1.
    """
    if not choices:
        return None
    most = max(layer.shape[-1] for layer in choices)
    filled = [nn.functional.pad(layer, (0, most - layer.shape[-1]), value=-1) for layer in choices]
    stacked = torch.stack(filled, 1)
    return stacked.reshape(rows, -1, *stacked.shape[1:])
