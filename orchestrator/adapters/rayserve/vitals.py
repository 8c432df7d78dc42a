"""Whether an engine server is well, by what is seen of it: its process alone does not tell.

A core that died may leave a server that answers; one that hangs says that it is well; one that
computes rubbish answers 200. So four things count: the process, what it says of its health,
whether requests that run get tokens, and what it answers to a request of one token, which it is
asked again and again, whether it is busy or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.adapters.rayserve.engine_figures import Figures, Rank
from orchestrator.core.spec.engines import EngineSpec

BAD_PROBES = 2  # in a row
_BROKEN = frozenset({"abort", "error"})


class Vitals:
    """The health of one engine, from looks and probes, each at a moment in seconds."""

    def __init__(self, spec: EngineSpec, now: float) -> None:
        self._spec = spec
        self._unwell = 0
        self._bad = 0
        self._tokens: float | None = None
        self._moved = now  # when it last made a token
        # Of each of its cores its tokens, and since when requests run there and get none.
        self._ranks: dict[Rank, tuple[float, float]] = {}
        self._probed = now
        self._suspect = 0.0
        self.fault = ""

    def ended(self, how: str) -> None:
        """Its process is gone."""
        self._break(f"it ended {how}")

    def looked(self, now: float, unwell: str, figures: Figures) -> None:
        """It said that it is `unwell` (empty: well), and how busy it is."""
        self._unwell = self._unwell + 1 if unwell else 0
        if self._unwell >= self._spec.unwell:
            self._break(f"{unwell}, {self._unwell} times in a row")
        if figures.suspect > self._suspect:
            self._probed = -math.inf
        self._suspect = figures.suspect
        tokens = figures.tokens
        if tokens is not None and tokens != self._tokens:
            self._tokens, self._moved = tokens, now
        for rank, (running, tokens_of_rank) in figures.ranks.items():
            before, since = self._ranks.get(rank, (tokens_of_rank, now))
            since = since if running and tokens_of_rank == before else now
            self._ranks[rank] = tokens_of_rank, since
            if now - since >= self._spec.deadline:
                stood = f"{now - since:.0f} s"
                self._break(f"{running:g} requests run, and none has got a token for {stood}")

    def is_due(self, now: float) -> bool:
        """Whether it is to be asked for a token."""
        return now - self._probed >= self._spec.probe_seconds

    def note_token(self, began: float, now: float, wrong: str) -> None:
        """A token was asked for at `began`; `wrong` is why there was none (empty: there was).

        While others got tokens one that did not come stood in a queue, and says nothing.
        """
        late = now - began >= self._spec.deadline
        if not wrong or (late and self._moved > began):
            self._bad, self._probed = 0, now
            return
        self._bad += 1
        if self._bad >= BAD_PROBES or late:
            self._break(f"asked for one token: {wrong}")

    def _break(self, why: str) -> None:
        self.fault = self.fault or f"engine {self._spec.name!r} is broken: {why}"


def wrong_in(answer: Any) -> str:  # noqa: ANN401 - JSON
    """Return what is wrong with an answer of one token or of embeddings; empty: nothing is."""
    if not isinstance(answer, Mapping):
        return f"the answer is no object: {str(answer)[:100]!r}"
    if isinstance(answer.get("data"), list):
        return _wrong_embedding(answer["data"])
    choices = answer.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        return "the answer has no choices"
    finish = choice.get("finish_reason")
    if finish in _BROKEN:
        return f"it finished by {finish!r}"
    for value in _scores(choice):
        if not _is_finite(value):
            return f"a log-probability is {value!r}"
    return ""


def _scores(choice: Mapping[str, Any]) -> Iterator[object]:
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
    yield from values if isinstance(values, list) else ()


def _wrong_embedding(data: list[Any]) -> str:
    vector = data[0].get("embedding") if data and isinstance(data[0], Mapping) else None
    if not vector:
        return "the answer has no embedding"
    values = vector if isinstance(vector, list) else ()
    wrong = next((value for value in values if not _is_finite(value)), None)
    return "" if wrong is None else f"a number of an embedding is {wrong!r}"


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
