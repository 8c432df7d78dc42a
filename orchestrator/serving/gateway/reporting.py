"""What a gateway tells the database: that it lives, where it is, and what it has counted.

A rollout judges the sum over all gateways, so each writes its own counts, by endpoint, whenever
they have changed. That is done by a thread: no request waits for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from orchestrator.core.endpoints.gateway_entry import Gateway
from orchestrator.error_boundary import outcome, reason
from orchestrator.ports import Clock, GatewayStore

SECONDS_BETWEEN_REPORTS = 1.0
SECONDS_BETWEEN_SIGNS = 4.0
logger = logging.getLogger(__name__)


class Reporter:
    """Reports until it is closed. `counts` returns what was counted, by endpoint."""

    def __init__(
        self,
        store: GatewayStore,
        gateway: Gateway,
        counts: Callable[[], Mapping[str, str]],
        clock: Clock,
    ) -> None:
        """Report once, and go on in a thread.

        Raises:
            StoreError: The database can't be written.
        """
        self._store = store
        self._gateway = gateway
        self._counts = counts
        self._clock = clock
        self._reported: dict[str, str] = {}
        self._signed = 0.0
        self._trouble = ""
        self._sign()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reports", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report for the last time, and that the gateway has ended."""
        self._closed.set()
        self._thread.join()
        outcome(self.report, but=())
        outcome(lambda: self._store.drop_gateway(self._gateway.name), but=())

    def report(self) -> None:
        """Write what has changed.

        Raises:
            StoreError: The database can't be written.
        """
        counts = self._counts()
        changed = {name: text for name, text in counts.items() if self._reported.get(name) != text}
        if changed:
            self._store.note_counts(self._gateway.name, changed)
            self._reported.update(changed)
        if self._clock.monotonic() - self._signed >= SECONDS_BETWEEN_SIGNS:
            self._sign()

    def _sign(self) -> None:
        self._store.note_gateway(self._gateway)
        self._signed = self._clock.monotonic()

    def _work(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_REPORTS):
            error = outcome(self.report, but=()).error
            trouble = "" if error is None else f"{type(error).__name__}: {reason(error)}"
            if trouble and trouble != self._trouble:
                logger.warning("the gateway can't report: %s", trouble)
            self._trouble = trouble
