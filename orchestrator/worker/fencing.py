"""The claims of a stage's attempts to its checkpoints, as one attempt sees and makes them.

A claim is a mark whose name says all (`core/runs/checkpoint_names.py`). While the choice is open,
its text is what rank 0 proposes to go on from.
"""

from __future__ import annotations

from orchestrator.core.errors import StaleAttemptError
from orchestrator.core.runs.checkpoint_names import (
    CheckpointId,
    Claim,
    Token,
    fenced_off,
    parse_claim,
    parse_id,
)
from orchestrator.ports import ArtifactStore


class Fence:
    """The checkpoints of a stage, and who has claimed them."""

    def __init__(self, store: ArtifactStore, prefix: str, token: Token) -> None:
        """Stand for attempt `token`, before the checkpoints under `prefix`."""
        self.token = token
        self._store = store
        self._prefix = prefix

    def checkpoints(self) -> list[CheckpointId]:
        """Return what there is of checkpoints, whole or not, in no order."""
        return [
            checkpoint
            for name in self._store.names(self._prefix)
            if (checkpoint := parse_id(name))
        ]

    def claims(self) -> list[Claim]:
        """Return all claims that were made."""
        names = self._store.names(f"{self._prefix}/claims")
        return [claim for name in names if (claim := parse_claim(name))]

    def enter(self) -> None:
        """Claim the checkpoints, the choice still open: no older attempt commits from now on.

        Raises:
            StaleAttemptError: A newer attempt has, or another process that takes itself for this.
        """
        for claim in self.claims():
            if claim.token == self.token:
                message = f"{_said(self.token)} has run already; start a new one"
                raise StaleAttemptError(message)
        self.check()
        self.propose("")

    def propose(self, name: str, moves: int = 0) -> None:
        """Show those who wait for the choice what is looked at, and by `moves` that it goes on."""
        self._store.mark(self._name(Claim(self.token, open=True)), f"{name}\n{moves}")

    def proposed(self) -> str:
        """Return the name of the checkpoint that is looked at, empty where there is none yet."""
        return (self.moves() or "").partition("\n")[0]

    def moves(self) -> str | None:
        """Return what shows, as it changes, that this attempt's choice is being made."""
        return self._store.marked(self._name(Claim(self.token, open=True)))

    def settle(self, source: CheckpointId | None) -> None:
        """Say what this attempt goes on from: what comes after it, of older ones, is void.

        Raises:
            StaleAttemptError: A newer attempt has come meanwhile.
        """
        self.check()
        self._store.mark(self._name(Claim(self.token, source)), "")

    def settled(self) -> Claim | None:
        """Return this attempt's claim, once it says what it goes on from."""
        own = (claim for claim in self.claims() if claim.token == self.token and not claim.open)
        return next(own, None)

    def check(self) -> None:
        """Refuse to go on where a newer attempt has claimed the checkpoints.

        Raises:
            StaleAttemptError: It has.
        """
        newer = fenced_off(self.token, self.claims())
        if newer is not None:
            raise StaleAttemptError(
                f"{_said(self.token)} must not save any more: {_said(newer.token)} has claimed "
                f"{self._prefix!r}"
            )

    def note_refusal(self, who: str, text: str) -> None:
        """Leave word that this attempt was refused, for the one that has the checkpoints now."""
        self._store.mark(f"{self._refusals}/{self.token}-{who}", text)

    def refusals(self) -> list[str]:
        """Return what older attempts were refused since this was asked last, and forget it."""
        texts = []
        for name in self._store.names(self._refusals):
            mark = f"{self._refusals}/{name}"
            texts.append(self._store.marked(mark))
            self._store.remove(mark)
        return [text for text in texts if text]

    @property
    def _refusals(self) -> str:
        return f"{self._prefix}/refused"

    def _name(self, claim: Claim) -> str:
        return f"{self._prefix}/claims/{claim}"


def _said(token: Token) -> str:
    return f"attempt {token.attempt} of epoch {token.epoch}"
