"""Saves a checkpoint, beside the job: each worker its part, rank 0 the whole.

A worker fills its part, hashes and flushes it, and acknowledges it with a mark that lists its
files. Rank 0 waits for all of them, looks once more whether a newer attempt has come, and only
then writes the manifest and lets the checkpoint appear. Nothing here talks to the other workers
but through the store: a collective in a second thread would meet those of the job.
"""

from __future__ import annotations

import errno
import platform
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core import artifact_paths
from orchestrator.core.artifact import NO_ROOM, FileEntry
from orchestrator.core.errors import (
    ArtifactError,
    DamagedError,
    StaleAttemptError,
    StorageError,
)
from orchestrator.core.runs.checkpoint_names import CheckpointId, counting, surplus
from orchestrator.messages import LogLine, Saved
from orchestrator.node.disks import mount_of
from orchestrator.worker import acknowledgements
from orchestrator.worker.acknowledgements import Parts
from orchestrator.worker.rank_membership import RankMembership, StuckError

AWAY = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EREMOTEIO,
        errno.EHOSTDOWN,
        errno.ENOTCONN,
        errno.EROFS,
    }
)
# What writers of tensors say of a file system that refuses: they hide its error number.
_HIDDEN = re.compile(
    r"\(os error (5|27|28|30|116|121|122)\)|No space left on device|Stale file handle"
    r"|File too large|Input/output error|Disk quota exceeded|PytorchStreamWriter failed writing"
)
KEPT_AT_LEAST = 2  # a roll-back from the newest needs the one before
SLOWER = 10  # how many times as long as rank 0 a worker may write before anything of it shows


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """One worker's part in saving `checkpoint`, which the job waited `stall` seconds for."""

    member: RankMembership
    checkpoint: CheckpointId
    write: Callable[[Path], None]
    stall: float

    def run(self) -> None:
        """Save it. What goes wrong leaves no checkpoint behind.

        Raises:
            ArtifactError: The store is full or refuses.
            StaleAttemptError: A newer attempt has claimed the checkpoints of the stage.
            AttemptCancelledError: The attempt was given up.
        """
        try:
            self._try()
        except StaleAttemptError as error:
            self._tell_refusal(error)
            raise

    def _try(self) -> None:
        try:
            self._save()
        except (ArtifactError, OSError) as error:
            if isinstance(error, StorageError) and not isinstance(error, StuckError):
                self._refuse(error)
            self.member.fence.check()  # a newer attempt removes what this one has begun
            raise

    def _tell_refusal(self, error: StaleAttemptError) -> None:
        """Say in the log of this node, and to the newer attempt, what was refused.

        Whoever is cut off from the cluster may be heard by nobody else.
        """
        member = self.member
        who = f"worker {member.rank} on {platform.node()!r}"
        text = f"checkpoint of step {self.checkpoint.step} of {who} is refused: {error}"
        member.runtime.outbox.line(LogLine(member.rank, text))
        with suppress(ArtifactError):
            member.fence.note_refusal(str(member.rank), text)

    def _refuse(self, error: StorageError) -> None:
        """Tell the others, of whom rank 0 would wait for this worker.

        Raises:
            StuckError: The storage refuses that too.
        """
        try:
            acknowledgements.refuse(self.member, self.checkpoint, str(error))
        except ArtifactError:
            if self.member.rank:
                raise StuckError(str(error)) from error

    def _save(self) -> None:
        member = self.member
        began = member.runtime.clock.monotonic()
        member.fence.check()  # each worker: others than rank 0 would write parts for nobody
        mine = self._fill()
        if member.rank:
            acknowledgements.acknowledge(member, self.checkpoint, mine)
            return
        patience = max(member.patience, SLOWER * (member.runtime.clock.monotonic() - began))
        others = Parts(member, self.checkpoint).gathered(patience)
        member.go_on()
        member.fence.check()
        meta = {
            **member.meta,
            "step": str(self.checkpoint.step),
            "workers": str(member.world_size),
        }
        member.runtime.store.seal(self._name, {**mine, **others}, meta)
        self._tell(began)
        with suppress(StaleAttemptError):  # this one is saved; the next is refused
            self.tidy(sealed=True)

    @property
    def _name(self) -> str:
        return self.member.name(self.checkpoint)

    def _fill(self) -> Mapping[str, FileEntry]:
        store, part = self.member.runtime.store, f"rank-{self.member.rank}"
        folder = store.part(self._name, part)
        try:
            self._write(folder)
            self.member.go_on()
            return store.add(folder, self._name, part)
        except BaseException:
            store.drop(folder)
            raise

    def _write(self, folder: Path) -> None:
        try:
            self.write(folder)
        except Exception as error:
            gone = "its folder is gone; check its storage"
            reason = _refusal(error, folder) or (None if folder.is_dir() else gone)
            if reason is None:
                raise
            message = f"checkpoint of step {self.checkpoint.step}: {reason}"
            raise StorageError(message) from error

    def _tell(self, began: float) -> None:
        runtime, step = self.member.runtime, self.checkpoint.step
        took = runtime.clock.monotonic() - began
        seconds = {"checkpoint/save_seconds": took, "checkpoint/stall_seconds": self.stall}
        runtime.outbox.say(Saved(step))
        runtime.outbox.points(step, seconds, runtime.clock.now())

    # --- what is not needed any more -----------------------------------------------------------

    def tidy(self, *, sealed: bool = False) -> None:
        """Remove what is not needed beside this checkpoint, and once it is `sealed`, for it.

        What can't be removed is told.
        """
        try:
            self._remove_checkpoints()
            acknowledgements.tidy(self.member, self.checkpoint, sealed=sealed)
            self._tell_refusals()
        except ArtifactError as error:
            self.member.runtime.outbox.line(
                LogLine(0, f"old checkpoints are not removed: {error}")
            )

    def _remove_checkpoints(self) -> None:
        fence, store = self.member.fence, self.member.runtime.store
        checkpoints, claims = fence.checkpoints(), fence.claims()
        kept: list[CheckpointId] = []
        for checkpoint in counting(checkpoints, claims):
            if len(kept) == max(self.member.request.keep, KEPT_AT_LEAST):
                break
            with suppress(DamagedError):
                store.manifest(self.member.name(checkpoint))
                kept.append(checkpoint)
        fence.check()
        for checkpoint in surplus(checkpoints, claims, kept, self.checkpoint):
            store.remove(self.member.name(checkpoint))

    def _tell_refusals(self) -> None:
        """Say in the log of the run which late checkpoints of earlier attempts were refused."""
        for text in self.member.fence.refusals():
            self.member.runtime.outbox.line(LogLine(0, text))


def _refusal(error: Exception, folder: Path) -> str | None:
    """Return what the file system refused of a part in `folder`, in words, if it is that."""
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        way_out = NO_ROOM.get(error.errno or 0)
        if way_out:
            return f"{error.strerror} at {mount_of(folder)!r}; {way_out}"
        if error.errno in AWAY:
            return f"{error.strerror}; check its storage"
    hidden = _HIDDEN.search(text)
    return f"{text} (at {mount_of(folder)!r}); check its storage" if hidden else None


def leaving(member: RankMembership) -> str | None:
    """Return why the attempt shall leave its pool; `None` where it may stay."""
    request = member.request
    return member.runtime.store.marked(
        artifact_paths.leaving(request.run, request.stage, request.attempt)
    )
