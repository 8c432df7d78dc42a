"""What ranks have written in parts is put together by whoever reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

from jobs.training import checkpoint
from jobs.training import model as models
from jobs.training.parallel.restoring import restore
from jobs.training.parallel.snapshots import FORMAT, OFFSETS
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Checkpoint, DataError
from tests.jobs.local_context import LocalContext
from tests.jobs.training.test_checkpoint import make, same, state_of, step

Trained = tuple[Any, torch.optim.Optimizer]


def _save(folder: Path, trained: Trained, workers: int) -> Checkpoint:
    """Save as so many workers that hold parts do."""
    state = state_of(*trained)
    for rank in range(workers):
        parts, begins = {}, {}
        for name, tensor in state.items():
            if not tensor.ndim and rank:
                continue
            length = -(-len(tensor) // workers) if tensor.ndim else 0
            part = tensor[rank * length : (rank + 1) * length] if tensor.ndim else tensor
            if part.numel():
                parts[name] = part.contiguous()
                begins[name] = {OFFSETS: [rank * length, *[0] * (tensor.ndim - 1)][: tensor.ndim]}
        (folder / f"rank-{rank}").mkdir(parents=True)
        file = folder / f"rank-{rank}" / checkpoint.SHARD_NAME
        save_file(parts, file, metadata={FORMAT: json.dumps(begins)})
    models.save_shape(trained[0], folder / "rank-0")
    shards = tuple(folder / f"rank-{rank}" for rank in range(workers))
    return Checkpoint(step=5, path=shards[0], shards=shards)


def _alone(folder: Path) -> ProcessGroup:
    return ProcessGroup(LocalContext(folder=folder))


@pytest.fixture
def trained() -> Trained:
    trained = make(1)
    step(*trained)
    return trained


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_one_worker_goes_on_from_the_parts_of_several_bit_by_bit(
    tmp_path: Path, trained: Trained, workers: int
) -> None:
    stored = _save(tmp_path, trained, workers)
    again = make(2)
    restore(stored, *again, _alone(tmp_path))
    assert same(state_of(*again), state_of(*trained))
    step(*trained)
    step(*again)
    assert same(state_of(*again), state_of(*trained))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torchs_own_reader_reads_the_parts(tmp_path: Path, trained: Trained) -> None:
    stored = _save(tmp_path, trained, 2)
    together = tmp_path / "together"
    together.mkdir()
    for rank, folder in enumerate(stored.shards):
        (together / f"{rank}.safetensors").symlink_to(folder / checkpoint.SHARD_NAME)
    read = {name: torch.zeros_like(tensor) for name, tensor in state_of(*trained).items()}
    load(read, storage_reader=HuggingFaceStorageReader(str(together)), no_dist=True)
    assert same(read, state_of(*trained))


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_part_that_is_missing_is_damage_and_never_zeros(
    tmp_path: Path, trained: Trained, lost: int
) -> None:
    stored = _save(tmp_path, trained, 3)
    (stored.shards[lost] / checkpoint.SHARD_NAME).unlink()
    with pytest.raises((DataError, ValueError), match=r"lacks a part of|has shape|see 'model"):
        restore(stored, *make(2), _alone(tmp_path))
