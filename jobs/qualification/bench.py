"""What every check works with, and how it says what it found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from jobs.training.process_group import ProcessGroup
from orchestrator.job import JobContext

PASSED, SKIPPED, LIMITED, FAILED = "passed", "skipped", "limited", "failed"
TRAIN, SERVE = "train", "serve"
BOTH = (TRAIN, SERVE)
_SIGN_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one worker found.

    Attributes:
        check: Which check.
        subject: What it looked at.
        status: `passed`, `skipped`, `limited` or `failed`.
        figure: What was measured, where something was.
        unit: Its unit; of seconds less is better, of all else more.
        note: What is wrong, or worth knowing.
        roles: The roles that the check matters to.
        rank: The worker.
        spread: How many times better than the worst worker the best one may be.
    """

    check: str
    subject: str
    status: str = PASSED
    figure: float | None = None
    unit: str = ""
    note: str = ""
    roles: tuple[str, ...] = BOTH
    rank: int = 0
    spread: float | None = None


@dataclass(slots=True)
class Bench:
    """One worker's place of work. `quick` is for a check in seconds."""

    ctx: JobContext
    quick: bool = False
    findings: list[Finding] = field(default_factory=list)
    steps: int = 0
    group: ProcessGroup = field(init=False)
    _last_sign: float = 0.0

    def __post_init__(self) -> None:
        """Take the place among the others."""
        self.group = ProcessGroup(self.ctx)

    @property
    def device(self) -> torch.device:
        """The first device of this worker."""
        return self.group.device

    @property
    def real(self) -> bool:
        """Whether the device is a chip, and not the host in its place."""
        return not self.ctx.hardware.emulated and self.device.type != "cpu"

    def say(self, check: str, subject: str, status: str = PASSED, **facts: Any) -> None:  # noqa: ANN401 - the other fields of a finding
        """Note what was found, which is a sign of life."""
        self.findings.append(
            Finding(check=check, subject=subject, status=status, rank=self.ctx.rank, **facts)
        )
        self.alive()

    def step(self) -> None:
        """Leave a sign of life; an emulated chip may fail here, as it may in a training step."""
        self.steps += 1
        self.ctx.metrics({"qualification/step": float(self.steps)}, step=self.steps)

    def alive(self) -> None:
        """Leave a sign of life within a step, where the last one is some seconds ago."""
        if time.perf_counter() - self._last_sign > _SIGN_SECONDS:
            self._last_sign = time.perf_counter()
            self.ctx.metrics({"qualification/step": float(self.steps)}, step=self.steps)

    def finish(self, device: torch.device | None = None) -> None:
        """Wait until the device has done what it was asked."""
        at = device or self.device
        if at.type != "cpu":
            torch.get_device_module(at.type).synchronize(at)

    def seconds(
        self, act: Callable[[], object], *, repeats: int, device: torch.device | None = None
    ) -> float:
        """Return how long `act` takes: the median of `repeats`, after one that does not count."""
        act()
        taken = []
        for _ in range(repeats):
            self.alive()
            self.finish(device)
            began = time.perf_counter()
            act()
            self.finish(device)
            taken.append(time.perf_counter() - began)
        return max(median(taken), 1e-9)


def ask(device: torch.device, function: str, *args: object) -> Any:  # noqa: ANN401 - makers' own
    """Return what the module of a device (`torch.npu`) says; `None` where it lacks that."""
    if device.type == "cpu":
        return None
    method = getattr(torch.get_device_module(device.type), function, None)
    try:
        return method(*args) if method is not None else None
    except NotImplementedError:
        return None


def one_line(error: BaseException) -> str:
    """Return what an error says, on one line of bearable length."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
