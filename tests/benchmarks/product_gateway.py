"""The gateway as it is served, before one replica: `... product_gateway URL PORT KEY`.

All that a request meets in the product is there: what stands before the gateway, a key with
limits, and a ledger that writes what is used. The routes alone are fixed.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from orchestrator import wiring
from orchestrator.core.endpoints.api_keys import ApiKey, Requirement
from orchestrator.serving.gateway.app import gateway
from orchestrator.serving.gateway.edge import Edge
from orchestrator.serving.gateway.ledger import StoreLedger
from orchestrator.serving.gateway.routes import Table
from orchestrator.serving.http.server import Listening, serve
from tests.serving.process import Fixed

MANY = 1_000_000_000


class Keyed(Fixed):
    """Routes that stand, behind a key with limits."""

    def __init__(self, url: str, key: str) -> None:
        """Take the replica, and the only key."""
        super().__init__(url)
        digest = sha256(key.encode()).hexdigest()
        known = ApiKey(name="bench", digest=digest, requests=MANY, tokens=MANY, parallel=MANY)
        self._all = replace(super().table(), keys={digest: known}, required=Requirement.ON)

    def table(self) -> Table:
        """Return the table."""
        return self._all


def main(url: str, port: str, key: str) -> None:
    """Serve until a signal ends the process."""
    routes, clock = Keyed(url, key), wiring.clock()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ledger = StoreLedger(wiring.database(Path(folder)), routes, clock, "bench").start()
        app = gateway(routes, clock, ledger=ledger)
        serve(Edge(app, routes, clock), Listening(host="127.0.0.1", port=int(port)))
        ledger.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
