"""Gangs over gloo that deal a model out, and write it in small pieces and in large ones.

`python -m tests.jobs.training.parallel.exports SPEC`: the spec is a list of gangs, one after the
other, each with what `local_context.main` takes, and `workers`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from jobs.training import model as models
from jobs.training.loss import TokenLoss
from jobs.training.parallel.degrees import parallel_of
from jobs.training.parallel.saving import save_dealt
from jobs.training.parallel.sharding import device_mesh, expert_mesh
from jobs.training.parallel.starting import deal_out, outlined
from jobs.training.parallel.weight_by_weight import ModelByWeights
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Metrics
from tests.jobs import local_context
from tests.jobs.local_context import LocalContext
from tests.jobs.qualification.forked_gang import fork_all

CPU = torch.device("cpu")
EVERYTHING = 2**40


def export(
    ctx: LocalContext,
    *,
    parallel: dict[str, int],
    architecture: str,
    model: Any,
    most: int,
    fresh: bool,
) -> Metrics:
    """Write the model in pieces of `most` bytes and whole, and beside them as one worker does.

    It is made weight by weight where it is `fresh`, else at once.
    """
    degrees = parallel_of(parallel, ctx.world_size)
    group = ProcessGroup(ctx, device_mesh(degrees, CPU), expert_mesh(degrees, CPU))
    torch.manual_seed(3)
    net, source = outlined(lambda: build(architecture, model), group, fresh=fresh)
    assert isinstance(source, ModelByWeights) is (fresh and not ctx.rank)
    deal_out(TokenLoss(net), source, group, come=False)
    largest = {}
    for name, bound in (("pieces", most), ("whole", EVERYTHING)):
        gathered = recorded_gathers()
        save_dealt(net, LocalContext(folder=ctx.folder / name, rank=ctx.rank), most=bound)
        largest[name] = float(max(gathered))
    if ctx.rank == 0:
        torch.manual_seed(3)
        models.save(build(architecture, model), ctx.folder / "alone")
    return largest


def build(architecture: str, fields: Mapping[str, object]) -> nn.Module:
    """Make a model for a vocabulary of 40."""
    return models.build(architecture, fields, Tokenizer())


class Tokenizer(SimpleNamespace):
    """All that a model is fitted to."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __len__(self) -> int:
        """Return the size of the vocabulary."""
        return 40


ALL_GATHER = dist.all_gather


def recorded_gathers() -> list[int]:
    """Return a list to which the bytes of what each later collective gathers are added."""
    sizes: list[int] = []

    def gather(parts: list[torch.Tensor], *args: Any, **more: Any) -> Any:
        sizes.append(sum(part.nbytes for part in parts))
        return ALL_GATHER(parts, *args, **more)

    dist.all_gather = gather
    return sizes


def main(gangs: str) -> int:
    """Run all gangs; return how many workers failed."""
    torch.set_num_threads(1)
    return sum(_run(gang) for gang in json.loads(gangs))


def _run(gang: dict[str, Any]) -> int:
    Path(gang["folder"]).mkdir(exist_ok=True)
    spec = {**gang, "world_size": gang["workers"], "store": f"{gang['folder']}-store"}
    spec["job"] = "tests.jobs.training.parallel.exports.export"
    return fork_all(gang["workers"], lambda rank: _work({**spec, "rank": rank}))


def _work(spec: dict[str, Any]) -> int:
    local_context.main(json.dumps(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
