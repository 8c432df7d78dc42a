"""The service that answers the clients of endpoints."""

from __future__ import annotations

import os
import secrets

from orchestrator import wiring
from orchestrator.controller.monotonic import MonotonicClock
from orchestrator.core.endpoints.gateway_entry import Gateway
from orchestrator.ports import Clock
from orchestrator.serving.gateway.access_log import AccessLog
from orchestrator.serving.gateway.app import gateway
from orchestrator.serving.gateway.edge import Edge, for_browsers, metrics_alone
from orchestrator.serving.gateway.gateway_metrics import Metrics
from orchestrator.serving.gateway.ledger import StoreLedger
from orchestrator.serving.gateway.reporting import Reporter
from orchestrator.serving.gateway.route_table import StoreRoutes
from orchestrator.serving.http.server import Listening, serve


def run(settings_file: str, url: str, cluster: str, number: int) -> None:
    """Serve until a signal ends the process; answers in progress end first.

    Of several processes that serve one port, `number` tells which one this is.
    """
    home = wiring.home()
    clock = shared_clock()
    settings = wiring.gateway_settings(settings_file)
    limits = wiring.gateway_limits(settings)
    routes = StoreRoutes(wiring.database(home), wiring.outside_key, clock)
    metrics = Metrics(routes)
    reporter = Reporter(wiring.database(home), _of(url, cluster), metrics.by_endpoint, clock)
    ledger = StoreLedger(wiring.database(home), routes, clock, name_of(settings.port, number))
    log = AccessLog(settings.access_log) if settings.access_log else None
    app = gateway(routes, clock, limits, metrics=metrics, ledger=ledger)
    tracing = wiring.tracing()
    edge = Edge(tracing.around(app) if tracing else app, routes, clock, log.add if log else None)
    listening = Listening(
        host=settings.host,
        port=settings.port,
        certificate=settings.tls.certificate,
        key=settings.tls.key,
        shared=settings.processes > 1,
        metrics=metrics_alone(metrics),
        metrics_at=None
        if settings.metrics.port is None
        else (settings.metrics.host, settings.metrics.port + number),
    )
    ledger.start()
    serve(for_browsers(edge, settings.cors.origins), listening, limits)
    ledger.close()
    reporter.close()
    routes.close()
    if log is not None:
        log.close()
    if tracing is not None:
        tracing.close()


def shared_clock() -> Clock:
    """Return the clock by which keys and months end: that of the database, as all gateways have.

    Raises:
        StoreError: The database can't be asked.
    """
    return MonotonicClock(wiring.clock(), wiring.database(wiring.home()).now())


def name_of(port: int, number: int) -> str:
    """Return what the usage of a process is kept by: no other has that, and its successor has."""
    return f"{wiring.machine()}:{port}{f'#{number}' if number else ''}"


def _of(url: str, cluster: str) -> Gateway:
    name = f"{wiring.host()}-{os.getpid()}-{secrets.token_hex(4)}"
    return Gateway(name=name, url=url, host=wiring.machine(), pid=os.getpid(), cluster=cluster)
