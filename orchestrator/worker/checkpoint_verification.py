"""Has the workers of a gang verify a checkpoint together, each its own parts, before they take it.

Rank 0 proposes a checkpoint. Each worker hashes the parts that are its own: what worker 1 of two
wrote, and worker 3 and 5 of more. It says by the name of a mark what it found, and that it is at
work until then: one listing tells of all workers. So no file is read twice, and a part that is
damaged is found, whoever finds it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.core.artifact import Manifest
from orchestrator.core.errors import DamagedError, StorageError
from orchestrator.core.runs.checkpoint_names import CheckpointId, Proposal
from orchestrator.worker.acknowledgements import workers
from orchestrator.worker.background import Background
from orchestrator.worker.checkpoint_shards import part_of
from orchestrator.worker.rank_membership import RankMembership

POLL_SECONDS = 0.05
LINGER_SECONDS = 30.0  # between two signs that a part is being verified
SLOWER = 10  # how many times as long as rank 0 a worker may take before a sign of it comes
_INTACT, _DAMAGED, _AWAY = "intact", "damaged", "away"
_OUTCOME = re.compile(rf"(\d+)-({_INTACT}|{_DAMAGED}|{_AWAY})")
_AT_WORK = "at-work"


@dataclass(slots=True)
class Verifying:
    """Worker `member` among those that verify; `verified` is what it has verified last."""

    member: RankMembership
    verified: tuple[str, Manifest] | None = None
    _proposal: Proposal | None = None

    def mine(self, path: str) -> bool:
        """Return whether this worker is to hash a file of a checkpoint."""
        return (part_of(path) or 0) % self.member.world_size == self.member.rank

    def together(self, checkpoint: CheckpointId, *, continued: bool) -> None:
        """Have all workers verify a checkpoint; rank 0 calls this.

        Raises:
            DamagedError: Some part is not as it was.
            StorageError: A worker can't read its part, or shows no sign of doing so.
        """
        member, fence = self.member, self.member.fence
        name = self._name(checkpoint, continued=continued)
        began = member.runtime.clock.monotonic()
        fence.propose(checkpoint, continued=continued)
        self._verify(name, fence.show_work)
        patience = max(member.patience, SLOWER * (member.runtime.clock.monotonic() - began))
        self._hear_all(name, patience)

    def as_proposed(self, proposal: Proposal) -> None:
        """Verify what rank 0 proposes, unless that was done.

        Raises:
            StorageError: This worker can't read its part.
        """
        if proposal == self._proposal:
            return
        self._proposal = proposal
        name = self._name(proposal.checkpoint, continued=proposal.continued)
        try:
            self._verify(name, lambda moves: self._show_work(name, moves))
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

        def verify() -> None:
            self.verified = name, load(name, mine=self.mine)[1]

        work = Background(verify, f"verifies {name}")
        last_shown, moves = clock.monotonic(), 0
        while not work.wait(POLL_SECONDS):
            self.member.go_on()
            if clock.monotonic() - last_shown > LINGER_SECONDS:
                last_shown, moves = clock.monotonic(), moves + 1
                linger(moves)
        work.check()

    def _hear_all(self, name: str, patience: float) -> None:
        """Wait until all other workers have found their parts intact."""
        member, moves = self.member, 0
        missing = set(range(1, member.world_size))

        def all_intact() -> bool | None:
            outcomes = _outcomes(member.runtime.store.names(self._marks(name)))
            for rank in sorted(outcomes):
                if outcomes[rank] != _INTACT:
                    self._raise(name, rank, outcomes[rank])
            missing.difference_update(outcomes)
            return not missing or None

        def signs() -> frozenset[str]:
            nonlocal moves
            moves += 1
            member.fence.show_work(moves)  # the others wait for those that are missing
            return frozenset(member.runtime.store.names(self._marks(name)))

        def lacking() -> str:
            have, their = ("has", "its part") if len(missing) == 1 else ("have", "their parts")
            return f"{workers(missing)} {have} not verified {their} of {name!r}"

        if missing:
            member.wait_for(all_intact, lacking, signs, patience)

    def _raise(self, name: str, rank: int, outcome: str) -> None:
        """Raise what worker `rank` has found."""
        why = self.member.runtime.store.marked(self._mark(name, rank, outcome)) or ""
        raise DamagedError(why) if outcome == _DAMAGED else StorageError(f"worker {rank}: {why}")

    def _say(self, name: str, outcome: str, why: str = "") -> None:
        self.member.runtime.store.mark(self._mark(name, self.member.rank, outcome), why)

    def _show_work(self, name: str, moves: int) -> None:
        """Leave a new sign, in the place of the last one."""
        store, rank = self.member.runtime.store, self.member.rank
        store.mark(self._mark(name, rank, f"{_AT_WORK}-{moves}"), "")
        store.remove(self._mark(name, rank, f"{_AT_WORK}-{moves - 1}"))

    def _name(self, checkpoint: CheckpointId, *, continued: bool) -> str:
        earlier = self.member.request.continues
        return f"{earlier}/{checkpoint}" if continued else self.member.name(checkpoint)

    @property
    def _folder(self) -> str:
        return f"{self.member.prefix}/verified/{self.member.token}"

    def _marks(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _mark(self, name: str, rank: int, says: str) -> str:
        return f"{self._marks(name)}/{rank}-{says}"


def _outcomes(names: Iterable[str]) -> Mapping[int, str]:
    """Return what each worker has found, by the `names` of marks; any other is no word of one."""
    matches = (_OUTCOME.fullmatch(name) for name in names)
    return {int(match[1]): match[2] for match in matches if match}
