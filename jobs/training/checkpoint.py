"""What a training run needs to go on as if nothing had happened. Safetensors and JSON, no pickle.

    rank-0/config.json, ...     the model's configs, as transformers writes them
    rank-0/state.json           step, position in the data, seed, last learning rate, steps
                                skipped, kind of the optimizer
    rank-K/shard.safetensors    worker K's share of `model/NAME` and `optimizer/PARAMETER/STATE`

Every worker of a gang has the whole state, so each writes some of the tensors, and as many
workers as there are, on whatever device, read all of them back. Random numbers are drawn from a
generator seeded anew in every step by (seed, step, rank), and the learning rate is a function of
the step: `step` and `seed` are their whole state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from jobs.training import model as models
from orchestrator.job import Checkpoint

SHARD_NAME, SHARD_FILES = "shard.safetensors", "shard*.safetensors"
STATE_NAME = "state.json"
MODEL, OPTIMIZER = "model", "optimizer"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a training run stands.

    `position` counts the rows taken so far, `skipped` the steps that changed nothing; `optimizer`
    is the kind of what has moved the weights, empty where an earlier version has not noted it.
    """

    step: int = 0
    position: int = 0
    seed: int = 0
    rate: float = 0.0
    skipped: int = 0
    optimizer: str = ""


# --- saving -----------------------------------------------------------------------------------


class Snapshots:
    """Copies worker `rank`'s share of the state to host memory, to be written beside training.

    The memory of a copy is used again once it is written: touching new memory costs several
    times what the copy does. So this holds a share of the state, twice where writing lags.
    """

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a transformers model
        optimizer: torch.optim.Optimizer,
        *,
        rank: int,
        size: int,
    ) -> None:
        """Copy nothing yet."""
        self._model = model
        self._optimizer = optimizer
        self._rank = rank
        self._size = size
        self._free: list[Tensors] = []

    @torch.no_grad()
    def take(self, state: State) -> Callable[[Path], None]:
        """Copy the share now; return what writes the copy into a folder."""
        mine = self._share()
        copy = self._free.pop() if self._free else {}
        for name in copy.keys() - mine.keys():  # another's since the optimizer got its state
            del copy[name]
        for name, tensor in mine.items():
            if name not in copy:
                copy[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            copy[name].copy_(tensor)
        return partial(self._write, copy, state)

    @torch.no_grad()
    def finite(self) -> bool:
        """Whether all numbers of the share are numbers; what is not would poison who goes on."""
        largest: dict[torch.device, list[torch.Tensor]] = {}
        for tensor in self._share().values():
            if tensor.is_floating_point() and tensor.numel():
                norm = torch.linalg.vector_norm(tensor, float("inf"), dtype=torch.float32)
                largest.setdefault(tensor.device, []).append(norm)
        return all(bool(torch.stack(norms).isfinite().all()) for norms in largest.values())

    def _share(self) -> Tensors:
        whole = dict(state_tensors(self._model, self._optimizer))
        return {name: whole[name] for name in shares(whole, self._size)[self._rank]}

    def _save(self, copy: Tensors, folder: Path) -> None:
        save_file(copy, folder / SHARD_NAME)

    def _write(self, copy: Tensors, state: State, folder: Path) -> None:
        if copy:
            self._save(copy, folder)
        if self._rank == 0:
            models.save_shape(self._model, folder)
            text = json.dumps(asdict(state), indent=2, sort_keys=True)
            (folder / STATE_NAME).write_text(f"{text}\n", "utf-8")
        self._free.append(copy)


def shares(tensors: Mapping[str, torch.Tensor], size: int) -> list[list[str]]:
    """Return which worker of `size` writes which tensors: about as many bytes each."""
    assignment: list[list[str]] = [[] for _ in range(size)]
    loads = [0] * size
    for name in sorted(tensors, key=lambda name: (-tensors[name].nbytes, name)):
        least = loads.index(min(loads))
        assignment[least].append(name)
        loads[least] += tensors[name].nbytes
    return assignment


# --- going on ---------------------------------------------------------------------------------


def read_state(checkpoint: Checkpoint) -> State:
    """Read where the training run stood."""
    return State(**json.loads((checkpoint.path / STATE_NAME).read_text("utf-8")))


def shape(checkpoint: Checkpoint, names: Iterable[str]) -> nn.Module:
    """Make the model that the checkpoint is of, tied as that was; its weights are fresh.

    `names` are those of the tensors of the checkpoint.
    """
    weights = {name.removeprefix(f"{MODEL}/") for name in names if name.startswith(f"{MODEL}/")}
    return models.shape(checkpoint.path, weights)


def check_same(
    step: int, parts: Mapping[str, torch.Tensor], saved: Mapping[str, torch.Size]
) -> None:
    """Check that the tensors of a model are those of a checkpoint. Raises `ValueError`."""
    for name in sorted(parts.keys() ^ saved.keys()):
        raise ValueError(f"checkpoint of step {step} is of another model: see {name!r}")
    for name, tensor in parts.items():
        if tensor.shape != saved[name]:
            shapes = f"{tuple(saved[name])}, not {tuple(tensor.shape)}"
            raise ValueError(f"checkpoint of step {step}: {name!r} has shape {shapes}")


# --- what there is ----------------------------------------------------------------------------


def state_tensors(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield all of a state: what the model has, and what the optimizer keeps."""
    yield from model_tensors(model)
    for name, parameter in named(model, optimizer):
        for key, value in optimizer.state[parameter].items():
            yield f"{OPTIMIZER}/{name}/{key}", value


def model_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield parameters and kept buffers; what is tied comes once."""
    for name, parameter in model.named_parameters():
        yield f"{MODEL}/{name}", parameter.detach()
    kept = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in kept:
            yield f"{MODEL}/{name}", buffer


def named(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and parameter in the order in which the optimizer counts them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[parameter], parameter
