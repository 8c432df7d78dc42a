"""Look after servers that somebody else runs, whatever cluster an endpoint's other revisions use.

Each is asked now and then what it serves. One that does not answer several times in a row is noted
as troubled, until it answers: `endpoints` tells why, and gateways send it nothing while another
revision can answer. Of all processes that look, one holds the lease.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from orchestrator.core.settings import RECONCILER, ReconcilerSettings
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.endpoints.revisions import LeasedEndpoints
from orchestrator.error_boundary import outcome, reason

LEASE = "servers outside"  # in the place of a cluster's identity
SECONDS_OF_A_LEASE = 30.0  # beyond the time between two looks
_AT_ONCE = 8


class OutsideWatch:
    """Looks at all of them; `ask` raises where one does not answer."""

    def __init__(
        self,
        store: LeasedEndpoints,
        ask: Callable[[Outside], object],
        tell: Callable[[str], None],
        holder: str = "",
        when: ReconcilerSettings = RECONCILER,
    ) -> None:
        self._store = store
        self._ask = ask
        self._tell = tell
        self._holder, self._when = holder, when
        self._failures: dict[tuple[str, int], int] = {}

    def check(self) -> None:
        """Ask once, all of them at the same time.

        Raises:
            StoreError: The database does not answer.
        """
        servers = {
            (life.name, revision.number): revision.outside
            for life in self._store.endpoints().values()
            for revision in life.live
            if revision.outside is not None
        }
        seconds = self._when.outside + SECONDS_OF_A_LEASE
        if not servers or not self._store.hold(LEASE, self._holder, seconds):
            return
        self._failures = {place: n for place, n in self._failures.items() if place in servers}
        noted = self._store.troubles()
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for place, why in zip(servers, threads.map(self._why, servers.values()), strict=True):
                self._weigh(place, why, noted.get(place, ""))

    def _why(self, server: Outside) -> str:
        """Return why a server can't be asked; empty where it can."""
        error = outcome(lambda: self._ask(server), but=()).error
        return "" if error is None else reason(error)

    def _weigh(self, place: tuple[str, int], why: str, noted: str) -> None:
        """Note what has changed for certain."""
        failures = self._failures[place] = self._failures.get(place, 0) + 1 if why else 0
        name = f"{place[0]}.r{place[1]}"
        if not why and noted:
            self._store.note_trouble(*place, "")
            self._tell(f"{name} answers again")
        elif why and why != noted and (noted or failures >= self._when.outside_failures):
            self._store.note_trouble(*place, why)
            self._tell(f"{name} gets nothing while others can answer: {why}")
