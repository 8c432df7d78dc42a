"""What a rank does together with the others. Alone, all of it is the identity."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from jobs.training.parallel.sharding import (
    REPLICATE,
    SHARD,
    TENSOR,
    experts_apart,
    hold_all_reduce,
)
from orchestrator.job import JobContext

_PIECE = 1 << 24  # bytes of a file that are sent at once


class ProcessGroup:
    """The workers of one attempt, seen from one of them.

    `mesh` says who holds which part of the model, where it is dealt out to them, `expert_mesh` who
    holds which experts, where those are dealt out otherwise.
    """

    def __init__(
        self,
        ctx: JobContext,
        mesh: DeviceMesh | None = None,
        expert_mesh: DeviceMesh | None = None,
    ) -> None:
        """See the workers of `ctx`; where there are several, torch has their group open."""
        self.rank = ctx.rank
        self.size = ctx.world_size
        self.device = torch.device(ctx.device)
        self.mesh = mesh
        self.expert_mesh = expert_mesh
        self._together = mesh[TENSOR].size() if mesh else 1  # workers that take the same rows

    @property
    def data_size(self) -> int:
        """How many parts a batch is taken in."""
        return self.size // self._together

    @property
    def data_rank(self) -> int:
        """Which of them this worker takes."""
        return self.rank // self._together

    def wrap(self, model: nn.Module, loss: Callable[[nn.Module], torch.Tensor]) -> nn.Module:
        """Return a model whose backward pass averages gradients over the group.

        Parameters that take no part in `loss`, that of any row, are looked for in every step: in
        another one they may. Where all take part, none is, which saves a walk over the graph.
        """
        if self.size == 1:
            return model
        torch.autograd.backward(loss(model))
        used = all(
            parameter.grad is not None
            for parameter in model.parameters()
            if parameter.requires_grad
        )
        model.zero_grad(set_to_none=True)
        used = used and not any(experts_apart(model))
        ids = None if self.device.type == "cpu" else [self.device]
        return DistributedDataParallel(
            model,
            device_ids=ids,
            find_unused_parameters=not self.all(torch.tensor(used)),
            forward_sync_buffers=False,
            gradient_as_bucket_view=True,
        )

    def without_sync(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context that holds the averaging back until the last micro-batch."""
        if self.mesh is not None:
            hold_all_reduce(model, last=last)
        if last or not isinstance(model, DistributedDataParallel):
            return nullcontext()
        return model.no_sync()

    def idle_passes(self, rows: int, most: int, mine: int) -> int:
        """Return how many passes this worker takes for nothing, because others take them.

        Args:
            rows: Rows of all workers.
            most: Passes that a worker takes at most, of a row each at the least.
            mine: Those that this worker takes.
        """
        if self.mesh is not None:  # the workers gather each layer together, in every pass
            return min(most, -(-rows // self.data_size)) - mine
        return 0 if mine else 1

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """Return this worker's part of the rows of a batch."""
        return rows.tensor_split(self.data_size)[self.data_rank]

    def parts(self, rows: torch.Tensor, most: int) -> list[torch.Tensor]:
        """Return this worker's part of the rows, at most so many at once; it may have none.

        Where the model is dealt out all have as many parts; some may be empty.
        """
        parts = [part for part in torch.split(self.share(rows), most) if len(part)]
        if self.mesh is not None:
            wanted = -(-len(rows) // self.data_size)
            parts += [rows[:0]] * (-(-wanted // most) - len(parts))
        return parts

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of `values` over the parts of a batch; every worker must call it."""
        if self.mesh is not None:
            for degree in (REPLICATE, SHARD):
                dist.all_reduce(values, group=self.mesh.get_group(degree))
        elif self.size > 1:
            dist.all_reduce(values)
        return values

    def totals(self, *values: float) -> tuple[float, ...]:
        """Return the sums of numbers over the parts of a batch; every worker must call it.

        They are added up on the host, in float64: a count is exact up to 2**53.
        """
        if self.size == 1:
            return values
        gathered: list[tuple[float, ...]] = [()] * self.size
        dist.all_gather_object(gathered, values)
        return tuple(map(sum, zip(*gathered[:: self._together], strict=True)))

    def all(self, true: torch.Tensor) -> bool:
        """Whether `true` (bool, one element) is so in all workers; every worker must call it.

        It goes by the backend of what holds `true`. What is asked in each step stays on the chip,
        which would wait for the host; all else is asked on the host.
        """
        if self.size == 1:
            return bool(true)
        worst = true.logical_not().to(torch.int32)
        dist.all_reduce(worst, op=dist.ReduceOp.MAX)
        return not worst.item()

    def gather(self, text: str) -> list[str]:
        """Return the texts of all workers by rank; every worker must call it."""
        if self.size == 1:
            return [text]
        texts: list[str] = [""] * self.size
        dist.all_gather_object(texts, text)  # on the host, where the group has a backend for it
        return texts

    def bring(self, rank: int, source: Path, target: Path) -> None:
        """Copy a file of worker `rank` to the first worker, over the group; both must call it.

        For files of a node that shares no file system with the first worker's.
        """
        if self.rank == rank:
            with source.open("rb", buffering=0) as stream:
                while piece := stream.read(_PIECE):
                    dist.send_object_list([piece], dst=0)
            dist.send_object_list([b""], dst=0)
        elif self.rank == 0:
            with target.open("wb", buffering=0) as stream:
                while piece := self._received(rank):
                    stream.write(piece)

    def _received(self, rank: int) -> bytes:
        room: list[bytes] = [b""]
        dist.recv_object_list(room, src=rank)
        return room[0]

    def agree(self, step: int) -> int:
        """Return `step`, or fail where the workers don't all say the same, on the host."""
        if self.size == 1:
            return step
        both = torch.tensor([step, -step], dtype=torch.int64)
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        newest, oldest = int(both[0]), -int(both[1])
        if newest != oldest:
            raise RuntimeError(
                f"the workers see checkpoints of different steps, {oldest!r} and {newest!r}: "
                f"put them on storage that all nodes share"
            )
        return step
