"""A script as one writes it for accelerate's FSDP2: `torchrun ... SIZE SHARD [CHECKPOINTS]`.

With a folder for checkpoints it saves some at its end, by `torch.distributed.checkpoint`.
"""

from __future__ import annotations

import os
import sys
from statistics import median
from time import perf_counter

import numpy as np
import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin, PartialState
from accelerate.utils import DistributedType
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import async_save
from transformers import LlamaConfig, LlamaForCausalLM

from tests.benchmarks.sharded.sizes import (
    BETA2,
    CLIP,
    DECAY,
    RATE,
    SAVES,
    SIZES,
    Measured,
    Steps,
    peak_bytes,
)


def main(name: str, shard: str, folder: str = "") -> None:
    """Train all steps."""
    size = SIZES[name]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    accelerator = _accelerator()
    model = LlamaForCausalLM(LlamaConfig(**size.llama))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=(0.9, BETA2), weight_decay=DECAY, fused=True
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    stream = np.memmap(f"{shard}.bin", dtype="<u2", mode="r")
    chosen = np.random.default_rng(int(os.environ["RANK"]))  # noqa: TID251 - torchrun's variable
    steps = Steps(size)
    for step in range(1, size.steps + 1):
        begins = chosen.integers(0, len(stream) - size.sequence - 1, size.rows)
        rows = np.stack([stream[b : b + size.sequence + 1] for b in begins]).astype(np.int64)
        tokens = torch.from_numpy(rows)
        loss = torch.nn.functional.cross_entropy(
            model(input_ids=tokens[:, :-1], use_cache=False).logits.flatten(0, 1),
            tokens[:, 1:].flatten(),
        )
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step} loss {loss.item():.4f}", flush=True)
        steps.done()
    if folder:
        Measured(0.0, peak_bytes(), _stall(model, optimizer.optimizer, folder)).tell()
    torch.distributed.destroy_process_group()


def _stall(model: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: str) -> float:
    """Save some checkpoints beside nothing; return for how long a call holds up its caller."""
    stalls = []
    for number in range(SAVES):
        began = perf_counter()
        weights, moments = get_state_dict(model, optimizer)
        state = {"model": weights, "optimizer": moments}
        saving = async_save(state, checkpoint_id=f"{folder}/{number}")
        stalls.append(perf_counter() - began)
        saving.result()
    return median(stalls[1:])  # the first allocates


def _accelerator() -> Accelerator:
    """Return one with FSDP2, which accelerate has for accelerators alone: a CPU plays one."""
    PartialState(cpu=True)
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        reshard_after_forward=True,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["LlamaDecoderLayer"],
    )
    return Accelerator(cpu=True, fsdp_plugin=plugin)


if __name__ == "__main__":
    main(*sys.argv[1:])
