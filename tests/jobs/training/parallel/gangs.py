"""Gangs over gloo that train a model which is dealt out, forked after the imports.

`python -m tests.jobs.training.parallel.gangs SPEC`: the spec is a list of gangs, one after the
other, each with what `local_context.main` takes, and `workers`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import transformers.models.llama.modeling_llama
import transformers.models.qwen3_moe.modeling_qwen3_moe  # noqa: F401

from jobs.pretraining import pretrain
from jobs.training import model as models
from orchestrator.job import Checkpoint, Metrics
from tests.jobs import local_context
from tests.jobs.local_context import LocalContext
from tests.jobs.qualification.forked_gang import fork_all

BUILD = models.build


@dataclass
class RemoteShards(Sequence[Path]):
    """The parts of a checkpoint as in a store: what is taken out of here comes to this worker."""

    shards: Sequence[Path]
    brought: dict[str, int]  # bytes of those that came, by name

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self.shards)

    def __getitem__(self, index: Any) -> Any:
        """Bring a part."""
        part = self.shards[index]
        self.brought[part.name] = sum(file.stat().st_size for file in part.iterdir())
        return part


def trained(ctx: LocalContext, *, name: str, stop_after: int | None, **recipe: Any) -> Metrics:
    """Train, and write the loss of each step, and what was built; a gang may be lost after one."""
    ctx.stop_after = stop_after
    built: list[str] = []

    def build(architecture: str, *rest: Any) -> Any:
        built.append(architecture)
        return BUILD(architecture, *rest)

    models.build = build
    latest, brought = ctx.latest_checkpoint, dict[str, int]()

    def of_a_store() -> Checkpoint | None:
        found = latest()
        return found and replace(found, shards=RemoteShards(found.shards, brought))

    ctx.latest_checkpoint = of_a_store  # type: ignore[method-assign]
    try:
        return pretrain(ctx, **recipe)
    except InterruptedError:
        return {}
    finally:
        series = {"losses": ctx.series("train/loss"), "norms": ctx.series("train/grad_norm")}
        told = {**series, "built": built, "brought": brought}
        Path(ctx.folder, f"{name}-{ctx.rank}.json").write_text(json.dumps(told))


def main(gangs: str) -> int:
    """Run all gangs; return how many workers failed."""
    torch.set_num_threads(1)
    return sum(_run(number, gang) for number, gang in enumerate(json.loads(gangs)))


def _run(number: int, gang: dict[str, Any]) -> int:
    size = gang["workers"]
    Path(gang["folder"]).mkdir(exist_ok=True)
    spec = {**gang, "world_size": size, "store": f"{gang['folder']}-store-{number}"}
    spec["job"] = f"{trained.__module__}.{trained.__name__}"
    return fork_all(size, lambda rank: _work({**spec, "rank": rank}))


def _work(spec: dict[str, Any]) -> int:
    local_context.main(json.dumps(spec))
    return 0


trained.__module__ = "tests.jobs.training.parallel.gangs"  # where this is run as a script

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
