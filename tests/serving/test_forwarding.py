"""What the forwarder makes of an answer's parts."""

from __future__ import annotations

import asyncio
import time
from random import Random
from typing import Any, Self

from orchestrator.serving.gateway.budget import Budget
from orchestrator.serving.gateway.forwarding import Forwarder
from orchestrator.serving.gateway.gateway_metrics import Metrics, Tally
from orchestrator.serving.gateway.inbound import InboundRequest
from orchestrator.serving.gateway.response import DiscardedResponse
from orchestrator.serving.gateway.routes import EndpointRoute
from orchestrator.serving.gateway.slots import Slots
from orchestrator.serving.http.request_limits import GatewayLimits
from tests.serving.http_server import Board, revision


class Parts:
    """A server whose answer comes in so many small parts."""

    status = 200
    headers = {"content-type": "application/json"}  # noqa: RUF012 - read alone

    def __init__(self, count: int) -> None:
        self._left = count

    def exchange(self, *_: object, **__: object) -> Parts:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def read(self) -> bytes:
        self._left -= 1
        return b"a" * 4096 if self._left >= 0 else b""


def test_an_answer_of_many_parts_is_joined_once() -> None:
    """Adding each to all before takes seconds for these 16 MiB, in which nobody is answered."""
    board = Board(EndpointRoute(name="echo", revisions=(revision("r1", "http://a:1"),)))
    limits, tally, server = GatewayLimits(), Tally(0.0), Parts(4096)
    slots = Slots(board, limits, Random(0))  # noqa: S311 - no secret
    parts: Any = (slots, server, Metrics(board), limits, Budget(limits.buffered_bytes))
    request = InboundRequest(endpoint="echo", path="/v1/completions", body=b"{}")
    began = time.process_time()
    asyncio.run(Forwarder(*parts).forward(request, DiscardedResponse(), tally))
    assert tally.status == 200
    assert time.process_time() - began < 1.5
