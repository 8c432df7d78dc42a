"""Two processes write a model by torch's own writer of distributed checkpoints in safetensors.

`python -m tests.jobs.formats.torch_writer SPEC`: the spec has the folder, the model, and along
which dimension tensors are split.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch.distributed as dist
from safetensors.torch import load_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from tests.jobs.qualification.forked_gang import fork_all

WORKERS = 2


def main(spec: dict[str, Any]) -> int:
    """Write in two processes; return how many failed."""
    return fork_all(WORKERS, lambda rank: _write(rank, **spec))


def _write(rank: int, folder: str, model: str, dim: int) -> int:
    store = f"file://{folder}-store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=WORKERS)
    mesh = init_device_mesh("cpu", (WORKERS,))
    tensors = {
        name: distribute_tensor(tensor, mesh, [Shard(min(dim, tensor.ndim - 1))])
        for name, tensor in load_file(Path(model, "model.safetensors")).items()
    }
    save(tensors, storage_writer=HuggingFaceStorageWriter(folder, save_distributed=True))
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
