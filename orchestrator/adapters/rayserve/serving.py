"""The port `Serving` on Ray Serve. Revisions outlive this process: Serve is detached."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress

import ray

from orchestrator.adapters.rayserve import operations, state
from orchestrator.adapters.rayserve.deployment_thread import Deploying
from orchestrator.adapters.rayserve.operations import FOREIGN
from orchestrator.adapters.rayserve.replica import Fetch, MakeClock
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ServingError
from orchestrator.messages import Failed, Message, ReplicaWeights, RevisionStatus, Succeeded

_NAMESPACE = "orchestrator"


class RayServing:
    """Revisions on the Ray cluster at `address`, each an application of Serve.

    `fetch` and `clock` are functions of a module: they run in the replicas. Where all nodes are on
    this host, replicas listen on loopback alone. `identity` is that of a cluster which its home
    starts again under the same one.
    """

    def __init__(
        self, address: str, fetch: Fetch, clock: MakeClock, *, identity: str = ""
    ) -> None:
        self._address = address
        self._identity = identity
        self._fetch = fetch
        self._clock = clock
        self._deploying: dict[str, Deploying] = {}
        self._ending: list[Deploying] = []  # cancelled
        self._joined = False

    def start(self, deployment: Deployment) -> None:
        """Ask for a deployment; a thread does the waiting."""
        self._join()
        deploying = Deploying(deployment, self._fetch, self._clock)
        self._deploying[deployment.key] = deploying

    def poll(self, key: str) -> Sequence[Message]:
        """Return what the deployment said since the last call."""
        deploying = self._deploying.get(key)
        messages = deploying.said() if deploying else []
        if messages and isinstance(messages[-1], Succeeded | Failed):
            del self._deploying[key]
        return messages

    def cancel(self, key: str) -> None:
        """Take the deployment away.

        One that another process had started, whose controller is gone, is found by its key.
        """
        deploying = self._deploying.pop(key, None)
        if deploying is not None:
            deploying.cancel()
            self._ending = [other for other in self._ending if not other.ended]
            self._ending.append(deploying)
            return
        with suppress(ServingError, *FOREIGN):  # where Serve is gone, so is the deployment
            self._join()
            applications = (state.applications() or {}).items()
            for name in [name for name, application in applications if application.key == key]:
                operations.remove(name)

    def cluster(self) -> str:
        """Return the identity of the cluster: that of a home's own one, else Ray's session.

        Raises:
            ServingError: The cluster can't be reached.
        """
        if self._identity:
            return self._identity
        self._join()
        try:
            return str(ray.get_runtime_context().get_session_name())
        except FOREIGN as error:
            raise ServingError(f"Ray at {self._address!r} does not answer: {error}") from error

    def settle(self) -> None:
        """Wait until what was cancelled is gone."""
        for deploying in self._ending:
            deploying.settle()
        self._ending = []

    def delete(self, name: str) -> None:
        """Take a live revision away.

        Raises:
            ServingError: There is none of this name, or it can't be deleted.
        """
        live = self.live()
        if name not in live:
            known = ", ".join(sorted(live)) or "none"
            raise ServingError(f"no revision {name!r}; live: {known}")
        try:
            operations.remove(name)
        except FOREIGN as error:
            raise ServingError(f"{name!r} can't be deleted: {error}") from error

    def live(self) -> Mapping[str, RevisionStatus]:
        """Return the revisions that Serve has, by name.

        Raises:
            ServingError: The cluster can't be reached.
        """
        applications = self._applications()
        going = [
            name for name, application in applications.items() if application.state == "DELETING"
        ]
        going += [deploying.name for deploying in self._ending if not deploying.ended]
        return {
            name: state.status(application)
            for name, application in applications.items()
            if name not in going
        }

    def weights(self, deployment: Deployment) -> Mapping[str, ReplicaWeights]:
        """Return what each replica of a live revision serves, by the replica's address.

        Raises:
            ServingError: The cluster can't be reached.
        """
        application = self._applications().get(deployment.application)
        places = application.replicas_at if application else ()
        return operations.weights(places, deployment.token)

    def update(self, deployment: Deployment, replica: str, *, wait: bool = True) -> None:
        """Have a replica serve the model of `deployment`.

        Raises:
            ServingError: It does not take the model, and what it served serves on.
        """
        operations.update(deployment, replica, wait=wait)

    def stop(self) -> bool:
        """Stop Serve where nothing is deployed; return whether it is stopped.

        Raises:
            ServingError: The cluster can't be reached.
        """
        self._join()
        try:
            return operations.stop()
        except FOREIGN as error:
            raise ServingError(f"Ray Serve does not answer: {error}") from error

    def _applications(self) -> Mapping[str, state.ServeApplication]:
        self._join()
        try:
            return state.applications() or {}
        except FOREIGN as error:
            raise ServingError(f"Ray Serve does not answer: {error}") from error

    def _join(self) -> None:
        """Connect this process to the cluster, unless it is."""
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        if not (self._joined and ray.is_initialized()):
            state.forget_earlier_clusters()
        self._joined = True
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
