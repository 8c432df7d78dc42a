"""Whether the head of the cluster still answers.

Ray itself waits a minute for a lost head, in whatever call comes first, and then ends the process
of the caller. So nothing is asked of Ray while the head's port is closed.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.adapters.raycluster import access

LOOK_SECONDS = 1.0
PATIENCE = 120.0  # a busy head, or one that is moved to another machine, is back by then
MANAGED_PATIENCE = 4.0  # of a cluster on this machine, whose supervisor would start no other
_PROBE_SECONDS = 0.5


class Head:
    """The head node at `address`."""

    def __init__(
        self, address: str, patience: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Take it to be there; after `patience` seconds of silence it is gone."""
        self.address = address
        self._patience = patience
        self._now = now
        self._next_look = 0.0
        self._missed_since: float | None = None

    @property
    def answers(self) -> bool:
        """Whether it answers, as far as is known; looks again now and then."""
        if self._now() >= self._next_look:
            self.look()
        return self._missed_since is None

    @property
    def gone(self) -> bool:
        """Whether it has not answered for so long that it will not."""
        since = self._missed_since
        return since is not None and self._now() - since > self._patience

    def look(self) -> bool:
        """Look now; return whether it answers."""
        answers = access.answers(*access.split(self.address), _PROBE_SECONDS)
        now = self._now()
        self._next_look = now + LOOK_SECONDS
        if answers:
            self._missed_since = None
        elif self._missed_since is None:
            self._missed_since = now
        return answers
