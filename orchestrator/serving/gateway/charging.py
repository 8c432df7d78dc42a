"""What a request is charged: reserved when it is let in, settled when it has ended."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from orchestrator.serving.gateway.gateway_metrics import Tally
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.http.api_errors import CLIENT_LEFT

BYTES_A_TOKEN = 4
# Paths of models that make tokens, and of those that only read them; others cost what they tell.
MAKING = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"})
READING = frozenset(
    f"{root}/{name}"
    for root in ("", "/v1", "/v2")
    for name in ("embeddings", "rerank", "score", "classify", "pooling")
)
_UNSAID = 256  # tokens of an answer, reserved where the client says no number
_HOUR = 3600.0
_FADES = 0.98  # weight of an answer's time once another has been made


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


@dataclass(slots=True)
class _TokenPace:
    """Seconds in a slot, tokens and answers of late; older ones count less."""

    seconds: float = 0.0
    tokens: float = 0.0
    answers: float = 0.0

    def add(self, seconds: float, tokens: int) -> None:
        self.seconds = self.seconds * _FADES + seconds
        self.tokens = self.tokens * _FADES + tokens
        self.answers = self.answers * _FADES + 1


class Prices:
    """What answers may cost, by the time that those of their endpoint took lately.

    An answer costs its seconds in a slot of a replica: what that costs an hour, over its slots.
    """

    def __init__(self, longest: float) -> None:
        """Take for how many seconds the gateway lets an answer go on."""
        self._longest = longest
        self._paces: dict[str, _TokenPace] = {}

    def most(self, route: EndpointRoute, choices: int, max_tokens: int | None) -> float:
        """Return what so many choices of at most `max_tokens` tokens may cost, in US dollars.

        Where nothing is known of their number or their time it is that of the longest answer.
        """
        price = max(
            (
                revision.hourly / (revision.concurrency or route.concurrency)
                for revision in route.revisions
            ),
            default=0.0,
        )
        return choices * price / _HOUR * min(self._longest, self._seconds(route, max_tokens))

    def _seconds(self, route: EndpointRoute, max_tokens: int | None) -> float:
        pace = self._paces.get(route.name)
        if pace is None:
            return self._longest
        if not pace.tokens:  # it embeds, or predicts
            return pace.seconds / pace.answers
        return self._longest if max_tokens is None else max_tokens * pace.seconds / pace.tokens

    def add(self, endpoint: str, tally: Tally) -> None:
        """Learn of an answer to its end."""
        if HTTPStatus.OK <= tally.status < HTTPStatus.MULTIPLE_CHOICES and tally.sent:
            seconds = max(0.0, tally.last - tally.sent) * tally.size
            self._paces.setdefault(endpoint, _TokenPace()).add(seconds, tally.completion_tokens)
