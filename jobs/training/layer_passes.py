"""How layers are computed: once more in the backward pass, or compiled. Their names stay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from jobs.training.parallel.sharding import layers


def checkpoint_activations(model: Any) -> None:  # noqa: ANN401 - a transformers model
    """Have each layer keep its input alone for the backward pass, and be computed once more there.

    Raises:
        ValueError: The layers of the model can't.
    """
    if not model.supports_gradient_checkpointing:
        raise ValueError(
            f"activation_checkpointing: the layers of a {model.config.model_type} can't be "
            f"computed once more"
        )
    model.activation_checkpointing_enable({"use_reentrant": False})


def compile_layers(model: nn.Module, backend: str) -> None:
    """Compile each layer for itself: equal ones are compiled once.

    Raises:
        ValueError: There is no such backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ValueError(f"compile={backend!r} is none of torch's backends: {', '.join(known)}")
    for _, layer in layers(model):
        layer.compile(backend=backend)


def in_backward_pass() -> bool:
    """Whether a layer is computed once more, for the backward pass."""
    return torch._C._current_graph_task_id() != -1  # noqa: SLF001 - no public name for it
