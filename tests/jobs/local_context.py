"""A job context of this process alone, for tests; run as a script it is one worker of a gang."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.job import Changes, Checkpoint, Hardware

EMULATED = Hardware(
    pool="nvidia",
    accelerator="H800",
    vendor="nvidia",
    device="cpu",
    backend="gloo",
    formats=("bf16",),
    memory_gb=80.0,
    emulated=True,
)


@dataclass(kw_only=True)
class LocalContext:
    folder: Path
    inputs: Mapping[str, Path] = field(default_factory=dict)
    code: tuple[Path, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    seed: int = 7
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    adjust: Changes = field(default_factory=Changes)
    hardware: Hardware = EMULATED
    run: str = "run"
    stage: str = "stage"
    attempt: int = 1
    lines: list[str] = field(default_factory=list)
    points: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    reports: dict[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    done: tuple[int, int] = (0, 0)
    stop_after: int | None = None
    result: dict[str, float] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        path = self.folder / "output"
        path.mkdir(parents=True, exist_ok=True)
        return path

    @property
    def device(self) -> str:
        return self.hardware.device

    def meet(self) -> None:
        pass

    def busy(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    def stay(self) -> None:
        """End here in any case."""

    def log(self, message: str) -> None:
        self.lines.append(message)

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        self.points.append((step, dict(values)))

    def report(self, name: str, text: str) -> None:
        self.reports[name] = text

    def hashed(self, path: str, sha256: str) -> None:
        self.hashes[path] = sha256

    def progress(self, done: int, total: int) -> None:
        self.done = (done, total)
        if done == self.stop_after:
            raise InterruptedError(f"the worker was lost after {done}")

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        folder = self.folder / "checkpoints" / f"{step:08d}" / f"rank-{self.rank}"
        folder.mkdir(parents=True)
        write(folder)

    def saved_checkpoint(self, step: int) -> Checkpoint:
        if self.world_size > 1:  # a checkpoint is there when all have written their parts
            import torch

            torch.distributed.barrier()
        found = self.latest_checkpoint()
        assert found is not None
        assert found.step == step
        return found

    def latest_checkpoint(self) -> Checkpoint | None:
        found = sorted((self.folder / "checkpoints").glob("*"))
        if not found:
            return None
        shards = tuple(sorted(found[-1].iterdir()))
        return Checkpoint(step=int(found[-1].name), path=found[-1] / "rank-0", shards=shards)

    def series(self, name: str) -> list[float]:
        return [values[name] for _, values in self.points if name in values]


def main(spec: str) -> None:
    """Run the job of a JSON spec as one worker of a gang."""
    import torch

    told = json.loads(spec)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{told['store']}",
        rank=told["rank"],
        world_size=told["world_size"],
    )
    ctx = LocalContext(
        folder=Path(told["folder"]),
        inputs={name: Path(path) for name, path in told["inputs"].items()},
        rank=told["rank"],
        world_size=told["world_size"],
    )
    module, _, name = told["job"].rpartition(".")
    result = getattr(importlib.import_module(module), name)(ctx, **told["params"])
    if ctx.rank == 0:
        (ctx.folder / "result.json").write_text(json.dumps(dict(result)))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
