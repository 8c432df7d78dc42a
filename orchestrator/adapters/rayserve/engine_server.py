"""What runs beside an engine server: an actor that supervises it. Ray makes it on the pool.

Requests go to the engine's own port, which is noted in the cluster's own store under the id of the
replica. At the port that Serve gives it the actor tells whether the engine is ready, its figures
with the labels of its place, and takes new weights.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import ray
from ray import serve
from ray.exceptions import RayError
from ray.experimental import internal_kv

from orchestrator.adapters.rayserve import engine_figures, replica_chips
from orchestrator.adapters.rayserve.engine_client import FOREIGN
from orchestrator.adapters.rayserve.followers import RemoteFollowers, opened
from orchestrator.adapters.rayserve.replica import Fetch, code_of
from orchestrator.adapters.rayserve.scaling import HELD, RUNNING
from orchestrator.adapters.rayserve.supervision import Supervision
from orchestrator.adapters.rayserve.weights import PATH, ServedWeights
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ArtifactError
from orchestrator.node.software import Sealed
from orchestrator.serving.http.asgi import (
    Application,
    Receive,
    Scope,
    Send,
    answer,
    bearer,
    path_of,
)

_SPACE = b"orchestrator"
_OF_THE_DRAIN = 0.95  # Serve ends the actor after the whole of it
Reply: TypeAlias = tuple[int, tuple[bytes, bytes], str]
_TEXT = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")


def address_of(replica: str) -> str:
    """Return where the engine of a replica listens, by the replica's id; empty: not yet."""
    url = internal_kv._internal_kv_get(_name(replica), namespace=_SPACE)  # noqa: SLF001 - Ray has no public one
    return url.decode() if url else ""


def _name(replica: str) -> bytes:
    return f"engine/{replica}".encode()


@serve.ingress()
class EngineServer:
    """One replica of an endpoint whose engine is a server."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, parcel: Sealed
    ) -> None:
        """Start the engine, which listens on the host that is sealed, or on its node."""
        deployment, fetch, host, secrets = opened(parcel)
        self._deployment = deployment
        self._replica = serve.get_replica_context().replica_id.unique_id
        listening = host or ray.util.get_node_ip_address()
        replica_chips.show(deployment)
        await asyncio.to_thread(code_of, deployment, fetch)  # the engine inherits where it is
        self._followers = followers = RemoteFollowers(deployment, fetch, host, secrets)
        folder = await asyncio.to_thread(followers.fetch, deployment)
        recorded = await asyncio.to_thread(_recorded, deployment, fetch)
        self._supervision = Supervision(deployment, folder, listening, recorded, followers)
        self._weights = ServedWeights(deployment, followers.fetch, self._update)
        try:
            await asyncio.to_thread(self._supervision.start)
        except BaseException:
            await asyncio.to_thread(self._end)
            raise
        internal_kv._internal_kv_put(  # noqa: SLF001 - as above
            _name(self._replica), self._supervision.url.encode(), namespace=_SPACE
        )

    def reconfigure(self, config: object) -> None:
        """Take the user config: it names the attempt to those who ask Serve, nothing more."""

    def check_health(self) -> None:
        """Raise when the engine can't serve: Serve then replaces the replica."""
        if self._supervision.fault:
            raise RuntimeError(self._supervision.fault)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what Serve scales by: requests pass nobody here."""
        figures = self._supervision.figures
        return {HELD: figures.cached_tokens, RUNNING: figures.running + figures.waiting}

    def __serve_build_asgi_app__(self) -> Any:  # noqa: ANN401 - Serve's own name for it; an ASGI application
        """Return the application that answers for the supervisor, not for the engine."""
        return Application(self._answer)

    async def __del__(self) -> None:
        """Let the engine answer what it was asked, then end it."""
        supervision = getattr(self, "_supervision", None)
        if supervision is None:
            return
        with suppress(RayError, ConnectionError, RuntimeError):
            internal_kv._internal_kv_del(_name(self._replica), namespace=_SPACE)  # noqa: SLF001 - as above
        if supervision.port and not supervision.fault:
            seconds = self._deployment.endpoint.drain_seconds * _OF_THE_DRAIN
            await asyncio.to_thread(supervision.drain, seconds)
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._supervision.stop()
        self._followers.close()

    # --- HTTP ------------------------------------------------------------------------------------

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        status, kind, body = await self._reply(scope, receive)
        await answer(send, status, body.encode(), [kind])

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        path, fault = path_of(scope), self._supervision.fault
        if path in {"/health", "/ready"}:
            return _json(503 if fault else 200, {"status": fault or "ok"})
        if not hmac.compare_digest(bearer(scope).encode(), self._deployment.token.encode()):
            return _json(401, {"error": "only the gateway may ask a replica"})
        if path == "/metrics":
            return await asyncio.to_thread(self._metrics)
        if path == "/internal/address":
            return _json(200, {"url": self._supervision.url})
        if path == PATH:
            return _json(*await self._weights.answer(scope, receive))
        return _json(404, {"error": f"no {path!r} here"})

    def _metrics(self) -> Reply:
        deployment = self._deployment
        labels = {
            "endpoint": deployment.endpoint.name,
            "revision": f"r{deployment.revision}",
            "replica": self._replica,
            "pool": deployment.pool.name,
        }
        try:
            text = self._supervision.metrics()
        except FOREIGN as error:
            return _json(503, {"error": repr(error)})
        return 200, _TEXT, engine_figures.labelled(text, labels)

    def _update(self, folder: Path, version: str, base: str | None) -> None:
        if base is not None:
            raise ValueError("an engine server takes whole models; leave base out")
        self._supervision.update(folder, version)


def _recorded(deployment: Deployment, fetch: Fetch) -> Path | None:
    """Return the folder of what the parity gate recorded of the model, where that can be had."""
    if deployment.proof is None:
        return None
    try:
        return fetch(replace(deployment, model=deployment.proof))
    except ArtifactError as error:
        print(f"supervisor: nothing to compare with: {error}", flush=True)  # noqa: T201 - the log of the replica
        return None


def _json(status: int, body: object) -> Reply:
    return status, (b"content-type", b"application/json"), json.dumps(body)
