"""Where a worker sits among the workers of its attempt, when it comes to checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.control import names
from orchestrator.control.desk import Desk
from orchestrator.control.fence import Fence
from orchestrator.core.checkpoint import CheckpointId, Token
from orchestrator.core.errors import JobError
from orchestrator.messages import AttemptRequest

PATIENCE_SECONDS = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Worker `rank` of `world_size`. `meta` is noted in the manifest of all that they save."""

    request: AttemptRequest
    rank: int
    world_size: int
    meta: Mapping[str, str]
    desk: Desk

    @property
    def token(self) -> Token:
        """What tells this attempt from the others of its stage."""
        return Token(self.request.epoch, self.request.attempt)

    @property
    def prefix(self) -> str:
        """Folder of the checkpoints of the stage, in the artifact store."""
        return names.checkpoints(self.request.run, self.request.stage)

    @property
    def fence(self) -> Fence:
        """What stands between this attempt and the others of its stage."""
        return Fence(self.desk.store, self.prefix, self.token)

    def name(self, checkpoint: CheckpointId) -> str:
        """Return the name of a checkpoint in the artifact store."""
        return f"{self.prefix}/{checkpoint}"

    def go_on(self) -> None:
        """End the job here if its attempt was given up."""
        self.desk.go_on(f"attempt {self.request.attempt} of stage {self.request.stage!r}")

    def wait_for(self, look: Callable[[], Found | None], what: str) -> Found:
        """Return what `look` finds, as soon as it does.

        Raises:
            CancelledError: The attempt was given up meanwhile.
            JobError: Nothing was found in time; `what` says what is missing.
        """
        deadline = self.desk.clock.now() + PATIENCE_SECONDS
        pause = FIRST_PAUSE
        while (found := look()) is None:
            self.go_on()
            if self.desk.clock.now() > deadline:
                raise JobError(
                    f"{what} after {PATIENCE_SECONDS:.0f} s; every worker of a gang must make "
                    f"the same calls for checkpoints"
                )
            self.desk.clock.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return found
