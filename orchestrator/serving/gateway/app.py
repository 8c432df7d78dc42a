"""The gateway: the address that clients know, in front of the replicas of all endpoints.

It is an ASGI application in a process of its own. What is malformed, not allowed or too much ends
here; all else goes to a replica of the revision whose turn it is.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from http import HTTPStatus
from random import Random
from time import perf_counter

from orchestrator.core.endpoints.api_keys import ApiKey
from orchestrator.ports import Clock
from orchestrator.serving.gateway.budget import Budget
from orchestrator.serving.gateway.cards import Cards
from orchestrator.serving.gateway.charging import Estimate, Prices, estimate, used
from orchestrator.serving.gateway.fair_queue import Share
from orchestrator.serving.gateway.forwarding import OWN_PATHS, Forwarder
from orchestrator.serving.gateway.gateway_metrics import Metrics, Tally
from orchestrator.serving.gateway.inbound import (
    ROOT_PATHS,
    InboundRequest,
    inbound,
    is_passed,
    request_id,
)
from orchestrator.serving.gateway.ledger import Ledger, NoLedger
from orchestrator.serving.gateway.rate_limiter import Grant, RateLimiter, allowed
from orchestrator.serving.gateway.response import ANTHROPIC, Response
from orchestrator.serving.gateway.routes import EndpointRoute, Routes, Table
from orchestrator.serving.gateway.slots import Slots
from orchestrator.serving.gateway.upstream import Upstream
from orchestrator.serving.http.api_errors import (
    CLIENT_LEFT,
    ApiError,
    unknown_model,
    unknown_url,
    wrong_method,
)
from orchestrator.serving.http.asgi import (
    ANSWER_SECONDS,
    Application,
    Receive,
    Scope,
    Send,
    answer,
    bearer,
    body_of,
    header,
    path_of,
    write_of,
)
from orchestrator.serving.http.cancellation import CancelScope
from orchestrator.serving.http.encoding import encode
from orchestrator.serving.http.openapi import Kinds, document
from orchestrator.serving.http.request_limits import GatewayLimits

_MODELS = "/v1/models"
_PLAIN = frozenset({"GET", "DELETE"})  # methods without a body: an endpoint must be named
_NOBODY_SLEEPS = nullcontext()
_FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-real-ip", b"via")


def gateway(
    routes: Routes,
    clock: Clock,
    limits: GatewayLimits | None = None,
    *,
    rng: Random | None = None,
    metrics: Metrics | None = None,
    ledger: Ledger | None = None,
) -> Application:
    """Return the application.

    Args:
        routes: Where it looks the endpoints, their revisions and the API keys up.
        clock: For the expiry and the allowances of keys.
        limits: Of connections, requests and waiting.
        rng: What spreads the traffic by shares; a seeded one makes that repeatable.
        metrics: What counts; others may read it.
        ledger: Where it notes what is used.
    """
    parts = _GatewayParts(
        limits or GatewayLimits(),
        rng or Random(),  # noqa: S311 - no secret
        metrics or Metrics(routes),
        ledger or NoLedger(),
    )
    handler = _GatewayApp(routes, clock, parts)
    return Application(handler.handle, handler.close)


@dataclass(slots=True)
class _ClientCall:
    """A request: the endpoint that its path names, or nothing, and the path below that."""

    scope: Scope
    table: Table
    endpoint: str
    path: str

    def visible(self, key: ApiKey | None) -> list[str]:
        """Return the names of the models that may be asked for here."""
        if self.endpoint and self.endpoint not in self.table.endpoints:
            return []
        names = [self.endpoint] if self.endpoint else self.table.endpoints
        return [name for name in names if allowed(key, name)]


@dataclass(frozen=True, slots=True)
class _GatewayParts:
    """What a gateway is made with, beside its routes."""

    limits: GatewayLimits
    rng: Random
    metrics: Metrics
    ledger: Ledger


class _GatewayApp:
    def __init__(self, routes: Routes, clock: Clock, parts: _GatewayParts) -> None:
        self._routes = routes
        self._limits = limits = parts.limits
        self._ledger = parts.ledger
        self._limiter = RateLimiter(clock, parts.ledger)
        self._prices = Prices(limits.request_seconds)
        self._since = int(clock.now())
        self._longest = (ANSWER_SECONDS, f"{limits.request_seconds:.3f}")
        slots = Slots(routes, limits, parts.rng)
        self._metrics = parts.metrics
        parts.metrics.watch(slots)
        self._budget = Budget(limits.buffered_bytes)
        upstream = Upstream(limits)
        self._cards = Cards(upstream)
        self._forwarder = Forwarder(slots, upstream, self._metrics, limits, self._budget)

    async def close(self) -> None:
        await self._forwarder.close()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; count what is refused."""
        began = perf_counter()
        table = self._routes.table()
        endpoint, path = _split(path_of(scope))
        call = _ClientCall(scope, table, endpoint, path)
        response = Response(send, write_of(scope))
        response.path = path
        own = path == _MODELS or path.startswith(f"{_MODELS}/")
        tally, refused = Tally(began), 0
        try:
            if is_passed(path) and not own:
                scope["tally"] = tally
                await self._forward(call, receive, response, tally)
            else:
                await self._get(call, send)
        except ApiError as error:
            known = endpoint if endpoint in table.endpoints else ""
            refused = error.status
            self._metrics.refused(known, refused)
            await response.fail(error)
        except asyncio.CancelledError:  # the server ends, and this has taken too long
            await response.fail(
                ApiError(503, "the gateway is ending", code="ending", retry_after=1)
            )
        finally:
            if "tally" in scope:
                status = refused or tally.status or CLIENT_LEFT
                self._metrics.keys.count(tally.endpoint, tally.key, status, tally.queued)

    async def _get(self, call: _ClientCall, send: Send) -> None:
        path, method = call.scope["path"], call.scope["method"]
        body = None
        if path == "/health":
            body = b'{"status":"ok"}'
        elif path == "/openapi.json":
            body = document(_kinds(call.table))
        elif call.path == _MODELS or call.path.startswith(f"{_MODELS}/"):
            key = self._identify(call)
            body = encode(await self._listed(call, key))
        if body is None:
            raise unknown_url(method, path)
        if method != "GET":
            raise wrong_method(method, path, "GET")
        await answer(send, 200, body)

    async def _forward(
        self, call: _ClientCall, receive: Receive, response: Response, tally: Tally
    ) -> None:
        scope = call.scope
        name = request_id(scope) or uuid.uuid4().hex
        response.headers = [(b"x-request-id", name.encode())]
        plain = call.endpoint and call.path not in OWN_PATHS and scope["method"] in _PLAIN
        known = scope["method"] == "POST" or plain
        if not known:
            raise wrong_method(scope["method"], scope["path"], "POST")
        key = self._identify(call)
        tally.key = "" if key is None else key.name
        with self._budget.holding() as held:
            body = await body_of(scope, receive, self._limits.body_bytes, held.add)
            request = inbound(scope, call.path, call.endpoint, body, self._limits)
            route = self._route(call, key, request.endpoint)
            request = replace(
                request,
                client=_client(route, key, scope),
                headers=[*request.headers, ("x-request-id", name), self._longest],
                share=_share(key, request),
            )
            await self._answer(request, route, key, receive, response, tally)

    async def _answer(
        self,
        request: InboundRequest,
        route: EndpointRoute,
        key: ApiKey | None,
        receive: Receive,
        response: Response,
        tally: Tally,
    ) -> None:
        reserved = estimate(request.path, request.body, request.choices, request.max_tokens)
        tally.endpoint = route.name
        cost = self._prices.most(route, request.choices, request.max_tokens)
        grant = self._limiter.admit(key, reserved, cost)
        if request.streams:
            response.keep_alive(self._limits.heartbeat_seconds)
        try:
            with self._asking(route), CancelScope(receive, self._limits.request_seconds):
                await self._forwarder.forward(request, response, tally)
        except ApiError as error:
            if error.status == HTTPStatus.GATEWAY_TIMEOUT:
                self._forwarder.late(tally)
            raise
        finally:
            response.silence()
            self._settle(grant, route, tally, used(tally, reserved))
        await response.end()

    def _settle(
        self, grant: Grant | None, route: EndpointRoute, tally: Tally, charged: Estimate
    ) -> None:
        self._limiter.settle(grant, charged.tokens)
        self._metrics.keys.use(tally.endpoint, tally.key, charged.prompt, charged.completion)
        self._prices.add(route.name, tally)
        self._ledger.add("" if grant is None else grant.key.name, route, tally, charged)

    def _identify(self, call: _ClientCall) -> ApiKey | None:
        return self._limiter.identify(call.table, _token(call), _host(call.scope))

    def _asking(self, route: EndpointRoute) -> AbstractContextManager[None]:
        return self._routes.asking(route.name) if route.rests else _NOBODY_SLEEPS

    def _route(self, call: _ClientCall, key: ApiKey | None, model: str) -> EndpointRoute:
        route = call.table.endpoints.get(call.endpoint or model)
        other = call.endpoint and model != call.endpoint
        if not model and not call.endpoint:
            names = _named(call.visible(key))
            raise ApiError(400, f"model: none is named; there is {names}", param="model")
        if route is None or other or not allowed(key, route.name):  # one answer: no oracle
            raise unknown_model(model, _named(call.visible(key)))
        return route

    async def _listed(self, call: _ClientCall, key: ApiKey | None) -> object:
        names = call.visible(key)
        wanted = call.path.removeprefix(_MODELS).removeprefix("/")
        unknown = wanted if wanted and wanted not in names else "" if names else call.endpoint
        if unknown:
            raise unknown_model(unknown, _named(names))
        if wanted:
            return await self._card(call.table.endpoints[wanted])
        routes = [call.table.endpoints[name] for name in names]
        return {"object": "list", "data": await asyncio.gather(*map(self._card, routes))}

    async def _card(self, route: EndpointRoute) -> dict[str, object]:
        created = route.created or self._since
        card = {"id": route.name, "object": "model", "created": created}
        longest = await self._cards.max_model_len(route)
        known = {} if longest is None else {"max_model_len": longest}
        return {**card, "owned_by": "orchestrator", **known}


def _kinds(table: Table) -> Kinds:
    revisions = [r for route in table.endpoints.values() for r in route.revisions]
    servers = [r.server or r.outside for r in revisions]
    return Kinds(own=not all(servers) or not servers, servers=any(servers))


def _split(path: str) -> tuple[str, str]:
    """Return the endpoint that a path names, or nothing, and the path below it."""
    head, mark, rest = path[1:].partition("/v1/")
    if mark and "/" not in head and head:
        return head, f"/v1/{rest}"
    if path.startswith("/v1/") or path in ROOT_PATHS:
        return "", path
    head, mark, rest = path[1:].partition("/")
    below = f"/{rest}"
    return (head, below) if mark and is_passed(below) else ("", path)


def _token(call: _ClientCall) -> str:
    """Return the key that a client shows; those of Anthropic have a header of their own."""
    token = bearer(call.scope)
    if not token and call.path.startswith(ANTHROPIC):
        token = (header(call.scope, b"x-api-key") or b"").decode("latin-1")
    return token


def _host(scope: Scope) -> str:
    """Return where the client is; nothing where a proxy hides it."""
    client = scope.get("client")
    hidden = any(header(scope, name) is not None for name in _FORWARDED)
    return "" if client is None or hidden else str(client[0])


def _named(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


def _share(key: ApiKey | None, request: InboundRequest) -> Share:
    if key is None:
        return Share(priority=request.priority, size=request.choices)
    return Share(key.name, key.weight, key.priority, request.priority, request.choices)


def _client(route: EndpointRoute, key: ApiKey | None, scope: Scope) -> str:
    if route.sticky == "key":
        return key.name if key is not None else ""
    session = header(scope, b"x-session-id") if route.sticky == "session" else None
    return session.decode("latin-1") if session else ""
