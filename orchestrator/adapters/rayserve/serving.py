"""The port `Serving` on Ray Serve. Endpoints outlive this process: Serve is detached."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress

import ray

from orchestrator.adapters.rayserve import state
from orchestrator.adapters.rayserve.operations import FOREIGN, remove
from orchestrator.adapters.rayserve.replica import Fetch, MakeClock
from orchestrator.adapters.rayserve.rollout import Rollout
from orchestrator.core.endpoints import Deployment
from orchestrator.core.errors import ServingError
from orchestrator.messages import EndpointStatus, Failed, Message, Succeeded

_NAMESPACE = "orchestrator"


class RayServing:
    """Endpoints on the Ray cluster at `address`, all behind HTTP port `serve_port` of its head.

    `fetch` and `clock` are functions of a module: they run in the replicas.
    """

    def __init__(self, address: str, serve_port: int, fetch: Fetch, clock: MakeClock) -> None:
        self._address = address
        self._port = serve_port
        self._fetch = fetch
        self._clock = clock
        self._rollouts: dict[str, Rollout] = {}

    def start(self, deployment: Deployment) -> None:
        """Ask for a deployment; a thread does the waiting."""
        self._join()
        rollout = Rollout(deployment, self._port, self._fetch, self._clock)
        self._rollouts[deployment.key] = rollout

    def poll(self, key: str) -> Sequence[Message]:
        """Return what the deployment said since the last call."""
        rollout = self._rollouts.get(key)
        messages = rollout.said() if rollout else []
        if messages and isinstance(messages[-1], Succeeded | Failed):
            del self._rollouts[key]
        return messages

    def cancel(self, key: str) -> None:
        """Take the deployment away, unless an earlier revision of its endpoint serves.

        One that another process had started, whose controller is gone, is found by its name.
        """
        rollout = self._rollouts.pop(key, None)
        if rollout is not None:
            rollout.cancel()
            return
        with suppress(ServingError, *FOREIGN):  # where Serve is gone, so is the deployment
            self._join()
            running = state.instance()
            found = running.applications.items() if running else ()
            for name in [name for name, application in found if application.revision == key]:
                remove(name)

    def delete(self, endpoint: str) -> None:
        """Take a live endpoint away.

        Raises:
            ServingError: There is none of this name, or it can't be deleted.
        """
        live = self.live()
        if endpoint not in live:
            known = ", ".join(sorted(live)) or "none"
            raise ServingError(f"no endpoint {endpoint!r}; live: {known}")
        try:
            remove(endpoint)
        except FOREIGN as error:
            raise ServingError(f"endpoint {endpoint!r} can't be deleted: {error}") from error

    def live(self) -> Mapping[str, EndpointStatus]:
        """Return the endpoints that Serve has, by name.

        Raises:
            ServingError: The cluster can't be reached.
        """
        self._join()
        try:
            running = state.instance()
        except FOREIGN as error:
            raise ServingError(f"Ray Serve does not answer: {error}") from error
        found = running.applications.items() if running else ()
        port = running.port if running else self._port
        return {name: state.endpoint(name, application, port) for name, application in found}

    def _join(self) -> None:
        """Connect this process to the cluster, unless it is."""
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if ray.is_initialized():
            return
        try:
            ray.init(
                address=self._address,
                namespace=_NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except FOREIGN as error:
            line = str(error).strip().partition("\n")[0]
            raise ServingError(f"Ray at {self._address!r} can't be joined: {line}") from error
