"""A gateway for one replica, in a process: `python -m tests.serving.process URL LIMITS`."""

from __future__ import annotations

import json
import socket
import sys
from contextlib import AbstractContextManager, nullcontext

from orchestrator.adapters.clock import SystemClock
from orchestrator.serving.gateway.app import gateway
from orchestrator.serving.gateway.routes import EndpointRoute, RevisionRoute, Table
from orchestrator.serving.http.request_limits import GatewayLimits
from orchestrator.serving.http.server import Server


class Fixed:
    """Routes that stand."""

    def __init__(self, url: str) -> None:
        revision = RevisionRoute(name="r1", pool="p", share=100, urls=(url,))
        route = EndpointRoute(name="echo", revisions=(revision,))
        self._table = Table(endpoints={"echo": route})

    def table(self) -> Table:
        return self._table

    def age(self) -> float:
        return 0.0

    def asking(self, endpoint: str) -> AbstractContextManager[None]:
        return nullcontext()


def main(url: str, limits_text: str) -> None:
    """Serve on a free port, and print the address."""
    limits = GatewayLimits(**json.loads(limits_text))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    Server(gateway(Fixed(url), SystemClock(), limits), limits).run([listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
