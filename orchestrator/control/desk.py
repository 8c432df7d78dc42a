"""What a worker of an attempt works with, and the two ways in which its job is told to end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from orchestrator.control.outbox import Outbox
from orchestrator.control.watchdog import Pulse
from orchestrator.ports import ArtifactStore, Clock


class CancelledError(BaseException):
    """Raised in a job that nobody waits for any more; no job should catch it."""


class DrainedError(BaseException):
    """Raised in a job that shall go on elsewhere, from the checkpoint of `step`."""

    def __init__(self, message: str, step: int) -> None:
        """Say why, and after which step."""
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, slots=True)
class Desk:
    """What a context works with.

    `stop` is set when the job shall end, `over` when nobody waits any more for the checkpoint that
    it is saving; `pulse` shows that it lives.
    """

    store: ArtifactStore
    clock: Clock
    outbox: Outbox
    stop: threading.Event
    pulse: Pulse = field(default_factory=Pulse)
    over: threading.Event = field(default_factory=threading.Event)

    def go_on(self, who: str, *, saving: bool = False) -> None:
        """End the job of `who` here if its attempt was given up.

        Who is `saving` a checkpoint may finish that, as long as anybody waits for it.

        Raises:
            CancelledError: It was.
        """
        if (self.over if saving else self.stop).is_set():
            message = f"{who} was given up"
            raise CancelledError(message)
