"""Ends the process of a worker that was replaced while nobody hears what it says.

A controller that stands still, or is cut off, reads no stream; after some batches the stream waits
for it, and so does the look at the fence that each turn of the stream makes. The job trains on
meanwhile, and holds its chips.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.core.errors import StaleAttemptError

_POLL_SECONDS = 1.0  # between the beginning of a look and the question what it saw


@dataclass(slots=True)
class UnheardWatch:
    """Looks at the fence in place of a stream that stands still for `seconds`.

    Attributes:
        stale: Begins a look at the fence, and says what the last one saw.
        seconds: That a stream stands still before somebody else looks.
        over: Set once the stream is over.
        end: Ends the process, told why.
        turns: Of the stream until now.
    """

    stale: Callable[[], StaleAttemptError | None]
    seconds: float
    over: threading.Event
    end: Callable[[StaleAttemptError], None]
    turns: int = 0

    def begin(self) -> None:
        """Watch from a thread of its own, which keeps no process alive."""
        threading.Thread(target=self._watch, name="watches its stream", daemon=True).start()

    def _watch(self) -> None:
        turns = self.turns
        while not self.over.wait(self.seconds):
            if turns == self.turns and self._ended(turns):
                return
            turns = self.turns

    def _ended(self, turns: int) -> bool:
        """Look until the stream goes on; return whether the process was ended."""
        while turns == self.turns and not self.over.wait(_POLL_SECONDS):
            error = self.stale()
            if error is not None and turns == self.turns:
                self.end(error)
                return True
        return False
