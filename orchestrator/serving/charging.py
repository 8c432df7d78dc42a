"""What a request is charged: reserved when it is let in, settled when it has ended."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.serving.errors import CLIENT_LEFT
from orchestrator.serving.metrics import Tally

BYTES_A_TOKEN = 4
_UNSAID = 256  # tokens of an answer, reserved where the client says no number


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens that a request may come to, as far as that can be said before it is answered."""

    prompt: int = 0
    completion: int = 0

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.prompt + self.completion


def estimate(body: bytes, choices: int, max_tokens: int | None) -> Estimate:
    """Return what a request for `choices` answers of at most `max_tokens` tokens may come to."""
    each = _UNSAID if max_tokens is None else max_tokens
    return Estimate(max(1, len(body) // BYTES_A_TOKEN), choices * each)


def used(tally: Tally, reserved: Estimate) -> Estimate:
    """Return what an answer came to.

    A stream that its client leaves costs its prompt and what was streamed; a whole answer that is
    not waited for, which may have been made to its end, what was reserved. Refusals and answers
    that no replica gave cost nothing.
    """
    if tally.first:
        return Estimate(tally.prompt_tokens or reserved.prompt, tally.completion_tokens)
    if tally.status == CLIENT_LEFT:
        return reserved
    return Estimate(tally.prompt_tokens, tally.completion_tokens)
