"""One deployment on its way, in a thread: probe, deploy, watch the replicas, ask a question.

A deployment that fails or is cancelled is removed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from orchestrator.adapters.rayserve import operations, replica_placement, state
from orchestrator.adapters.rayserve.engine_launch import EngineStartError
from orchestrator.adapters.rayserve.operations import FOREIGN
from orchestrator.adapters.rayserve.replica_placement import ReplicaRoom
from orchestrator.adapters.rayserve.serve_requests import DeploymentPorts, ServeRequest
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ServingError, SoftwareError
from orchestrator.core.failures.kinds import Failure, FailureKind, of_versions
from orchestrator.messages import Failed, LogLine, Message, Placed, Succeeded, Waiting
from orchestrator.node.masking import masked

_POLL_SECONDS = 0.25
_SECONDS_BETWEEN_PROBES = 5.0  # where no node can hold it: somebody may release one
_REMOVE_SECONDS = 40.0
_NO_INGRESS = (
    "its replicas run, but listen on no port: start the cluster with "
    "RAY_SERVE_ENABLE_DIRECT_INGRESS=1 in the environment of every node"
)
_INGRESS_SECONDS = 15.0
# How the words of an engine server that did not start are called; they tell enough.
_UNFIT = f"{SoftwareError.__module__}.{SoftwareError.__qualname__}: "
_OURS = f"{EngineStartError.__module__}.{EngineStartError.__qualname__}: "


class _DeploymentRefusedError(Exception):
    """The deployment ends here; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.evidence)
        self.failure = failure


class _CancelledError(Exception):
    """The deployment was given up."""


class Deploying:
    """One deployment, from the request to the first answer."""

    def __init__(self, request: ServeRequest, access: DeploymentPorts) -> None:
        self._request = request
        self._deployment: Deployment = request.deployment
        self._name = request.name
        self._pool = self._deployment.pool.name
        self._access = access
        self._deployed = False
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        name = f"asks Ray: {self._deployment.key}"  # the process leaves the cluster after it
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def messages(self) -> list[Message]:
        """Return what is new, without waiting."""
        return [self._messages.get() for _ in range(self._messages.qsize())]

    @property
    def name(self) -> str:
        """Name of the application."""
        return self._name

    @property
    def ended(self) -> bool:
        """Whether the thread has done all that it had to."""
        return not self._thread.is_alive()

    def cancel(self) -> None:
        """Have it given up; the thread takes away what was deployed."""
        self._cancelled.set()

    def settle(self) -> None:
        """Wait until what was deployed is gone."""
        self._thread.join(_REMOVE_SECONDS)

    # --- in the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            last = self._outcome()
        except BaseException as error:
            self._messages.put(Failed(self._failure(f"a defect of ours: {error!r}")))
            raise
        if last is not None:
            values = self._access.secrets_of(self._deployment).values()
            self._messages.put(masked(last, values))

    def _outcome(self) -> Succeeded | Failed | None:
        began = time.monotonic()
        try:
            self._check_secrets()
            self._deploy(self._place())
            application = self._watch()
            for url in application.replicas_at:
                operations.ask(url, self._deployment.token, "/ready")
            for url in application.urls:  # from here, as the gateway will
                operations.ask(url, self._deployment.token, "/v1/models")
        except _CancelledError:
            self._remove()
            return None
        except _DeploymentRefusedError as error:
            self._remove()
            return Failed(error.failure)
        except (ServingError, *FOREIGN) as error:
            self._remove()
            return Failed(self._failure(str(error)))
        return Succeeded(None, {"ready_seconds": time.monotonic() - began})

    def _check_secrets(self) -> None:
        """Refuse what has a secret that has no value here."""
        sources, given = self._deployment.secrets, self._access.secrets_of(self._deployment)
        lacking = ", ".join(f"{n} by {source}" for n, source in sources.items() if n not in given)
        if lacking:
            line = f"secrets without a value on the host that deploys {self._name!r}: {lacking}"
            raise _DeploymentRefusedError(self._failure(line, kind=FailureKind.SET_UP))

    def _place(self) -> tuple[str, ...]:
        """Wait until the pool has room, and return the ids of the nodes to avoid there."""
        last = ""
        while True:
            unused = self._access.unused_by(self._deployment)
            avoid = replica_placement.to_avoid(self._request, unused)
            room = replica_placement.probe(self._request, avoid)
            if room is ReplicaRoom.FREE:
                return avoid
            waits = self._why(room, replica_placement.names_of(avoid))
            if waits != last:
                self._messages.put(Waiting(waits))
            last = waits
            self._pause(_SECONDS_BETWEEN_PROBES if room is ReplicaRoom.NEVER else _POLL_SECONDS)

    def _why(self, room: ReplicaRoom, avoid: Collection[str]) -> str:
        """Return why there is no room yet; refuse what there never will be room for."""
        request, asked = self._request, replica_placement.in_words(self._request)
        without, every = (replica_placement.holds(request, names) for names in (avoid, ()))
        if every and not without:
            names = ", ".join(map(repr, sorted(avoid)))
            return f"pool {self._pool!r} can give {asked} on no nodes but {names}, not to be used"
        if room is not ReplicaRoom.NEVER:
            return f"pool {self._pool!r} is busy: {asked} are not free"
        who, ever = "no node", "ever"
        if replica_placement.nodes_of(self._deployment) > 1:
            who, ever = "the nodes", "never"
        line = f"{who} of pool {self._pool!r} can {ever} give {asked}"
        raise _DeploymentRefusedError(self._failure(line, kind=FailureKind.PLACEMENT))

    def _deploy(self, avoid: Sequence[str]) -> None:
        if self._cancelled.is_set():
            raise _CancelledError
        host = state.listening()
        application = operations.application(self._request, self._access, host, avoid)
        self._messages.put(LogLine(0, f"deploying {self._name!r} on pool {self._pool!r}"))
        operations.deploy(self._name, application, host)
        self._deployed = True

    def _watch(self) -> state.ServeApplication:
        """Wait until all replicas run, and it is known where they listen."""
        announced = False
        endpoint = self._deployment.endpoint
        wanted = max(1, self._request.replicas)
        ran: float | None = None
        began = time.monotonic()
        while True:
            application = self._application()
            placed = [replica for replica in application.replicas if replica.node]
            if not announced and len(placed) >= wanted:
                self._messages.put(Placed(tuple(self._nodes(placed))))
                announced = True
            if application.status == "HEALTHY" and len(application.running) >= wanted:
                if len(application.urls) >= wanted:
                    return application
                ran = ran or time.monotonic()
                if time.monotonic() - ran > _INGRESS_SECONDS:
                    raise _DeploymentRefusedError(self._failure(_NO_INGRESS))
            if time.monotonic() - began > endpoint.ready:
                late = f"{self._name!r} did not answer within {endpoint.ready:g} s"
                raise _DeploymentRefusedError(
                    self._failure(f"{late}; see `ready` of the endpoint")
                )
            self._pause()

    def _nodes(self, replicas: Iterable[state.ServeReplica]) -> Iterator[str]:
        """Yield the nodes of each replica."""
        several = replica_placement.nodes_of(self._deployment) > 1
        for replica in replicas:
            yield from state.nodes_of(replica) if several else (replica.node,)

    def _application(self) -> state.ServeApplication:
        application = (state.applications() or {}).get(self._name)
        if application is None:
            line = f"{self._name!r} was deleted while it was deployed"
            raise _DeploymentRefusedError(self._failure(line))
        if application.error or application.status == "DEPLOY_FAILED":
            text = application.error or application.message
            line = _last_line(text)
            if _UNFIT in line:
                raise _DeploymentRefusedError(
                    of_versions(line.removeprefix(_UNFIT), pool=self._pool)
                )
            raise _DeploymentRefusedError(self._failure(line, detail=text))
        return application

    # --- the end -------------------------------------------------------------------------------

    def _remove(self) -> None:
        """Delete what was deployed."""
        if self._deployed:
            with suppress(ServingError, *FOREIGN):
                operations.remove(self._name)

    def _failure(
        self, evidence: str, detail: str = "", kind: FailureKind = FailureKind.SERVING
    ) -> Failure:
        return Failure(kind=kind, evidence=evidence, detail=detail, pool=self._pool)

    def _pause(self, seconds: float = _POLL_SECONDS) -> None:
        if self._cancelled.wait(seconds):
            raise _CancelledError


def _last_line(text: str) -> str:
    """Return the line of a traceback that names the exception."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix(_OURS) if lines else "no reason given"
