"""Where a worker sits among the workers of its attempt, when it comes to checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.core import artifact_paths
from orchestrator.core.errors import StorageError
from orchestrator.core.runs.checkpoint_names import CheckpointId, Token
from orchestrator.messages import AttemptRequest
from orchestrator.worker.fencing import Fence
from orchestrator.worker.runtime import AttemptRuntime

MOVES_SECONDS = 10.0  # between two looks whether anything has moved
# The same of a job that shall end: of those that it waits for some may have been killed.
LEAVING_SECONDS, LEAVING_MOVES_SECONDS = 5.0, 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 1.0

Found = TypeVar("Found")


class StuckError(StorageError):
    """Nothing moves any more, or the others can't be told: no save may pass over that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMembership:
    """Worker `rank` of `world_size`. `meta` is noted in the manifest of all that they save.

    Who is `saving` a checkpoint goes on when the job shall end, for a while.
    """

    request: AttemptRequest
    rank: int
    world_size: int
    meta: Mapping[str, str]
    runtime: AttemptRuntime
    saving: bool = False

    @property
    def token(self) -> Token:
        """What tells this attempt from the others of its stage."""
        return Token(self.request.epoch, self.request.attempt)

    @property
    def prefix(self) -> str:
        """Folder of the checkpoints of the stage, in the artifact store."""
        return artifact_paths.checkpoints(self.request.run, self.request.stage)

    @property
    def acknowledged(self) -> str:
        """Folder of what workers tell each other of checkpoints, by marks."""
        return f"{self.prefix}/acknowledged"

    @property
    def patience(self) -> float:
        """Seconds in which nothing of what is waited for may move."""
        return self.request.waits.checkpoint

    @property
    def fence(self) -> Fence:
        """What stands between this attempt and the others of its stage."""
        return Fence(self.runtime.store, self.prefix, self.token)

    def name(self, checkpoint: CheckpointId) -> str:
        """Return the name of a checkpoint in the artifact store."""
        return f"{self.prefix}/{checkpoint}"

    def go_on(self) -> None:
        """End the job here if its attempt was given up."""
        who = f"attempt {self.request.attempt} of stage {self.request.stage!r}"
        self.runtime.go_on(who, saving=self.saving)

    def busy(self, what: str) -> AbstractContextManager[None]:
        """Show that this worker lives while it waits: for `what` is no fault of its job."""
        return self.runtime.heartbeat.busy(what, self.runtime.clock)

    def wait_for(
        self,
        ask: Callable[[], Found | None],
        what: str | Callable[[], str],
        moves: Callable[[], object] = lambda: None,
        patience: float | None = None,
    ) -> Found:
        """Return what `ask` finds, as soon as it does; wait as long as what `moves` says changes.

        `patience` is that of the attempt where `None`.

        Raises:
            AttemptCancelledError: The attempt was given up meanwhile.
            StuckError: Nothing came or moved for `patience` seconds; `what` is missing.
        """
        clock = self.runtime.clock
        patience = self.patience if patience is None else patience
        since = looked = clock.monotonic()
        stood: object = None
        pause, pace = FIRST_PAUSE, MOVES_SECONDS
        while (result := ask()) is None:
            self.go_on()
            now = clock.monotonic()
            if now - looked >= pace:
                looked, before, stood = now, stood, moves()
                since = since if stood == before else now
            if self.runtime.stop.is_set() and pace == MOVES_SECONDS:
                since, pace, patience = now, LEAVING_MOVES_SECONDS, min(patience, LEAVING_SECONDS)
            if now - since > patience:
                missing = what if isinstance(what, str) else what()
                raise StuckError(
                    f"{missing}, and nothing of it has moved for {patience:.0f} s; look whether "
                    f"all workers reach the storage, and make the same calls for checkpoints"
                )
            clock.sleep(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE)
        return result
