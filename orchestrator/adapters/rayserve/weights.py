"""The weights of one replica, exchanged while it answers: `/internal/weights`.

`GET` tells which serve, `POST` has others take their place. Both want the token of the revision.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import Deployment
from orchestrator.error_boundary import outcome, reason
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.asgi import (
    Application,
    Handler,
    Receive,
    Scope,
    Send,
    answer,
    bearer,
    body_of,
    path_of,
)
from orchestrator.serving.http.encoding import encode

PATH = "/internal/weights"
_LONGEST_BODY = 65_536
Fetch: TypeAlias = Callable[[Deployment], Path]
Update: TypeAlias = Callable[[Path, str, str | None], None]
Json: TypeAlias = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsOrder:
    """A model to serve by the name `version`.

    Where `base` is set, the folder has what has changed since the version of that name. Who does
    not `wait` is answered once the work has begun.
    """

    model: ArtifactRef
    storage: str
    version: str
    base: str | None = None
    wait: bool = True


_order: TypeAdapter[WeightsOrder] = TypeAdapter(WeightsOrder)


class ServedWeights:
    """What a replica serves, and how it comes to serve something else.

    Args:
        deployment: What the replica was made from.
        fetch: Returns the verified folder of a deployment's model.
        update: Has the engine serve a folder, as `Engine.update` does; `None` where it can't.
    """

    def __init__(self, deployment: Deployment, fetch: Fetch, update: Update | None) -> None:
        self._deployment = deployment
        self._fetch = fetch
        self._engine_update = update
        self.version = deployment.weights
        self._pending: tuple[str, asyncio.Task[str]] | None = None
        self._refused: tuple[str, str] = ("", "")

    def state(self) -> Json:
        """Return which version serves, which is on its way, and which was refused, and why."""
        pending = self._pending[0] if self._pending else ""
        refused, why = self._refused
        return {"version": self.version, "pending": pending, "refused": refused, "reason": why}

    async def answer(self, scope: Scope, receive: Receive) -> tuple[int, Json]:
        """Return status and body of the answer to a request.

        Raises:
            ApiError: It is no such request.
        """
        if scope["method"] == "GET":
            return 200, self.state()
        if scope["method"] != "POST":
            raise ApiError(405, f"{PATH} takes GET and POST")
        try:
            order = _order.validate_json(await body_of(scope, receive, _LONGEST_BODY))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ApiError(400, f"{where}: {problem['msg']}".lstrip(": ")) from error
        return await self.update(order)

    async def update(self, order: WeightsOrder) -> tuple[int, Json]:
        """Have other weights served; the same order joins the one that is being carried out.

        The work goes on though the client leaves.
        """
        if self._engine_update is None:
            raise ApiError(409, "this engine can't take other weights", code="not_updated")
        if self._pending is None:
            if order.version == self.version:
                return 200, self.state()
            task = asyncio.create_task(self._run(order))
            self._pending = (order.version, task)
        version, task = self._pending
        if version != order.version:
            what = f"version {version!r} is on its way; ask again once it serves"
            raise ApiError(409, what, code="not_updated")
        if not order.wait:
            return 202, self.state()
        if refused := await asyncio.shield(task):
            raise ApiError(409, f"{refused}; {self.version!r} serves on", code="not_updated")
        return 200, self.state()

    async def _run(self, order: WeightsOrder) -> str:
        """Carry an order out; return why it can't be done."""
        done = await asyncio.to_thread(outcome, partial(self._take, order), but=())
        self._pending = None
        if done.error is not None:  # whatever it is: the engine may be a user's own
            self._refused = (order.version, reason(done.error))
            return self._refused[1]
        self.version, self._refused = order.version, ("", "")
        return ""

    def _take(self, order: WeightsOrder) -> None:
        assert self._engine_update is not None, "asked before"  # noqa: S101
        of = replace(self._deployment, model=order.model, storage=order.storage)
        self._engine_update(self._fetch(of), order.version, order.base)


def with_weights(serves: Handler, weights: ServedWeights, token: str) -> Handler:
    """Return an ASGI application that answers for `weights`; `serves` answers all the rest."""

    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        _check_token(scope, token)
        status, body = await weights.answer(scope, receive)
        await answer(send, status, encode(body))

    answers = Application(handle)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        ours = scope["type"] == "http" and path_of(scope) == PATH
        await (answers if ours else serves)(scope, receive, send)

    return either


def _check_token(scope: Scope, token: str) -> None:
    if not hmac.compare_digest(bearer(scope).encode(), token.encode()):
        raise ApiError(401, "only who has the replica's token may ask", code="invalid_api_key")
