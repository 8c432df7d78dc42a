"""The claims of a stage's attempts to its checkpoints, as one attempt sees and makes them.

A claim is a mark whose name says all (`core/runs/checkpoint_names.py`), and so is what rank 0
proposes to go on from while the choice is open: one listing tells both, however many they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.core.errors import StaleAttemptError
from orchestrator.core.runs.checkpoint_names import (
    CheckpointId,
    Claim,
    Proposal,
    Token,
    fenced_off,
    parse_claim,
    parse_id,
    parse_proposal,
    proposed_last,
)
from orchestrator.ports import ArtifactStore


@dataclass(frozen=True, slots=True)
class CheckpointChoice:
    """How far rank 0 is with its choice: the claim once it is made, else what it proposes."""

    claim: Claim | None = None
    proposal: Proposal | None = None


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
        return [claim for name in self._store.names(self._claims) if (claim := parse_claim(name))]

    def enter(self) -> None:
        """Claim the checkpoints, the choice still open: no older attempt commits from now on.

        Raises:
            StaleAttemptError: A newer attempt has, or another process that takes itself for this.
        """
        claims = self.claims()
        if any(claim.token == self.token for claim in claims):
            message = f"{_name_of(self.token)} has run already; start a new one"
            raise StaleAttemptError(message)
        self._refuse_after(claims)
        self.show_work(0)

    def propose(self, checkpoint: CheckpointId, *, continued: bool) -> None:
        """Show those who wait for the choice what they are to verify."""
        proposal = Proposal(self.token, checkpoint, continued)
        self._store.mark(f"{self._claims}/{proposal}", "")

    def show_work(self, moves: int) -> None:
        """Claim the checkpoints, and show by `moves` that the choice goes on."""
        self._store.mark(self._name(Claim(self.token, open=True)), str(moves))

    def moves(self) -> str | None:
        """Return what shows, as it changes, that this attempt's choice is being made."""
        return self._store.marked(self._name(Claim(self.token, open=True)))

    def choice(self) -> CheckpointChoice:
        """Return how far this attempt's choice is."""
        names = self._store.names(self._claims)
        claims = (claim for name in names if (claim := parse_claim(name)))
        own = (claim for claim in claims if claim.token == self.token and not claim.open)
        proposals = (proposal for name in names if (proposal := parse_proposal(name)))
        return CheckpointChoice(next(own, None), proposed_last(proposals, self.token))

    def settle(self, source: CheckpointId | None) -> None:
        """Say what this attempt goes on from: what comes after it, of older ones, is void.

        Raises:
            StaleAttemptError: A newer attempt has come meanwhile.
        """
        self.check()
        self._store.mark(self._name(Claim(self.token, source)), "")

    def check(self) -> None:
        """Refuse to go on where a newer attempt has claimed the checkpoints.

        Raises:
            StaleAttemptError: It has.
        """
        self._refuse_after(self.claims())

    def _refuse_after(self, claims: Iterable[Claim]) -> None:
        newer = fenced_off(self.token, claims)
        if newer is not None:
            raise StaleAttemptError(
                f"{_name_of(self.token)} must not save any more: "
                f"{_name_of(newer.token)} has claimed {self._prefix!r}"
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

    @property
    def _claims(self) -> str:
        return f"{self._prefix}/claims"

    def _name(self, claim: Claim) -> str:
        return f"{self._claims}/{claim}"


def _name_of(token: Token) -> str:
    return f"attempt {token.attempt} of epoch {token.epoch}"
