"""What a gang saves, any other reads back: whatever its number of workers and its device."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.training import checkpoint
from jobs.training import model as models
from jobs.training.checkpoint import Snapshots, State, shares
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.parallel import restoring
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Checkpoint
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SMALL

CPU = torch.device("cpu")


class Tokenizer:
    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __len__(self) -> int:
        return 40


def make(seed: int, **changes: object) -> tuple[Any, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = models.build("llama", {**SMALL, **changes}, Tokenizer())
    return model, optimizer_for(model, OptimizerConfig(beta2=0.98), rate=1e-2, device=CPU)


def step(model: Any, optimizer: torch.optim.Optimizer) -> None:
    tokens = torch.arange(3, 33).reshape(3, 10)
    torch.autograd.backward(model(input_ids=tokens, labels=tokens).loss)
    optimizer.step()
    optimizer.zero_grad()


def save(folder: Path, trained: tuple[Any, torch.optim.Optimizer], size: int) -> Checkpoint:
    shards = []
    for rank in range(size):
        shard = folder / f"rank-{rank}"
        shard.mkdir(parents=True)
        Snapshots(*trained, rank=rank, size=size).take(State(step=5, seed=7))(shard)
        shards.append(shard)
    return Checkpoint(step=5, path=shards[0], shards=tuple(shards))


def restore(found: Checkpoint, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Put a state back, as one worker alone."""
    alone = ProcessGroup(LocalContext(folder=found.path))
    restoring.restore(found, model, optimizer, alone)


def state_of(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in checkpoint.state_tensors(model, optimizer)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("size", [1, 2, 3, 60])
def test_as_many_workers_as_there_are_save_all_of_it_bit_by_bit(tmp_path: Path, size: int) -> None:
    trained = make(1)
    step(*trained)
    found = save(tmp_path, trained, size)
    model = models.shape(found.path)
    optimizer = optimizer_for(model, OptimizerConfig(beta2=0.98), rate=1e-2, device=CPU)
    restore(found, model, optimizer)
    assert same(state_of(model, optimizer), state_of(*trained))
    assert checkpoint.read_state(found) == State(step=5, seed=7)
    step(*trained)
    step(model, optimizer)
    assert same(state_of(model, optimizer), state_of(*trained))


def test_each_writes_about_as_much_as_the_others_and_nothing_twice(tmp_path: Path) -> None:
    trained = make(1)
    step(*trained)
    found = save(tmp_path, trained, 3)
    loads = [load_file(shard / checkpoint.SHARD_NAME) for shard in found.shards]
    sizes = [sum(tensor.nbytes for tensor in load.values()) for load in loads]
    assert max(sizes) < 1.1 * min(sizes)
    assert sum(map(len, loads)) == len(set().union(*loads))


def test_with_nothing_to_share_some_write_nothing() -> None:
    assert shares({"a": torch.ones(2), "b": torch.ones(9)}, 3) == [["b"], ["a"], []]


def test_only_safetensors_and_json_are_written(tmp_path: Path) -> None:
    trained = make(1)
    step(*trained)
    save(tmp_path, trained, 2)
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))
    assert files == [
        "rank-0/config.json",
        "rank-0/generation_config.json",
        "rank-0/shard.safetensors",
        "rank-0/state.json",
        "rank-1/shard.safetensors",
    ]


def test_training_goes_on_without_changing_what_was_copied(tmp_path: Path) -> None:
    trained = make(1)
    step(*trained)
    before = state_of(*trained)
    write = Snapshots(*trained, rank=0, size=1).take(State())
    step(*trained)
    write(tmp_path)
    written = load_file(tmp_path / checkpoint.SHARD_NAME)
    assert same(written, before)
    assert not same(written, state_of(*trained))


def test_a_copy_is_used_again_once_it_is_written_and_not_before(tmp_path: Path) -> None:
    trained = make(1)
    step(*trained)
    snapshots = Snapshots(*trained, rank=0, size=1)
    first, second = snapshots.take(State()), snapshots.take(State())
    assert first.args[0] is not second.args[0]  # type: ignore[attr-defined]
    first(tmp_path)
    third = snapshots.take(State())
    assert third.args[0] is first.args[0]  # type: ignore[attr-defined]


def test_generation_settings_survive(tmp_path: Path) -> None:
    model, optimizer = make(1)
    model.generation_config.max_new_tokens = 17
    found = save(tmp_path, (model, optimizer), 1)
    assert models.shape(found.path).generation_config.max_new_tokens == 17  # type: ignore[union-attr]


def test_a_model_without_generation_settings_can_be_saved(tmp_path: Path) -> None:
    model, optimizer = make(1)
    model.generation_config = None
    found = save(tmp_path, (model, optimizer), 1)
    assert not (found.path / "generation_config.json").exists()
    assert models.shape(found.path)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    found = save(tmp_path, make(1), 1)
    with pytest.raises(ValueError, match=r"of step 5 is of another model: see 'model/.*layers\.1"):
        restore(found, *make(1, num_hidden_layers=2))
    with pytest.raises(ValueError, match=r"'model/model.*' has shape \(64, 32\), not \(48, 32\)"):
        restore(found, *make(1, intermediate_size=48))


class Net(torch.nn.Module):
    """A model with a buffer that is kept and one that is not."""

    generation_config = None

    def __init__(self, value: float) -> None:
        super().__init__()
        self.config = SimpleNamespace(save_pretrained=lambda _folder: None)
        self.weight = torch.nn.Parameter(torch.full((2,), value))
        self.register_buffer("mean", torch.full((3,), value))
        self.register_buffer("scratch", torch.full((4,), value), persistent=False)


def test_buffers_that_the_model_keeps_are_kept(tmp_path: Path) -> None:
    saved, read = Net(1.0), Net(2.0)
    found = save(tmp_path, (saved, torch.optim.SGD(saved.parameters())), 2)
    restore(found, read, torch.optim.SGD(read.parameters()))
    assert [*read.weight.tolist(), *read.mean.tolist()] == [1.0] * 5
    assert read.scratch.tolist() == [2.0] * 4
