"""What a training run needs to go on as if nothing had happened. Safetensors and JSON, no pickle.

    config.json, model.safetensors    the model, as transformers writes it
    optimizer.safetensors             `PARAMETER/STATE` for every state of every parameter
    state.json                        step, position in the data, seed, last learning rate

Random numbers are drawn from a generator seeded anew in every step by (seed, step, rank), and the
learning rate is a function of the step: `step` and `seed` are their whole state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from jobs.training.model import save

OPTIMIZER_NAME = "optimizer.safetensors"
STATE_NAME = "state.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a training run stands. `position` counts the rows taken so far."""

    step: int = 0
    position: int = 0
    seed: int = 0
    rate: float = 0.0


def write(folder: Path, model: Any, optimizer: torch.optim.Optimizer, state: State) -> None:  # noqa: ANN401 - a transformers model
    """Fill a checkpoint folder."""
    save(model, folder)
    tensors = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in _named(model, optimizer)
        for key, value in optimizer.state[parameter].items()
    }
    save_file(tensors, folder / OPTIMIZER_NAME)
    text = json.dumps(asdict(state), indent=2, sort_keys=True)
    (folder / STATE_NAME).write_text(f"{text}\n", "utf-8")


def read_state(folder: Path) -> State:
    """Read where the training run stood."""
    return State(**json.loads((folder / STATE_NAME).read_text("utf-8")))


def read_optimizer(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put the state of every parameter back into the optimizer."""
    tensors = load_file(folder / OPTIMIZER_NAME)
    found: dict[int, dict[str, torch.Tensor]] = {}
    for index, (name, _) in enumerate(_named(model, optimizer)):
        prefix = f"{name}/"
        found[index] = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": found, "param_groups": groups})


def _named(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and parameter in the order in which the optimizer counts them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[parameter], parameter
