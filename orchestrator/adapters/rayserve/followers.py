"""The processes of a replica on its other nodes: an actor on each, in the replica's own group.

Each starts a process of the engine there, which follows the one that leads, and ends with its
actor, which ends with the actor of the replica: Ray ends what an actor has made when that is gone,
and what was placed in a group when that is removed. An engine that follows is asked nothing: it is
well while it runs. That it ended is heard at once, for a call waits for it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayError, RayTaskError

from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.adapters.rayserve import replica_chips, replica_placement, secret_masking
from orchestrator.adapters.rayserve.engine_launch import EngineStartError, free_ports, launch
from orchestrator.adapters.rayserve.engine_process import EngineProcess, OwnFolder
from orchestrator.adapters.rayserve.replica import Fetch, code_of, sealed
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.spec.engine_command import ReplicaPart
from orchestrator.error_boundary import reason
from orchestrator.node import software
from orchestrator.node.software import Sealed

Remote: TypeAlias = Any  # Ray's handles carry no useful types
_CALLS = 4  # at once: one waits for the end of the engine
_KILL_SECONDS = 15.0


def opened(parcel: Sealed) -> tuple[Deployment, Fetch, str, Mapping[str, str]]:
    """Return what a process of an engine was sent; it prints none of the secrets from now on.

    Those are the last; before them comes the host on which it listens, if not on its node's.
    """
    parts: tuple[Deployment, Fetch, str, Mapping[str, str]]
    parts = software.opened(parcel, platform.node)
    secret_masking.install(parts[-1])
    return parts


class Follower:
    """What starts and ends one process of the engine, on the node where Ray makes it."""

    def __init__(self, parcel: Sealed) -> None:
        deployment, fetch, host, _ = opened(parcel)
        self._deployment = deployment
        self._fetch = fetch
        self._host = host or ray.util.get_node_ip_address()
        self._files = OwnFolder()
        self._process: EngineProcess | None = None
        replica_chips.show(deployment)
        code_of(deployment, fetch)

    def node(self) -> str:
        """Return the id of its node."""
        return str(ray.get_runtime_context().get_node_id())

    def fetch(self, deployment: Deployment) -> str:
        """Return the folder where the model of a deployment lies here."""
        return str(self._fetch(deployment))

    def start(self, folder: str, part: ReplicaPart) -> None:
        """Start the engine over the model in a folder."""
        at = self._host, free_ports(self._host, 1)[0]
        self._process = launch(self._deployment, Path(folder), self._files.path, at, part)

    def wait(self) -> str:
        """Wait until the engine ends, and return how it did."""
        assert self._process is not None, "it was started"  # noqa: S101
        return self._process.how_it_ended()

    def stop(self, grace: float) -> None:
        """End the engine."""
        if self._process is not None:
            self._process.stop(grace)

    def close(self) -> None:
        """Leave nothing on this node."""
        self.stop(0.0)
        self._files.remove()


class RemoteFollowers:
    """All of them, as the replica has them, in whose process this runs."""

    def __init__(
        self, deployment: Deployment, fetch: Fetch, host: str, secrets: Mapping[str, str]
    ) -> None:
        """Ask for an actor on each further node of the replica; returns at once."""
        self._fetch = fetch
        ranks = range(1, replica_placement.nodes_of(deployment))
        group = ray.util.get_current_placement_group() if ranks else None
        actor = ray.remote(max_restarts=0, max_task_retries=0)(Follower)
        parcel = sealed(deployment, fetch, host, secrets)
        self._actors: list[Remote] = [
            actor.options(
                max_concurrency=_CALLS,
                **replica_placement.follower_options(deployment, group, rank),
            ).remote(parcel)
            for rank in ranks
        ]
        self._names: Sequence[str] = [f"number {rank}" for rank in ranks]  # until they are known
        self._folders: dict[Path, list[str]] = {}
        self._waits: list[Remote] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._actors)

    def fetch(self, deployment: Deployment) -> Path:
        """Return the folder of a deployment's model here, once it lies on all nodes.

        Raises:
            EngineStartError: A node can't have it.
        """
        nodes = [actor.node.remote() for actor in self._actors]
        theirs = [actor.fetch.remote(deployment) for actor in self._actors]
        here = self._fetch(deployment)
        ids = self._all(nodes)
        called = cluster_tables.names() if ids else {}
        self._names = [called.get(node, node) for node in ids]
        self._folders[here] = self._all(theirs)
        return here

    def start(self, folder: Path, leader: str, ports: tuple[int, ...]) -> None:
        """Start them over the model that lies in `folder` here; they meet `leader` at `ports`.

        Raises:
            EngineStartError: One can't be started.
        """
        parts = (
            ReplicaPart(rank=rank, nodes=self.count + 1, leader=leader, ports=ports)
            for rank in range(1, self.count + 1)
        )
        starts = zip(self._actors, self._folders[folder], parts, strict=True)
        self._all([actor.start.remote(where, part) for actor, where, part in starts])
        self._waits = [actor.wait.remote() for actor in self._actors]

    def ended(self) -> str:
        """Return which of them ended, and how; empty while all run."""
        for name, waits in zip(self._names, self._waits, strict=False):
            if ray.wait([waits], timeout=0, fetch_local=False)[0]:
                return f"on node {name!r} {_how(waits)}"
        return ""

    def see(self, folder: Path) -> bool:
        """Return whether what lies in `folder` here does so on their nodes."""
        return set(self._folders.get(folder, ())) <= {str(folder)}

    def stop(self, grace: float) -> None:
        """End them all within `grace` seconds. Safe to call twice."""
        self._waits = []
        asked = [actor.stop.remote(grace) for actor in self._actors]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=grace + _KILL_SECONDS)

    def close(self) -> None:
        """Leave nothing on their nodes, their actors neither."""
        asked = [actor.close.remote() for actor in self._actors]
        if asked:
            ray.wait(asked, num_returns=len(asked), timeout=_KILL_SECONDS)
        for actor in self._actors:
            ray.kill(actor)
        self._actors, self._waits = [], []

    def _all(self, answers: Sequence[Remote]) -> list[Any]:
        """Return what all of them answer.

        Raises:
            EngineStartError: One of them failed, or is gone.
        """
        answered = []
        for name, answer in zip(self._names, answers, strict=True):
            try:
                answered.append(ray.get(answer))
            except RayTaskError as error:
                why = reason(error.cause) if isinstance(error.cause, Exception) else str(error)
                raise EngineStartError(f"on node {name!r}: {why}") from error
            except RayError as error:
                raise EngineStartError(f"node {name!r} of the replica is gone: {error}") from error
        return answered


def _how(waits: Remote) -> str:
    """Return how an engine ended that was waited for; its node may be gone, or its actor."""
    try:
        return str(ray.get(waits))
    except RayError as error:
        return f"with what started it: {reason(error)}"
