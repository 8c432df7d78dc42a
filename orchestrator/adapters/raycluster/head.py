"""Whether the head of the cluster still answers.

Ray itself waits a minute for a lost head, in whatever call comes first, and then ends the process
of the caller. So nothing is asked of Ray while the head's port is closed. A head that comes back
without what it knew is that of another cluster: nothing of this one is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.adapters.raycluster import access
from orchestrator.adapters.rayqueries import gcs
from orchestrator.core.errors import ClusterError
from orchestrator.core.settings import ClusterSettings

LOOK_SECONDS = 1.0
PATIENCE = ClusterSettings().patience  # a busy head, or one that is moved, is back by then
_PROBE_SECONDS = 0.5


class Head:
    """The head node at `address`. `anew` is whether it has come back without what it knew."""

    def __init__(
        self,
        address: str,
        patience: float,
        now: Callable[[], float] = time.monotonic,
        session: str = "",
    ) -> None:
        """Take it to be there; after `patience` seconds of silence it is gone.

        `session` is its name for the cluster, by which it is known again where that is given.
        """
        self.address = address
        self.anew = False
        self._patience = patience
        self._now = now
        self._session = session
        self._next_look = 0.0
        self._missed_since: float | None = None

    @property
    def answers(self) -> bool:
        """Whether it answers, as far as is known; looks again now and then."""
        if self._now() >= self._next_look:
            self.probe()
        return self._missed_since is None

    @property
    def lost(self) -> bool:
        """Whether it is another one, or has not answered for so long that it will not."""
        since = self._missed_since
        return self.anew or (since is not None and self._now() - since > self._patience)

    def probe(self, *, closely: bool = False) -> bool:
        """Ask it now; return whether it answers, `closely` whether it is still the same."""
        answers = access.answers(*access.split(self.address), _PROBE_SECONDS)
        if answers and self._session and (closely or self._missed_since is not None):
            answers = self._is_back()
        now = self._now()
        self._next_look = now + LOOK_SECONDS
        if answers:
            self._missed_since = None
        elif self._missed_since is None:
            self._missed_since = now
        return answers

    def _is_back(self) -> bool:
        """Return whether what listens again is the head that was there before."""
        try:
            session = gcs.session(self.address)
        except (ClusterError, gcs.HeadSilentError):  # busy, or another process has its port
            return False
        self.anew = bool(session) and session != self._session
        return session == self._session
