"""What a request is charged: reserved when it is let in, settled when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.serving.errors import CLIENT_LEFT
from orchestrator.serving.metrics import Tally

BYTES_A_TOKEN = 4
# Paths of models that make tokens, and of those that only read them; others cost what they tell.
MAKING = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"})
READING = frozenset(
    f"{root}/{name}"
    for root in ("", "/v1", "/v2")
    for name in ("embeddings", "rerank", "score", "classify", "pooling")
)
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


def estimate(path: str, body: bytes, choices: int, max_tokens: int | None) -> Estimate:
    """Return what a request to `path` may come to.

    It is for `choices` answers of at most `max_tokens` tokens; `path` may have a query.
    """
    path = path.partition("?")[0]
    prompt = max(1, len(body) // BYTES_A_TOKEN)
    if path in MAKING:
        return Estimate(prompt, choices * (_UNSAID if max_tokens is None else max_tokens))
    return Estimate(prompt if path in READING else 0)


def used(tally: Tally, reserved: Estimate) -> Estimate:
    """Return what an answer came to.

    A stream that its client leaves costs its prompt and what was streamed; a whole answer that is
    not waited for, which may have been made to its end, what was reserved, and so does one that
    does not tell what it used. Refusals and answers that no replica gave cost nothing.
    """
    if tally.first:
        return Estimate(tally.prompt_tokens or reserved.prompt, tally.completion_tokens)
    untold = not tally.tokens and HTTPStatus.OK <= tally.status < HTTPStatus.MULTIPLE_CHOICES
    if tally.status == CLIENT_LEFT or untold:
        return reserved
    return Estimate(tally.prompt_tokens, tally.completion_tokens)
