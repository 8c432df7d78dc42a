"""How many tokens a model takes, as its replicas tell it in their own `/v1/models`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic_core import from_json

from orchestrator.serving.gateway.inbound import InboundRequest
from orchestrator.serving.gateway.routes import EndpointRoute, RevisionRoute
from orchestrator.serving.gateway.upstream import (
    Broken,
    Exhausted,
    Unreachable,
    Upstream,
    address_of,
)

_PATH = "/v1/models"
_SECONDS = 2.0  # that one replica may take
_KEPT, _AGAIN = 300.0, 5.0  # seconds that an answer holds, and that none was to be had
_TRIED = 2  # replicas of a revision, at most
_LONGEST = 1 << 20  # bytes of an answer that is read
_NAMES = ("max_model_len", "context_length", "max_context_length", "context_window")


class Cards:
    """What was told, by endpoint and revision."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._contexts: dict[tuple[str, str], tuple[float, int | None]] = {}

    async def max_model_len(self, route: EndpointRoute) -> int | None:
        """Return the tokens of a prompt and its answer that each revision with traffic takes."""
        taking = [revision for revision in route.revisions if revision.share > 0]
        lengths = await asyncio.gather(*(self._of(route, revision) for revision in taking))
        return min((length for length in lengths if length is not None), default=None)

    async def _of(self, route: EndpointRoute, revision: RevisionRoute) -> int | None:
        now = asyncio.get_running_loop().time()
        until, length = self._contexts.get((route.name, revision.name), (0.0, None))
        if now >= until:
            length = await self._ask(route, revision)
            self._contexts = {
                place: entry for place, entry in self._contexts.items() if entry[0] > now
            }
            until = now + (_AGAIN if length is None else _KEPT)
            self._contexts[route.name, revision.name] = (until, length)
        return length

    async def _ask(self, route: EndpointRoute, revision: RevisionRoute) -> int | None:
        """Ask one replica, and another where that does not answer."""
        request = InboundRequest(endpoint=route.name, path=_PATH, body=b"", method="GET")
        headers, _ = request.outbound(revision)
        for url in revision.urls[:_TRIED]:
            try:
                async with (
                    asyncio.timeout(_SECONDS),
                    self._upstream.exchange(
                        address_of(url, _PATH, revision.far),
                        headers,
                        b"",
                        method="GET",
                        far=revision.far,
                    ) as exchange,
                ):
                    body = bytearray()
                    while (part := await exchange.read()) and len(body) < _LONGEST:
                        body += part
                    if exchange.status == HTTPStatus.OK:
                        return _length_in(bytes(body), revision.model or route.name)
            except (TimeoutError, Unreachable, Broken, Exhausted):
                continue
        return None


def _length_in(body: bytes, model: str) -> int | None:
    """Return what a list of models says of `model`, or of its only one."""
    try:
        models = from_json(body)
    except ValueError:
        return None
    data = models.get("data") if isinstance(models, dict) else None
    cards = [card for card in data if isinstance(card, dict)] if isinstance(data, list) else []
    of = [card for card in cards if card.get("id") == model] or cards[: len(cards) == 1]
    return next((length for card in of if (length := _length_of(card))), None)


def _length_of(card: Mapping[str, Any]) -> int | None:
    lengths = (card.get(name) for name in _NAMES)
    return next((n for n in lengths if isinstance(n, int) and n is not True and n > 0), None)
