"""What a worker of an attempt works with, and the two ways in which its job is told to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestrator.ports import ArtifactStore, Clock
from orchestrator.worker.message_queue import MessageQueue
from orchestrator.worker.watchdog import Heartbeat

TrackedRun: TypeAlias = Callable[[], tuple[Mapping[str, str], str]]  # variables, or why none


def nowhere() -> tuple[Mapping[str, str], str]:
    """Return that nothing is tracked."""
    return {}, "nothing is tracked"


class AttemptCancelledError(BaseException):
    """Raised in a job that nobody waits for any more; no job should catch it."""


class DrainedError(BaseException):
    """Raised in a job that shall go on elsewhere, from the checkpoint of `step`."""

    def __init__(self, message: str, step: int) -> None:
        """Say why, and after which step."""
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, slots=True)
class AttemptRuntime:
    """What the threads of a worker share: `stream` makes it, context and checkpoints work with it.

    `stop` is set when the job shall end, `over` when nobody waits any more for the checkpoint that
    it is saving; `heartbeat` shows that it lives. `tracked_run` returns the variables by which the
    job writes to its run in MLflow. `saves_last` is set while the job itself saves what is left.
    """

    store: ArtifactStore
    clock: Clock
    outbox: MessageQueue
    stop: threading.Event
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    over: threading.Event = field(default_factory=threading.Event)
    tracked_run: TrackedRun = nowhere
    saves_last: threading.Event = field(default_factory=threading.Event)

    def go_on(self, who: str, *, saving: bool = False) -> None:
        """End the job of `who` here if its attempt was given up.

        Who is `saving` a checkpoint may finish that, as long as anybody waits for it.

        Raises:
            AttemptCancelledError: It was.
        """
        if (self.over if saving or self.saves_last.is_set() else self.stop).is_set():
            message = f"{who} was given up"
            raise AttemptCancelledError(message)
