"""A job's context without an attempt behind it: the yardsticks train the same job with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.job import Changes, Checkpoint, Hardware
from tests.jobs.local_context import EMULATED

HARDWARE = replace(EMULATED, pool="bare", accelerator="CPU", vendor="any", memory_gb=None)


@dataclass(kw_only=True)
class BareContext:
    """Keeps nothing but the times at which metrics were told."""

    inputs: Mapping[str, Path]
    output: Path
    rank: int = 0
    world_size: int = 1
    adjust: Changes = field(default_factory=Changes)
    seed: int = 0
    hardware: Hardware = HARDWARE
    run: str = "bare"
    stage: str = "bare"
    attempt: int = 1
    told: list[float] = field(default_factory=list)

    @property
    def device(self) -> str:
        return self.hardware.device

    def busy(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    def log(self, message: str) -> None:
        pass

    def metrics(self, values: Mapping[str, float], *, step: int) -> None:
        self.told.append(time.time())  # noqa: TID251 - compared with the clock of a driver

    def progress(self, done: int, total: int) -> None:
        pass

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        raise NotImplementedError

    def latest_checkpoint(self) -> Checkpoint | None:
        return None

    def saved_checkpoint(self, step: int) -> Checkpoint:
        raise NotImplementedError
