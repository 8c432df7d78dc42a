"""Which checkpoints of a stage count: the fence between its attempts, told by names alone.

A checkpoint's name says after which step it was taken, and by which attempt. Before an attempt
uses the checkpoints of its stage it leaves a claim, whose name says which of them it goes on
from. So one listing tells all, and there is nothing in it that could be half written.

Those count that lead to where the stage stands: of the attempt that claimed last, all; of the
attempt that it went on from, those up to there; and so on, back to one that began anew. What an
attempt writes after it was given up is not among them, whenever it writes it: a process that was
stopped between its last look at the claims and its rename does no harm either.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_TOKEN = r"(\d{4,})-(\d{4,})"  # noqa: S105 - no password
_ID = rf"step-(\d{{10,}})-{_TOKEN}"
_ID_PATTERN = re.compile(_ID)
_CLAIM_PATTERN = re.compile(rf"{_TOKEN}-(open|anew|from-{_ID})")
_PROPOSAL_PATTERN = re.compile(rf"{_TOKEN}-proposes-{_ID}(-continued)?")


@dataclass(frozen=True, slots=True, order=True)
class Token:
    """Which attempt of a stage: a later one is greater, and a later controller's above all."""

    epoch: int
    attempt: int

    def __str__(self) -> str:
        """Return it as it stands in names."""
        return f"{self.epoch:04d}-{self.attempt:04d}"


@dataclass(frozen=True, slots=True, order=True)
class CheckpointId:
    """A checkpoint of a stage: the step after which it was taken, and the attempt that did."""

    step: int
    token: Token

    def __str__(self) -> str:
        """Return its name."""
        return f"step-{self.step:010d}-{self.token}"


@dataclass(frozen=True, slots=True)
class Claim:
    """An attempt's claim to the checkpoints of its stage.

    `source` is what it goes on from, `None` where it begins anew. While it is `open` it has not
    chosen yet, and fences off older attempts only.
    """

    token: Token
    source: CheckpointId | None = None
    open: bool = False

    def __str__(self) -> str:
        """Return its name."""
        if self.open:
            return f"{self.token}-open"
        return f"{self.token}-from-{self.source}" if self.source else f"{self.token}-anew"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A checkpoint that all workers of an attempt shall verify, as it may go on from that.

    It is one of its stage, or of the stage of an earlier run that it has `continued`.
    """

    token: Token
    checkpoint: CheckpointId
    continued: bool = False

    def __str__(self) -> str:
        """Return its name."""
        return f"{self.token}-proposes-{self.checkpoint}{'-continued' if self.continued else ''}"


def parse_id(name: str) -> CheckpointId | None:
    """Return the checkpoint of this name; `None` where it is no checkpoint's."""
    match = _ID_PATTERN.fullmatch(name)
    return _id(*match.groups()) if match else None


def parse_claim(name: str) -> Claim | None:
    """Return the claim of this name; `None` where it is no claim's."""
    match = _CLAIM_PATTERN.fullmatch(name)
    if not match:
        return None
    epoch, attempt, word, *source = match.groups()
    token = Token(int(epoch), int(attempt))
    return Claim(token, _id(*source) if source[0] else None, word == "open")


def parse_proposal(name: str) -> Proposal | None:
    """Return the proposal of this name; `None` where it is none's."""
    match = _PROPOSAL_PATTERN.fullmatch(name)
    if not match:
        return None
    epoch, attempt, *checkpoint, continued = match.groups()
    return Proposal(Token(int(epoch), int(attempt)), _id(*checkpoint), bool(continued))


def proposed_last(proposals: Iterable[Proposal], token: Token) -> Proposal | None:
    """Return what attempt `token` proposed last: it goes from the newest to older ones.

    Those of the run that it continues come after its own.
    """
    own = (proposal for proposal in proposals if proposal.token == token)
    return min(own, key=lambda own: (not own.continued, own.checkpoint), default=None)


def fenced_off(token: Token, claims: Iterable[Claim]) -> Claim | None:
    """Return the claim that forbids attempt `token` to commit, if there is one."""
    newer = (claim for claim in claims if claim.token > token)
    return max(newer, key=lambda claim: claim.token, default=None)


def counting(
    ids: Iterable[CheckpointId], claims: Iterable[Claim], before: int | None = None
) -> list[CheckpointId]:
    """Return those of the checkpoints `ids` that count, newest first.

    With `before`, only those of steps below it.
    """
    last = _last_steps(claims)
    return sorted(
        (
            checkpoint
            for checkpoint in ids
            if checkpoint.token in last
            and _within(checkpoint.step, last[checkpoint.token])
            and (before is None or checkpoint.step < before)
        ),
        reverse=True,
    )


def surplus(
    ids: Iterable[CheckpointId],
    claims: Iterable[Claim],
    kept: Iterable[CheckpointId],
    newest: CheckpointId,
) -> list[CheckpointId]:
    """Return what the attempt that has just made `newest` may remove, oldest first.

    That is all but what is `kept`, what the attempt went on from, what it is about to make, and
    what belongs to an attempt after it.
    """
    sources = {claim.source for claim in claims if claim.token == newest.token}
    spared = {*kept, newest} | sources
    return sorted(
        checkpoint
        for checkpoint in ids
        if checkpoint not in spared
        and (
            checkpoint.token < newest.token
            or (checkpoint.token == newest.token and checkpoint.step < newest.step)
        )
    )


def _last_steps(claims: Iterable[Claim]) -> Mapping[Token, int | None]:
    """Return for each attempt whose checkpoints count the last step of those; `None` is all."""
    settled = {claim.token: claim for claim in claims if not claim.open}
    last: dict[Token, int | None] = {}
    token, bound = max(settled, default=None), None
    while token is not None:
        last[token] = bound
        claim = settled.get(token)
        source = claim.source if claim else None
        older = source if source and source.token < token else None
        token, bound = (older.token, older.step) if older else (None, None)
    return last


def _within(step: int, last: int | None) -> bool:
    return last is None or step <= last


def _id(step: str, epoch: str, attempt: str) -> CheckpointId:
    return CheckpointId(int(step), Token(int(epoch), int(attempt)))
