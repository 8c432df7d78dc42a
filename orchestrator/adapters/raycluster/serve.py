"""The port `Serving` on Ray Serve: one application an endpoint, its replicas on the serve pool.

Rules: an endpoint is up when it has answered a request over HTTP, not before; what can't be
placed is told at once; a deployment that failed leaves nothing behind, and an endpoint outlives
the process that deployed it.
"""

from __future__ import annotations

import json
import queue
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from orchestrator.adapters.raycluster import access, replica
from orchestrator.core.errors import ServingError
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.ports import Clock, Deployment, Failed, LogLine, Message, Placed, Succeeded

HOST = "127.0.0.1"
LONGEST_STREAM_SECONDS = 60.0
REQUESTS_AT_ONCE = 64
QUEUED_REQUESTS = 256
PROBE_SECONDS = 30.0
PLACEMENT_SECONDS = 1.0
_CAUSE = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Exit)\b.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatus:
    """A live endpoint: its address, and how Serve sees it (`RUNNING`, `DEPLOYING`, ...)."""

    name: str
    url: str
    state: str
    replicas: int


class RayServing:
    """Endpoints on the Ray cluster at `address`, all behind port `serve_port`."""

    def __init__(
        self,
        address: str,
        serve_port: int,
        fetch: Callable[[Deployment], Path],
        clock: Callable[[], Clock],
    ) -> None:
        """Take note; the cluster is joined when it is needed. `fetch` runs in the replica."""
        self._address = address
        self._port = serve_port
        self._fetch = fetch
        self._clock = clock
        self._rollouts: dict[str, _Rollout] = {}

    def start(self, deployment: Deployment) -> None:
        """Ask for a deployment; a thread of its own does the waiting."""
        access.connect(self._address)
        rollout = _Rollout(deployment, self._port, self._fetch, self._clock)
        self._rollouts[deployment.key] = rollout
        rollout.begin()

    def poll(self, key: str) -> Sequence[Message]:
        """Return what the deployment said since the last call."""
        rollout = self._rollouts.get(key)
        messages = rollout.said() if rollout else ()
        if messages and isinstance(messages[-1], Succeeded | Failed):
            del self._rollouts[key]
        return messages

    def cancel(self, key: str) -> None:
        """Take the deployment away, unless the endpoint was there before it."""
        rollout = self._rollouts.pop(key, None)
        if rollout is not None:
            rollout.give_up()

    def delete(self, endpoint: str) -> None:
        """Take a live endpoint away.

        Raises:
            ServingError: There is none of this name.
        """
        live = self.live()
        if endpoint not in live:
            message = f"no endpoint {endpoint!r}; live: {', '.join(sorted(live)) or 'none'}"
            raise ServingError(message)
        serve.delete(endpoint)

    def live(self) -> Mapping[str, EndpointStatus]:
        """Return the endpoints that Serve has, by name."""
        access.connect(self._address)
        return {
            name: EndpointStatus(
                name=name,
                url=base_url(self._port, name),
                state=str(found.status.value),
                replicas=sum(sum(d.replica_states.values()) for d in found.deployments.values()),
            )
            for name, found in serve.status().applications.items()
        }


def base_url(port: int, endpoint: str) -> str:
    """Return the OpenAI base URL of an endpoint."""
    return f"http://{HOST}:{port}/{endpoint}/v1"


class _RefusedError(Exception):
    """The deployment can't go on; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.evidence)
        self.failure = failure


class _Rollout:
    """One deployment on its way, in a thread."""

    def __init__(
        self,
        deployment: Deployment,
        port: int,
        fetch: Callable[[Deployment], Path],
        clock: Callable[[], Clock],
    ) -> None:
        self._deployment = deployment
        self._port = port
        self._fetch = fetch
        self._clock = clock
        self._queue: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._given_up = threading.Event()
        self._existed = False
        self._thread = threading.Thread(target=self._run, name=deployment.key, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def said(self) -> list[Message]:
        taken: list[Message] = []
        while not self._queue.empty():
            taken.append(self._queue.get())
        return taken

    def give_up(self) -> None:
        """Remove what was deployed; the thread ends by that."""
        self._given_up.set()
        self._remove()
        self._thread.join(LONGEST_STREAM_SECONDS)

    # --- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        began = self._clock().now()
        try:
            self._place()
            self._deploy()
            self._queue.put(Placed(self._nodes()))
            self._ask()
        except _RefusedError as error:
            self._fail(error.failure)
        except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
            self._fail(self._failure(FailureKind.SERVING, _cause(str(error)), str(error)))
        else:
            seconds = self._clock().now() - began
            self._queue.put(Succeeded(None, {"ready_seconds": seconds}))

    def _fail(self, failure: Failure) -> None:
        if not self._given_up.is_set():
            self._remove()
        self._queue.put(Failed(failure))

    def _failure(self, kind: FailureKind, evidence: str, detail: str = "") -> Failure:
        pool = self._deployment.pool.name
        return Failure(kind=kind, evidence=evidence, detail=detail, pool=pool)

    def _place(self) -> None:
        """Ask the scheduler whether the replicas can ever be placed: Serve would not tell."""
        deployment = self._deployment
        bundles = [self._bundle()] * deployment.endpoint.replicas
        selector = [deployment.pool.selector] * deployment.endpoint.replicas
        group = placement_group(bundles, strategy="PACK", bundle_label_selector=selector)
        try:
            group.wait(PLACEMENT_SECONDS)
            state = placement_group_table(group)["stats"]["scheduling_state"]
        finally:
            remove_placement_group(group)
        if state == "INFEASIBLE":
            asked = ", ".join(f"{amount:g} {name}" for name, amount in self._bundle().items())
            line = f"no node of pool {deployment.pool.name!r} can ever give a replica {asked}"
            raise _RefusedError(self._failure(FailureKind.PLACEMENT, line))

    def _bundle(self) -> dict[str, float]:
        needs, resource = self._deployment.needs, self._deployment.pool.accelerator.resource
        held = {"CPU": float(needs.cpus)}
        if resource and needs.devices:
            held[resource] = needs.devices
        return held

    def _deploy(self) -> None:
        running = serve.status()
        if not running.proxies and _answers(self._port):
            line = f"port {self._port!r} is in use by another program; set cluster.serve_port"
            raise _RefusedError(self._failure(FailureKind.SERVING, line))
        name = self._deployment.endpoint.name
        self._existed = name in running.applications
        serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": self._port})
        self._queue.put(LogLine(0, f"deploying {name!r} on pool {self._deployment.pool.name!r}"))
        serve.run(self._application(), name=name, route_prefix=f"/{name}")

    def _application(self) -> Any:  # noqa: ANN401 - Serve's own type
        deployment, fetch, clock = self._deployment, self._fetch, self._clock

        def build() -> Any:  # noqa: ANN401 - an ASGI application
            return replica.build(deployment, fetch, clock)

        held = self._bundle()
        options = {
            "num_cpus": held.pop("CPU"),
            "num_gpus": held.pop("GPU", 0),
            "resources": held,
            "label_selector": deployment.pool.selector,
        }
        made = serve.deployment(
            name="replica",
            num_replicas=deployment.endpoint.replicas,
            ray_actor_options=options,
            max_ongoing_requests=REQUESTS_AT_ONCE,
            max_queued_requests=QUEUED_REQUESTS,
            graceful_shutdown_timeout_s=LONGEST_STREAM_SECONDS,
        )(serve.ingress(build)())
        return made.bind()

    def _nodes(self) -> tuple[str, ...]:
        from ray.serve.context import _get_global_client

        details = _get_global_client().get_serve_details()
        application = details["applications"][self._deployment.endpoint.name]
        replicas = [r for d in application["deployments"].values() for r in d["replicas"]]
        return tuple(str(found["node_id"]) for found in replicas)

    def _ask(self) -> None:
        """Have one token of an answer over HTTP: the proof that the endpoint is up."""
        name = self._deployment.endpoint.name
        url = f"{base_url(self._port, name)}/completions"
        body = json.dumps({"model": name, "prompt": "1", "max_tokens": 1}).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is ours
            url, data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as answer:  # noqa: S310 - as above
                answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            line = f"endpoint {name!r} answers {error.code}: {said}"
            raise _RefusedError(self._failure(FailureKind.SERVING, line)) from error

    def _remove(self) -> None:
        if not self._existed:
            serve.delete(self._deployment.endpoint.name, _blocking=False)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def _cause(text: str) -> str:
    """Return the line of a deployment's failure that names the exception."""
    found = _CAUSE.findall(text)
    return found[-1].strip() if found else text.strip().splitlines()[-1]
