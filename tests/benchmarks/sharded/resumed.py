"""Two workers that go on from a checkpoint of both: `torchrun ... FOLDER`, by ours and by DCP.

The same state is saved by our job's snapshots and by `torch.distributed.checkpoint`, and read back
in turns; the quickest of each counts.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import LlamaConfig, LlamaForCausalLM

from jobs.training.checkpoint import State
from jobs.training.loss import TokenLoss
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.parallel.degrees import MeshDegrees
from jobs.training.parallel.restoring import restore
from jobs.training.parallel.sharding import device_mesh, shard
from jobs.training.parallel.snapshots import snapshots_of
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Checkpoint
from tests.benchmarks.sharded.sizes import SIZES, Resumed
from tests.jobs.local_context import LocalContext
from tests.jobs.training.parallel.gangs import RemoteShards

CPU, ROUNDS = torch.device("cpu"), 3


def main(name: str, place: str) -> None:
    """Save once by each, and read."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    folder, size = Path(place), dist.get_world_size()
    ctx = LocalContext(folder=folder, rank=dist.get_rank(), world_size=size)
    group = ProcessGroup(ctx, device_mesh(MeshDegrees(shard=size), CPU))
    net = LlamaForCausalLM(LlamaConfig(**SIZES[name].llama))
    loss = TokenLoss(net)
    shard(loss, group.mesh, bf16=False)
    optimizer = optimizer_for(net, OptimizerConfig(), rate=1e-3, device=CPU)
    tokens = torch.arange(64).reshape(2, 32)
    loss(tokens, tokens).backward()
    optimizer.step()
    ctx.save_checkpoint(1, snapshots_of(net, optimizer, group).take(State(step=1)))
    save(_state(net, optimizer), checkpoint_id=folder / "dcp")
    stored, brought = ctx.saved_checkpoint(1), dict[str, int]()

    def ours() -> None:
        shards = RemoteShards(stored.shards, brought)
        restore(Checkpoint(step=1, path=stored.path, shards=shards), net, optimizer, group)

    def by_hand() -> None:
        state = _state(net, optimizer)
        load(state, checkpoint_id=folder / "dcp")
        weights, moments = state["model"], state["optimizer"]
        set_state_dict(net, optimizer, model_state_dict=weights, optim_state_dict=moments)

    rounds = [(_seconds(ours), _seconds(by_hand)) for _ in range(ROUNDS)]
    least = [min(column) for column in zip(*rounds, strict=True)]
    files = [file for part in stored.shards for file in part.iterdir()]
    whole = sum(file.stat().st_size for file in files)
    Resumed(*least, brought=sum(brought.values()), checkpoint=whole).tell()
    dist.destroy_process_group()


def _state(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    weights, moments = get_state_dict(net, optimizer)
    return {"model": weights, "optimizer": moments}


def _seconds(read: Callable[[], None]) -> float:
    """Return for how long all workers read."""
    dist.barrier()
    began = perf_counter()
    read()
    dist.barrier()
    return perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
