"""How long training stands still for a checkpoint, against saving the same state in its way.

The state is a model of 6 million parameters with its AdamW, 72 MB. Ours is the copy to host
memory and the call that begins the save; theirs is the same save, waited for: written, hashed,
flushed and committed. Both in turns, on the same disk; the median counts. How much slower a step
is while a save goes on beside it is told too: on two cores it shares them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from types import SimpleNamespace
from typing import Any

from orchestrator import wiring
from orchestrator.worker.checkpoints import Checkpoints
from orchestrator.worker.message_queue import MessageQueue
from orchestrator.worker.rank_membership import RankMembership
from orchestrator.worker.runtime import AttemptRuntime
from tests.benchmarks.table import Row, compare
from tests.build import attempt_request

ROUNDS = 8
WIDTH, LAYERS, BATCH = 1000, 6, 256


def rows() -> list[Row]:
    """Save in turns, beside training and in its way."""
    with TemporaryDirectory(prefix="bench-") as folder:
        training = _Training(Path(folder))
        training.step()
        training.stall(beside=True)  # the first copy touches new memory, once
        rounds = [
            (training.stall(beside=True), training.stall(beside=False)) for _ in range(ROUNDS)
        ]
        ours, theirs = (median(column) for column in zip(*rounds, strict=True))
        busy, alone = training.steps()
    return [
        compare(
            "checkpoint stall of training, against a synchronous save of the same state",
            ours,
            theirs,
            goal="ratio <= 0.1",
        ),
        compare("a training step while a checkpoint is written, against alone", busy, alone),
    ]


@dataclass
class _Training:
    """A model in training, and its checkpoints under `folder`."""

    folder: Path
    number: int = 0
    model: Any = field(init=False)
    optimizer: Any = field(init=False)
    snapshots: Any = field(init=False)
    checkpoints: Checkpoints = field(init=False)

    def __post_init__(self) -> None:
        import torch

        from jobs.training.checkpoint import Snapshots

        torch.set_num_threads(1)
        self.model = torch.nn.Sequential(
            *(torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS))
        )
        nothing = SimpleNamespace(save_pretrained=lambda _folder: None)
        self.model.config = self.model.generation_config = nothing
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.snapshots = Snapshots(self.model, self.optimizer, rank=0, size=1)
        self.checkpoints = Checkpoints(_member(self.folder.as_uri()))

    def step(self) -> float:
        """Take a step; return its seconds."""
        import torch

        began = perf_counter()
        torch.autograd.backward(self.model(torch.ones(BATCH, WIDTH)).square().mean())
        self.optimizer.step()
        self.optimizer.zero_grad()
        return perf_counter() - began

    def stall(self, *, beside: bool) -> float:
        """Save; return for how many seconds training can't go on. Ends with the save done."""
        from jobs.training.checkpoint import State

        self.step()
        self.number += 1
        began = perf_counter()
        write: Callable[[Path], None] = self.snapshots.take(State(step=self.number))
        self.checkpoints.save(self.number, write)
        if not beside:
            self.checkpoints.finish()
        stalled = perf_counter() - began
        self.checkpoints.finish()
        return stalled

    def steps(self) -> tuple[float, float]:
        """Return the median seconds of steps while saves go on, and of steps alone."""
        from jobs.training.checkpoint import State

        alone = [self.step() for _ in range(20)]
        busy: list[float] = []
        for _ in range(ROUNDS):
            self.number += 1
            self.checkpoints.save(self.number, self.snapshots.take(State(step=self.number)))
            busy += [self.step() for _ in range(5)]
            self.checkpoints.finish()
        return median(busy), median(alone)


def _member(storage: str) -> RankMembership:
    request = attempt_request(run="bench", storage=storage)
    runtime = AttemptRuntime(
        wiring.artifact_store(storage), wiring.clock(), MessageQueue(), threading.Event()
    )
    return RankMembership(
        request=request, rank=0, world_size=1, meta={"epoch": "1", "attempt": "1"}, runtime=runtime
    )
