"""What the workers of an attempt have made of their parts of a checkpoint: each leaves a mark.

The marks of one checkpoint lie in a folder of their own. One listing shows who has left one, those
that are new are read side by side, and the folder is removed as a whole: what rank 0 asks of the
storage grows by one call a worker.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress

from orchestrator.core.artifact import FileEntry
from orchestrator.core.errors import DamagedError, JobError, StorageError
from orchestrator.core.runs.checkpoint_names import CheckpointId, parse_id, surplus
from orchestrator.worker.background import Background
from orchestrator.worker.rank_membership import RankMembership

POLL_SECONDS = 0.01
READERS = 16  # marks that are read at a time
MOST_NAMED = 5  # workers of whom a message names the number
_REFUSED = "refused"


def acknowledgement(
    member: RankMembership, checkpoint: CheckpointId, rank: int | None = None
) -> str:
    """Return the mark by which worker `rank`, or this one, says what became of its part."""
    of = member.rank if rank is None else rank
    return f"{_folder(member, checkpoint)}/{of}"


def acknowledge(
    member: RankMembership, checkpoint: CheckpointId, files: Mapping[str, FileEntry]
) -> None:
    """Say that this worker's part is there, with `files`."""
    text = json.dumps({path: [entry.size, entry.sha256] for path, entry in files.items()})
    member.runtime.store.mark(acknowledgement(member, checkpoint), text)


def refuse(member: RankMembership, checkpoint: CheckpointId, reason: str) -> None:
    """Say that the storage refused this worker's part."""
    text = json.dumps({_REFUSED: reason})
    member.runtime.store.mark(acknowledgement(member, checkpoint), text)


def check(member: RankMembership, checkpoint: CheckpointId, rank: int) -> None:
    """Raise what worker `rank` has said of a storage that refused its part.

    Raises:
        StorageError: It has.
    """
    _raise_refusal(rank, member.runtime.store.marked(acknowledgement(member, checkpoint, rank)))


def tidy(member: RankMembership, checkpoint: CheckpointId, *, sealed: bool) -> None:
    """Remove what was said of checkpoints before this one, and once it is `sealed`, of it."""
    named = _named(member)
    over = {*surplus(named.values(), (), (), checkpoint), *([checkpoint] if sealed else [])}
    for name, spoken_of in named.items():
        if spoken_of in over:
            member.runtime.store.remove(f"{member.acknowledged}/{name}")


def _named(member: RankMembership) -> dict[str, CheckpointId]:
    """Return the checkpoints of which anything was said, by the names of folders and marks."""
    names = member.runtime.store.names(member.acknowledged)
    return {
        name: checkpoint
        for name in names
        if (checkpoint := parse_id(name) or parse_id(name.rpartition("-")[0]))
    }


def _folder(member: RankMembership, checkpoint: CheckpointId) -> str:
    return f"{member.acknowledged}/{checkpoint}"


def workers(ranks: Collection[int]) -> str:
    """Return which workers are meant, in a few words."""
    numbers = ", ".join(str(rank) for rank in sorted(ranks)[:MOST_NAMED])
    more = f" and {len(ranks) - MOST_NAMED} more" if len(ranks) > MOST_NAMED else ""
    return f"worker{'' if len(ranks) == 1 else 's'} {numbers}{more}"


class Parts:
    """The parts of `checkpoint` that the workers beside rank 0 write."""

    def __init__(self, member: RankMembership, checkpoint: CheckpointId) -> None:
        """Know of none; `member` is rank 0."""
        self._member, self._checkpoint = member, checkpoint
        self._missing = set(range(1, member.world_size))
        self._files: dict[str, FileEntry] = {}

    def gathered(self, patience: float) -> Mapping[str, FileEntry]:
        """Return the files of all parts, once all are there.

        Raises:
            StorageError: The storage refused a part, or one does not come.
            StaleAttemptError: A newer attempt has claimed the checkpoints of the stage.
            AttemptCancelledError: The attempt was given up.
            JobError: A worker went on to a later checkpoint, and leaves this one out.
            DamagedError: What a worker says is no list of files.
        """
        if not self._missing:
            return {}
        return self._member.wait_for(self._all_files, self._lacking, self._moves, patience)

    def _all_files(self) -> Mapping[str, FileEntry] | None:
        self._read(sorted(self._missing & self._ranks(self._checkpoint)))
        if self._missing:
            self._member.fence.check()  # a newer attempt removes the parts of this one
            return None
        return self._files

    def _lacking(self) -> str:
        missing = self._missing
        have, their = ("has", "its part") if len(missing) == 1 else ("have", "their parts")
        of = f"of the checkpoint of step {self._checkpoint.step}"
        return f"{workers(missing)} {have} not written {their} {of}"

    def _moves(self) -> tuple[int, int]:
        self._refuse_to_wait()
        name = self._member.name(self._checkpoint)
        return len(self._missing), self._member.runtime.store.weight(name)

    def _ranks(self, checkpoint: CheckpointId) -> set[int]:
        names = self._member.runtime.store.names(_folder(self._member, checkpoint))
        return {int(name) for name in names if name.isdecimal()}

    def _read(self, ranks: list[int]) -> None:
        texts: dict[int, str | None] = {}
        shares = [share for first in range(READERS) if (share := ranks[first::READERS])]
        for reader in [self._reader(share, texts) for share in shares]:
            while not reader.wait(POLL_SECONDS):
                self._member.go_on()
            reader.check()
        for rank, text in sorted(texts.items()):
            if text is not None:  # else it was removed meanwhile
                _raise_refusal(rank, text)
                name = acknowledgement(self._member, self._checkpoint, rank)
                self._files.update(_files(text, name))
                self._missing.discard(rank)

    def _reader(self, ranks: list[int], texts: dict[int, str | None]) -> Background:
        """Return a thread that reads marks; one that hangs does not keep the process alive."""

        def read() -> None:
            for rank in ranks:
                name = acknowledgement(self._member, self._checkpoint, rank)
                texts[rank] = self._member.runtime.store.marked(name)

        return Background(read, f"reads what workers say of {self._checkpoint}")

    def _refuse_to_wait(self) -> None:
        """Refuse to wait for a worker that has gone on to a later checkpoint."""
        step, token = self._checkpoint.step, self._checkpoint.token
        for later in sorted(set(_named(self._member).values())):
            if later.token != token or later.step <= step:
                continue
            gone_on = self._missing & self._ranks(later)
            if gone_on and (skipped := gone_on - self._ranks(self._checkpoint)):
                raise JobError(
                    f"worker {min(skipped)} saved the checkpoint of step {later.step} and none of "
                    f"step {step}; every worker of a gang must make the same calls"
                )


def _raise_refusal(rank: int, text: str | None) -> None:
    with suppress(ValueError):
        content = json.loads(text or "{}")
        reason = content.get(_REFUSED) if isinstance(content, dict) else None
        if isinstance(reason, str):
            raise StorageError(f"worker {rank}: {reason}")


def _files(text: str, name: str) -> dict[str, FileEntry]:
    try:
        return {
            path: FileEntry(int(size), str(sha256))
            for path, (size, sha256) in json.loads(text).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise DamagedError(f"{name!r} is no list of files; save again") from error
