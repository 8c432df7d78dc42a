"""A model of 7 billion parameters on the mesh of eight ranks, of which this process is each once.

Torch's fake process group stands in for the others, the meta device for the memory: what each rank
would hold is what is forecast, and nothing is allocated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from jobs.training import model as models
from jobs.training.loss import TokenLoss
from jobs.training.parallel.degrees import MeshDegrees
from jobs.training.parallel.forecast import memory_of
from jobs.training.parallel.sharding import device_mesh, expert_mesh
from jobs.training.parallel.starting import deal_out
from jobs.training.process_group import ProcessGroup
from tests.jobs.local_context import EMULATED, LocalContext
from tests.jobs.training.parallel.test_forecast import RECIPE, SEVEN_BILLION

RANKS = 8
EXPERTS = {"num_experts": 64, "num_experts_per_tok": 8, "num_hidden_layers": 16}
CPU = torch.device("cpu")
OF_EACH_WEIGHT = 16  # bytes: float32 of itself, its gradient and both moments


@contextmanager
def _as_rank(rank: int) -> Iterator[LocalContext]:
    """Be one of the eight ranks, whose tensors go to no memory."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=RANKS)
    try:
        nowhere = replace(EMULATED, device="meta")
        yield LocalContext(folder=Path(), rank=rank, world_size=RANKS, hardware=nowhere)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("rank", [0, 7])
@pytest.mark.parametrize(
    ("degrees", "architecture", "fields"),
    [
        (MeshDegrees(shard=8), "llama", SEVEN_BILLION),
        (MeshDegrees(shard=4, tensor=2), "llama", SEVEN_BILLION),
        (MeshDegrees(replicate=2, shard=4), "llama", SEVEN_BILLION),
        (MeshDegrees(shard=2, expert=4), "qwen3_moe", EXPERTS),
    ],
    ids=["shard", "shard and tensor", "replicas", "experts"],
)
def test_a_rank_holds_what_is_forecast_and_nothing_is_allocated(
    degrees: MeshDegrees, architecture: str, fields: dict[str, Any], rank: int
) -> None:
    model = models.outline(architecture, fields)
    expected, whole = memory_of(model, degrees, RECIPE), models.parameters(model)
    with _as_rank(rank) as ctx:
        group = ProcessGroup(ctx, device_mesh(degrees, CPU), expert_mesh(degrees, CPU))
        deal_out(TokenLoss(model, bf16=True), None, group, come=True)
        weights = list(model.parameters())
        assert all(isinstance(weight, DTensor) for weight in weights)
        assert {tensor.device.type for tensor in (*weights, *model.buffers())} == {"meta"}
        held = sum(weight.to_local().numel() for weight in weights)  # type: ignore[attr-defined]
    assert models.parameters(model) == whole > 5e9
    assert held * OF_EACH_WEIGHT == expected.state
