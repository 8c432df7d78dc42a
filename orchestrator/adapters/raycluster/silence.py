"""Which workers are not heard any more, although they show that they live every second."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.policy import AUTO, Hanging
from orchestrator.messages import Alive, Message

# A worker that lives is heard sooner most times: where others hang, it is what they wait for.
SUSPECT_SECONDS = 3.0


class Silence:
    """When each worker was last heard. Times in seconds; `hang` is how long a hang is.

    A worker shows that it lives whatever its job does, so `auto` is the least that it can be, by
    `waits`; their `margin` is within which it is heard, on a busy host too.
    """

    def __init__(self, hang: Hanging, waits: AttemptSettings = PATIENT) -> None:
        """Have heard nobody yet."""
        self._hang = waits.hang if hang == AUTO else hang
        self._margin = waits.margin
        self._last: dict[int, float] = {}
        self._looked: float | None = None

    def listen(self, now: float) -> None:
        """Begin to listen at `now`. Who did not listen for long counts nobody as silent."""
        if self._looked is not None and now - self._looked > SUSPECT_SECONDS:
            self._last = dict.fromkeys(self._last, now)
        self._looked = now

    def heard(self, rank: int, message: Message, now: float) -> None:
        """Take notice; only who shows that it lives, by `Alive`, can be missed later."""
        if isinstance(message, Alive) or rank in self._last:
            self._last[rank] = now

    def of(
        self, ranks: Collection[int], now: float, *, hurry: bool
    ) -> Iterator[tuple[int, float]]:
        """Yield those of `ranks` that are silent for too long, with for how many seconds."""
        if self._hang is None:
            return
        most = SUSPECT_SECONDS if hurry else self._hang + min(self._hang, self._margin)
        for rank in sorted(ranks & self._last.keys()):
            silent = now - self._last[rank]
            if silent > most:
                yield rank, silent
