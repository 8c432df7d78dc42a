"""Servers of this process, each in a thread of its own: replicas, and the gateway."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from random import Random

import uvicorn

from jobs.engines.echo import EchoEngine
from orchestrator.ports import Clock
from orchestrator.serving.gateway.access_log import RequestRecord
from orchestrator.serving.gateway.app import gateway
from orchestrator.serving.gateway.edge import Edge, for_browsers, metrics_alone
from orchestrator.serving.gateway.gateway_metrics import Metrics
from orchestrator.serving.gateway.routes import EndpointRoute, RevisionRoute, Table
from orchestrator.serving.http.asgi import Application, Handler, Receive, Scope, Send
from orchestrator.serving.http.request_limits import GatewayLimits
from orchestrator.serving.http.server import Listening, Server
from orchestrator.serving.replica.app import replica
from tests.jobs.engines.tiny_llama import HARDWARE

# For those whose replica does not answer: it is waited for no longer.
SOON = GatewayLimits(absent_seconds=0.3, gone_seconds=0.3, connect_seconds=0.3)


class FixedClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1_700_000_000.5

    def monotonic(self) -> float:
        return 1.0

    def sleep(self, seconds: float) -> None:
        pass


class Board:
    """Routes that a test writes."""

    def __init__(self, *endpoints: EndpointRoute, **more: object) -> None:
        self.seconds_old = 0.0
        self._table = Table(endpoints={route.name: route for route in endpoints}, **more)  # type: ignore[arg-type]

    def table(self) -> Table:
        return self._table

    def age(self) -> float:
        return self.seconds_old

    def asking(self, endpoint: str) -> AbstractContextManager[None]:
        return nullcontext()

    def put(self, route: EndpointRoute) -> None:
        self._table = replace(self._table, endpoints={**self._table.endpoints, route.name: route})

    def remove(self, name: str) -> None:
        rest = {key: route for key, route in self._table.endpoints.items() if key != name}
        self._table = replace(self._table, endpoints=rest)


def revision(name: str, *urls: str, share: int = 100, **more: str) -> RevisionRoute:
    return RevisionRoute(name=name, pool=f"pool-{name}", share=share, urls=urls, **more)  # type: ignore[arg-type]


def echo_engine(
    delay: float = 0.0, max_context: int = 4096, version: str | None = None
) -> EchoEngine:
    return EchoEngine(Path(), HARDWARE, delay=delay, max_context=max_context, version=version)


@contextmanager
def serving(app: Application) -> Iterator[str]:
    """Serve `app` by plain uvicorn on a free port; give its base URL."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", lifespan="off")
    with _running(uvicorn.Server(config)) as url:
        yield url


@contextmanager
def echoing(
    *engines: EchoEngine, name: str = "echo", token: str = "", version: str = ""
) -> Iterator[list[str]]:
    """Serve replicas of echo engines; give their base URLs."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                serving(replica(engine, name, FixedClock(), token=token, version=version))
            )
            for engine in engines
        ]


@contextmanager
def gateway_of(  # noqa: PLR0913 - each test wants another part of it
    board: Board,
    limits: GatewayLimits | None = None,
    clock: Clock | None = None,
    *,
    origins: Sequence[str] = (),
    at: Listening | None = None,
    record: Callable[[RequestRecord], None] | None = None,
    around: Callable[[Handler], Handler] = lambda app: app,
) -> Iterator[str]:
    """Serve the gateway as its own process would, with `/metrics`; give its base URL."""
    limits, metrics = limits or GatewayLimits(), Metrics(board)
    rng = Random(0)  # noqa: S311 - no secret
    clock = clock or FixedClock()
    app = gateway(board, clock, limits, rng=rng, metrics=metrics)
    told = metrics_alone(metrics)

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (told if scope.get("path") == "/metrics" else app)(scope, receive, send)

    edge = Edge(around(both), board, clock, record)
    if at is not None:
        at = replace(at, metrics=metrics_alone(metrics))
    with _running(Server(for_browsers(edge, origins), limits, at)) as url:
        yield url.replace("http:", "https:") if at is not None and at.certificate else url


def becomes_idle(engine: EchoEngine) -> bool:
    for _ in range(200):
        if not engine.active:
            return True
        time.sleep(0.01)  # noqa: TID251 - a server in another thread needs real time
    return False


@contextmanager
def _running(server: uvicorn.Server) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
