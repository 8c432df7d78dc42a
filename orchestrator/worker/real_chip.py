"""What holds the chip of a worker while its job runs: nothing, where the chip is real."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from orchestrator.messages import AttemptRequest
from orchestrator.ports import Chip, Clock


class Chips(Protocol):
    """Holds the emulated chip of a worker: `emulation.emulated_chip`."""

    def __call__(
        self, request: AttemptRequest, rank: int, *, clock: Clock, stop: threading.Event
    ) -> AbstractContextManager[Chip]:
        """Return what holds the chip while the job runs; `stop` is set when it shall end."""
        ...


class RealChip:
    """A chip that fails by itself: nothing is done for it."""

    def reached(self, step: int) -> None:
        """Do nothing."""

    def resumed(self, step: int) -> None:
        """Do nothing."""


def real_chip(
    request: AttemptRequest,  # noqa: ARG001 - the form of Chips
    rank: int,  # noqa: ARG001 - as above
    *,
    clock: Clock,  # noqa: ARG001 - as above
    stop: threading.Event,  # noqa: ARG001 - as above
) -> AbstractContextManager[Chip]:
    """Hold a chip that nothing needs to be done for."""
    return nullcontext(RealChip())
