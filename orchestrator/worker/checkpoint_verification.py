"""Has the workers of a gang verify a checkpoint together, each its own parts, before they take it.

Rank 0 proposes a checkpoint. Each worker hashes the parts that are its own: what worker 1 of two
wrote, and worker 3 and 5 of more. It says by a mark what it found, and that it is at work until
then. So no file is read twice, and a part that is damaged is found, whoever finds it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orchestrator.core.artifact import Manifest
from orchestrator.core.errors import DamagedError, StorageError
from orchestrator.worker.background import Background
from orchestrator.worker.rank_membership import RankMembership

POLL_SECONDS = 0.05
LINGER_SECONDS = 30.0  # between two signs that a part is being verified
SLOWER = 10  # how many times as long as rank 0 a worker may take before a sign of it comes
PART = re.compile(r"rank-(\d+)/")
_INTACT, _DAMAGED, _AWAY = "intact", "damaged", "away"


@dataclass(slots=True)
class Verifying:
    """Worker `member` among those that verify; `proposal` is the last that it looked at."""

    member: RankMembership
    proposal: str = ""

    def mine(self, path: str) -> bool:
        """Return whether this worker is to hash a file of a checkpoint."""
        part = PART.match(path)
        return (int(part[1]) if part else 0) % self.member.world_size == self.member.rank

    def together(self, name: str) -> None:
        """Have all workers verify checkpoint `name`; rank 0 calls this.

        Raises:
            DamagedError: Some part is not as it was.
            StorageError: A worker can't read its part, or shows no sign of doing so.
        """
        member, fence = self.member, self.member.fence
        began = member.runtime.clock.monotonic()
        fence.propose(name)
        self._verify(name, lambda moves: fence.propose(name, moves))
        patience = max(member.patience, SLOWER * (member.runtime.clock.monotonic() - began))
        for rank in range(1, member.world_size):
            self._hear(rank, name, patience)

    def as_proposed(self) -> None:
        """Verify what rank 0 proposes now, unless that was done.

        Raises:
            StorageError: This worker can't read its part.
        """
        name = self.member.fence.proposed()
        if not name or name == self.proposal:
            return
        self.proposal = name
        try:
            self._verify(name, lambda moves: self._say(name, "", moves=moves))
        except DamagedError as error:
            self._say(name, _DAMAGED, str(error))
        except StorageError as error:
            self._say(name, _AWAY, str(error))
            raise
        else:
            self._say(name, _INTACT)

    def over(self) -> None:
        """Remove the marks, once a choice was made."""
        with suppress(StorageError):
            self.member.runtime.store.remove(self._folder)

    def _verify(self, name: str, linger: Callable[[int], None]) -> None:
        load, clock = self.member.runtime.store.load, self.member.runtime.clock
        work = Background(lambda: _ignore(load(name, mine=self.mine)), f"verifies {name}")
        last_told, moves = clock.monotonic(), 0
        while not work.wait(POLL_SECONDS):
            self.member.go_on()
            if clock.monotonic() - last_told > LINGER_SECONDS:
                last_told, moves = clock.monotonic(), moves + 1
                linger(moves)
        work.check()

    def _hear(self, rank: int, name: str, patience: float) -> None:
        """Wait for what worker `rank` has found."""
        store, moves = self.member.runtime.store, 0

        def verified() -> dict[str, str] | None:
            answer = _said(store.marked(self._mark(rank)))
            return answer if answer.get("name") == name and answer.get("found") else None

        def signs() -> str | None:
            nonlocal moves
            moves += 1
            self.member.fence.propose(name, moves)  # the others wait for this worker
            return store.marked(self._mark(rank))

        what = f"worker {rank} has not verified its part of {name!r}"
        answer = self.member.wait_for(verified, what, signs, patience)
        if answer["found"] == _DAMAGED:
            raise DamagedError(answer.get("why", ""))
        if answer["found"] == _AWAY:
            raise StorageError(f"worker {rank}: {answer.get('why', '')}")

    def _say(self, name: str, finding: str, why: str = "", moves: int = 0) -> None:
        text = json.dumps({"name": name, "found": finding, "why": why, "moves": str(moves)})
        self.member.runtime.store.mark(self._mark(self.member.rank), text)

    @property
    def _folder(self) -> str:
        return f"{self.member.prefix}/verified/{self.member.token}"

    def _mark(self, rank: int) -> str:
        return f"{self._folder}/{rank}"


def _said(text: str | None) -> dict[str, str]:
    """Return what a mark says; nothing where it is torn."""
    with suppress(ValueError):
        content = json.loads(text or "{}")
        if isinstance(content, dict):
            return {str(key): str(value) for key, value in content.items()}
    return {}


def _ignore(_loaded: tuple[Path, Manifest]) -> None:
    """Load for the sake of looking."""
