"""`orchestrator _gateway PORT`: the service that answers clients, in front of all replicas."""

from __future__ import annotations

import argparse

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.serving.edge import Edge
from orchestrator.serving.gateway import gateway
from orchestrator.serving.lookup import StoreRoutes
from orchestrator.serving.server import serve

HOST = "127.0.0.1"


def run(args: argparse.Namespace) -> Exit:
    """Serve until a signal ends the process; answers in progress end first."""
    store, clock = wiring.endpoint_store(wiring.home()), wiring.clock()
    routes = StoreRoutes(store, wiring.variable, clock)
    serve(Edge(gateway(routes, clock), routes), HOST, args.port)
    routes.close()
    return Exit.SUCCEEDED
