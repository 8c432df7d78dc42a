"""The port `Serving` on Ray Serve. Revisions outlive this process: Serve is detached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import ray

from orchestrator.adapters.rayserve import operations, replica_sets, state
from orchestrator.adapters.rayserve.deployment_thread import Deploying
from orchestrator.adapters.rayserve.operations import FOREIGN
from orchestrator.adapters.rayserve.replica import Fetch, MakeClock
from orchestrator.adapters.rayserve.serve_requests import (
    ClusterEntry,
    DeploymentPorts,
    ServeRequest,
    Unused,
)
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ClusterError, ServingError
from orchestrator.messages import Failed, Message, ReplicaWeights, RevisionStatus, Succeeded

_NAMESPACE = "orchestrator"
AS_IT_IS = ClusterEntry()


class RayServing:
    """Revisions on the Ray cluster at `address`, each an application of Serve.

    `fetch` and `clock` are functions of a module: they run in the replicas. Where all nodes are on
    this host, replicas listen on loopback alone. `unused` returns the nodes on which no replica is
    to be, `secret` the value of a secret by its source.
    """

    def __init__(
        self,
        address: str,
        fetch: Fetch,
        clock: MakeClock,
        *,
        entry: ClusterEntry = AS_IT_IS,
        unused: Unused = lambda _run, _pool: {},
        secret: Callable[[str], str | None] = lambda _source: None,
    ) -> None:
        self._address = address
        self._entry = entry
        self._access = DeploymentPorts(fetch, clock, unused, secret)
        self._deploying: dict[str, Deploying] = {}
        self._ending: list[Deploying] = []  # cancelled
        self._joined = False

    def start(self, deployment: Deployment) -> None:
        """Ask for a deployment; a thread does the waiting."""
        self._join()
        count = deployment.endpoint.replicas
        self._deploy(ServeRequest(deployment, deployment.application, count))

    def replace(self, deployment: Deployment, count: int) -> None:
        """Ask for so many replicas beside those that are live; a thread does the waiting.

        Raises:
            ServingError: What was replaced before goes still, or the cluster can't be reached.
        """
        name = replica_sets.free_name(deployment.application, self._applications())
        if not name:
            raise ServingError(f"replicas of {deployment.name} that were replaced are going still")
        self._deploy(ServeRequest(deployment, name, count, others=True))

    def end_replacement(self, name: str, *, takes_over: bool) -> None:
        """Take away the replicas that were replaced; those that were to replace them if not so.

        Raises:
            ServingError: The cluster can't be reached, or does not do it.
        """
        sets = list(replica_sets.by_revision(self._staying()).get(name, ()))
        for going in sets[:-1] if takes_over else sets[1:]:
            self._take_away(going)

    def _deploy(self, request: ServeRequest) -> None:
        self._deploying[request.deployment.key] = Deploying(request, self._access)

    def poll(self, key: str) -> Sequence[Message]:
        """Return what the deployment said since the last call."""
        deploying = self._deploying.get(key)
        messages = deploying.messages() if deploying else []
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
        if self._entry.identity:
            return self._entry.identity
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
        for application in replica_sets.by_revision(self._applications()).get(name, ()):
            self._take_away(application)

    def _take_away(self, application: str) -> None:
        try:
            operations.remove(application)
        except FOREIGN as error:
            raise ServingError(f"{application!r} can't be deleted: {error}") from error

    def live(self) -> Mapping[str, RevisionStatus]:
        """Return the revisions that Serve has, by name.

        Raises:
            ServingError: The cluster can't be reached.
        """
        coming = [deploying.name for deploying in self._deploying.values()]
        return {
            name: replica_sets.status(sets, coming, self._misplaced)
            for name, sets in replica_sets.by_revision(self._staying()).items()
        }

    def _misplaced(self, application: state.ServeApplication) -> list[str]:
        """Return the nodes of its replicas that are not to be used."""
        run = application.key.partition("/")[0]
        unused = self._access.unused(run, application.pool)
        return [node for node in application.nodes if node in unused] if unused else []

    def weights(self, deployment: Deployment) -> Mapping[str, ReplicaWeights]:
        """Return what each replica of a live revision serves, by the replica's address.

        Raises:
            ServingError: The cluster can't be reached.
        """
        sets = replica_sets.by_revision(self._staying()).get(deployment.application)
        places = sets[replica_sets.serving(sets)].replicas_at if sets else ()
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

    def _staying(self) -> Mapping[str, state.ServeApplication]:
        """Return the applications but those that are on their way out."""
        applications = self._applications()
        going = [name for name, app in applications.items() if app.state == "DELETING"]
        going += [deploying.name for deploying in self._ending if not deploying.ended]
        return {name: app for name, app in applications.items() if name not in going}

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
            self._entry.admit(self._address)
            ray.init(
                address=self._address,
                namespace=_NAMESPACE,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except ClusterError as error:
            raise ServingError(str(error)) from error
        except FOREIGN as error:
            line = str(error).strip().partition("\n")[0]
            raise ServingError(f"Ray at {self._address!r} can't be joined: {line}") from error
