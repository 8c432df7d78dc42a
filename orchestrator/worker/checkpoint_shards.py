"""The parts of a checkpoint, as the job of a worker reads them: each is brought when it is asked.

On storage that all hosts share they are there. Else a worker has its own parts on its node, which
it has verified; another one comes into the cache of the node when the job takes it, and is
verified then. So no node downloads what none of its workers reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from orchestrator.core.artifact import Manifest
from orchestrator.worker.rank_membership import RankMembership

_PART = re.compile(r"rank-(\d+)/")


def part_of(path: str) -> int | None:
    """Return which worker wrote the file of a checkpoint with this path; `None` where none did."""
    part = _PART.match(path)
    return int(part[1]) if part else None


class Shards(Sequence[Path]):
    """The folders of all workers that wrote anything of artifact `name`, by rank."""

    def __init__(self, member: RankMembership, name: str, manifest: Manifest) -> None:
        """Bring nothing yet."""
        self._member, self._name, self._manifest = member, name, manifest
        parts = map(part_of, manifest.files)
        self._ranks = sorted({rank for rank in parts if rank is not None})

    def __len__(self) -> int:
        """Return how many workers wrote anything."""
        return len(self._ranks)

    @overload
    def __getitem__(self, index: int) -> Path: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Path]: ...

    def __getitem__(self, index: int | slice) -> Path | Sequence[Path]:
        """Return a folder, or several, with all files."""
        if isinstance(index, slice):
            return tuple(self.brought(rank) for rank in self._ranks[index])
        return self.brought(self._ranks[index])

    def brought(self, rank: int) -> Path:
        """Return the folder that worker `rank` filled, with all files.

        Raises:
            DamagedError: One is not as it was written.
            StorageError: The storage is away, or this node has no room.
        """
        store = self._member.runtime.store
        with self._member.busy("reading a checkpoint"):
            folder = store.bring(self._name, self._manifest, lambda path: part_of(path) == rank)
        return folder / f"rank-{rank}"
