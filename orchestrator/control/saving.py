"""Saves a checkpoint, beside the job: each worker its part, rank 0 the whole.

A worker fills its part, hashes and flushes it, and acknowledges it with a mark that lists its
files. Rank 0 waits for all of them, looks once more whether a newer attempt has come, and only
then writes the manifest and lets the checkpoint appear. Nothing here talks to the other workers
but through the store: a collective in a second thread would meet those of the job.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.control import names
from orchestrator.control.seat import Seat
from orchestrator.core.artifact import FileEntry
from orchestrator.core.checkpoint import CheckpointId, counting, parse_id, surplus
from orchestrator.core.errors import ArtifactError, DamagedError
from orchestrator.messages import LogLine, Saved

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """One worker's part in saving `checkpoint`, which the job waited `stall` seconds for."""

    seat: Seat
    checkpoint: CheckpointId
    write: Callable[[Path], None]
    stall: float

    def run(self) -> None:
        """Save it. What goes wrong leaves no checkpoint behind.

        Raises:
            ArtifactError: The store is full or refuses.
            StaleAttemptError: A newer attempt has claimed the checkpoints of the stage.
            CancelledError: The attempt was given up.
        """
        try:
            self._save()
        except (ArtifactError, OSError):
            self.seat.fence.check()  # a newer attempt removes what this one has begun
            raise

    def _save(self) -> None:
        seat = self.seat
        began = seat.desk.clock.now()
        mine = self._fill()
        if seat.rank:
            seat.desk.store.mark(self._acknowledgement(seat.rank), _text(mine))
            return
        files = dict(mine)
        for rank in range(1, seat.world_size):
            files.update(self._part_of(rank))
        seat.go_on()
        seat.fence.check()
        meta = {
            **seat.meta,
            "step": str(self.checkpoint.step),
            "workers": str(seat.world_size),
        }
        seat.desk.store.seal(self._name, files, meta)
        self._tell(began)
        self.tidy(made=True)

    @property
    def _name(self) -> str:
        return self.seat.name(self.checkpoint)

    def _acknowledgement(self, rank: int) -> str:
        return f"{self.seat.prefix}/acknowledged/{self.checkpoint}-{rank}"

    def _fill(self) -> Mapping[str, FileEntry]:
        store, part = self.seat.desk.store, f"rank-{self.seat.rank}"
        folder = store.part(self._name, part)
        try:
            self._write(folder)
            self.seat.go_on()
            return store.add(folder, self._name, part)
        except BaseException:
            store.drop(folder)
            raise

    def _write(self, folder: Path) -> None:
        try:
            self.write(folder)
        except OSError as error:
            if error.errno not in FULL:
                raise
            message = (
                f"checkpoint of step {self.checkpoint.step}: {error.strerror}; free some space"
            )
            raise ArtifactError(message) from error

    def _part_of(self, rank: int) -> Mapping[str, FileEntry]:
        name = self._acknowledgement(rank)

        def look() -> str | None:
            text = self.seat.desk.store.marked(name)
            if text is None:
                self.seat.fence.check()  # a newer attempt removes the parts of this one
            return text

        step = self.checkpoint.step
        what = f"worker {rank} has not written its part of the checkpoint of step {step}"
        return _files(self.seat.wait_for(look, what), name)

    def _tell(self, began: float) -> None:
        desk, step = self.seat.desk, self.checkpoint.step
        now = desk.clock.now()
        seconds = {"checkpoint/save_seconds": now - began, "checkpoint/stall_seconds": self.stall}
        desk.outbox.say(Saved(step))
        desk.outbox.points(step, seconds, now)

    # --- what is not needed any more -----------------------------------------------------------

    def tidy(self, *, made: bool = False) -> None:
        """Remove what is not needed beside this checkpoint, and once it is `made`, for it.

        What can't be removed is told.
        """
        try:
            self._remove_checkpoints()
            self._remove_acknowledgements({self.checkpoint} if made else set())
        except ArtifactError as error:
            self.seat.desk.outbox.line(LogLine(0, f"old checkpoints are not removed: {error}"))

    def _remove_checkpoints(self) -> None:
        fence, store = self.seat.fence, self.seat.desk.store
        found, claims = fence.checkpoints(), fence.claims()
        kept: list[CheckpointId] = []
        for one in counting(found, claims):
            if len(kept) == self.seat.request.keep:
                break
            with suppress(DamagedError):
                store.manifest(self.seat.name(one))
                kept.append(one)
        fence.check()
        for one in surplus(found, claims, kept, self.checkpoint):
            store.remove(self.seat.name(one))

    def _remove_acknowledgements(self, done: set[CheckpointId]) -> None:
        store, folder = self.seat.desk.store, f"{self.seat.prefix}/acknowledged"
        of = {name: parse_id(name.rpartition("-")[0]) for name in store.names(folder)}
        old = {*done, *surplus(filter(None, of.values()), (), (), self.checkpoint)}
        for name, one in of.items():
            if one in old:
                store.remove(f"{folder}/{name}")


def leaving(seat: Seat) -> str | None:
    """Return why the attempt shall leave its pool; `None` where it may stay."""
    request = seat.request
    return seat.desk.store.marked(names.leaving(request.run, request.stage, request.attempt))


def _text(files: Mapping[str, FileEntry]) -> str:
    return json.dumps({path: [entry.size, entry.sha256] for path, entry in files.items()})


def _files(text: str, name: str) -> dict[str, FileEntry]:
    try:
        return {
            path: FileEntry(int(size), str(sha256))
            for path, (size, sha256) in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"{name!r} is no list of files; save again") from error
