"""Around what may break without breaking a run: an exception becomes a value.

Two kinds of callers use it. What *tells* (log lines, metric points, the terminal, the tracker) is
called by `BestEffort`: an error is counted, said once, and the run goes on. What *acts* on behalf
of a run (the database, the pools) is called by `outcome`, and the caller decides what follows.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from orchestrator.core.errors import ClusterError, StaleControllerError
from orchestrator.messages import Untold

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Another controller has the run, or the cluster is gone: whoever drives the run must know.
DECISIVE = (StaleControllerError, ClusterError)
LONGEST_REASON = 300


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What a call returned, or the error that it raised."""

    value: T | None = None
    error: Exception | None = None


def outcome(call: Callable[[], T], *, but: tuple[type[Exception], ...] = DECISIVE) -> Outcome[T]:
    """Call, and return what came of it; errors of the kinds `but` are raised."""
    try:
        return Outcome(value=call())
    except but:
        raise
    except Exception as error:  # noqa: BLE001 - the boundary itself
        return Outcome(error=error)


def reason(error: BaseException) -> str:
    """Return what `error` says, on one line."""
    message = getattr(error, "strerror", None) or str(error)
    line = " ".join(str(message).encode("utf-8", "backslashreplace").decode().split())
    return line[:LONGEST_REASON] or type(error).__name__


class BestEffort:
    """Calls what tells of a run. Safe to use from several threads.

    Each `what` is a phrase in the plural: `log lines were not written`.
    """

    def __init__(self) -> None:
        """Nothing has failed yet."""
        self._lock = threading.Lock()
        self._untold: dict[str, Untold] = {}

    def tell(
        self,
        what: str,
        call: Callable[[], object],
        *,
        but: tuple[type[Exception], ...] = (StaleControllerError,),
    ) -> bool:
        """Call; return whether that went through. What failed is counted as `what`."""
        error = outcome(call, but=but).error
        if error is not None:
            self.failed(what, error)
        return error is None

    def failed(self, what: str, error: BaseException, count: int = 1) -> None:
        """Count `count` times `what`; the first error of its kind is said at once."""
        with self._lock:
            before = self._untold.get(what)
            known = before.count if before else 0
            self._untold[what] = Untold(what, known + count, reason(error))
        if before is None:
            logger.warning("%s; the run goes on", Untold(what, count, reason(error)))

    @property
    def untold(self) -> tuple[Untold, ...]:
        """What was not told so far."""
        with self._lock:
            return tuple(self._untold.values())
