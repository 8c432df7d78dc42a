"""What is said across the ports: requests, what attempts answer, and the state of things.

Frozen values that travel between processes; no behaviour but names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from orchestrator.core.artifact import ANY_ROOM, ArtifactRef, CacheRoom, ShippedCode
from orchestrator.core.failures.kinds import Failure
from orchestrator.core.failures.signatures import Signature
from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.policy import AS_PLANNED, Adjust, Watch
from orchestrator.core.spec.stages import Json, Needs


@dataclass(frozen=True, slots=True)
class TrackedAt:
    """Where MLflow shows a run: the address of its server, and the name of the experiment."""

    uri: str
    experiment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptRequest:
    """All that a pool needs to know to execute one attempt of a job.

    The controller makes it; the cluster that places the attempt and its workers read it. `job` is
    a dotted function name under one of `packages`. What is `shipped` is put on the import path;
    the folders of `code` are where nothing is. `storage` is the base URI of the artifact store.
    `epoch` and `attempt` fence writes: once a later one has begun, this one must not commit.
    `avoid` names nodes of the pool on which no worker is placed while others can do, `drained`
    those on which none is placed in any case; `keep` is how many checkpoints are kept. With
    `needs.min_workers` the cluster decides how many workers there are, by what it has room for.
    `continues` is the folder of an earlier run's checkpoints in the artifact store: the attempt
    goes on from the newest of them while its stage has none of its own. Workers that are asked to
    end have `kill_after` seconds to leave; `waits` has the other times. `measured` is what the
    nodes are told apart by that may be used (`node/node_identity.py`); with `None` any may. `env`
    are variables of its processes, `secrets` such that are shown nowhere. `node_ranks` has for
    each worker the number of its node; it is empty until they have their places. `room` is what
    its nodes may keep of artifacts. `tracked` is set where what its job starts is to write to its
    run in MLflow.
    """

    run: str
    stage: str
    attempt: int
    epoch: int
    job: str
    params: Mapping[str, Json]
    packages: tuple[str, ...]
    code: tuple[str, ...]
    inputs: Mapping[str, ArtifactRef]
    storage: str
    seed: int
    pool: Pool
    needs: Needs
    adjust: Adjust = AS_PLANNED
    avoid: tuple[str, ...] = ()
    drained: tuple[str, ...] = ()
    keep: int = 3
    kill_after: float = 10.0
    waits: AttemptSettings = PATIENT
    watch: Watch = field(default_factory=Watch)
    signatures: tuple[Signature, ...] = ()
    continues: str = ""
    measured: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    node_ranks: tuple[int, ...] = ()
    shipped: ShippedCode | None = None
    room: CacheRoom = ANY_ROOM
    tracked: TrackedAt | None = None

    @property
    def key(self) -> str:
        """Name of the attempt, unique over all runs."""
        return f"{self.run}/{self.stage}/{self.attempt}"

    def local_rank(self, rank: int) -> int:
        """Return which worker of its node worker `rank` is, counted from 0."""
        node_ranks = self.node_ranks
        return rank - node_ranks.index(node_ranks[rank]) if node_ranks else rank


# --- what an attempt says ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiting:
    """The attempt has no place yet; `queued` where there is one, which others hold."""

    reason: str
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """All workers have started; `nodes` are their node names by rank.

    `software` has the versions, by name, that the worker of rank 0 runs.
    """

    nodes: tuple[str, ...]
    software: Mapping[str, str] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Points:
    """Metric points of one training step; `at` is seconds since the epoch, when recorded."""

    step: int
    values: Mapping[str, float]
    at: float

    def __reduce__(self) -> tuple[type[Points], tuple[object, ...]]:
        """Travel as a short tuple: a job says many of these."""
        return Points, (self.step, self.values, self.at)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the job is, in its own units."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Resumed:
    """The job goes on from the checkpoint of `step`."""

    step: int


@dataclass(frozen=True, slots=True)
class Saved:
    """The checkpoint of `step` is committed."""

    step: int


@dataclass(frozen=True, slots=True)
class Alive:
    """Worker `rank` lives, and its job has come to `step`, where that is known.

    `at` is when it says so, by the clock of its node (seconds, epoch). It may be `busy` with
    something, for so many `seconds` now.
    """

    rank: int
    step: int | None
    at: float | None = field(default=None, compare=False)
    busy: str = ""
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that a worker printed."""

    rank: int
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """A text file that the job shows with its attempt, over one of the same name."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The attempt is done: its artifact, and the headline metrics that the job returned.

    The controller adds what it knows and the worker does not: `pool`, what was done otherwise than
    planned, and how many workers it had in the end.
    """

    artifact: ArtifactRef | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    pool: str = ""
    adjust: Adjust = AS_PLANNED
    workers: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt ended without a result; `at` is when that showed (seconds, epoch), if known."""

    failure: Failure
    at: float | None = None


Message: TypeAlias = (
    Waiting
    | Placed
    | Points
    | Progress
    | Resumed
    | Saved
    | Alive
    | LogLine
    | Report
    | Succeeded
    | Failed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedNode:
    """A node of `pool` that is not to be used.

    `until` (seconds, epoch) is the end of its quarantine; with `None` somebody drains it, until
    somebody says otherwise.
    """

    pool: str
    node: str
    reason: str
    until: float | None = None


class PoolState(StrEnum):
    """Whether a pool can be used now."""

    UP = "up"
    BUSY = "busy"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """A stage that waits for `devices` chips on `pool`, since `since` (seconds, epoch)."""

    pool: str
    run: str
    stage: str
    priority: int
    since: float
    devices: int = 1

    @property
    def order(self) -> tuple[float, float, str, str]:
        """What the queue of a pool is sorted by: priority, then who came first."""
        return (-self.priority, self.since, self.run, self.stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The controller of a run showed life at `at` (seconds, epoch).

    `holder` names its process and machine, for those who can look whether it lives. The time is
    negative where it has left the run in order, and may have the last to write.
    """

    run: str
    epoch: int
    at: float
    holder: str = ""

    @property
    def left_in_order(self) -> bool:
        """Whether the controller has left its run in order."""
        return self.at < 0.0


@dataclass(frozen=True, slots=True)
class Busy:
    """An attempt of `stage` is busy with `what` since `since` (seconds, epoch)."""

    stage: str
    attempt: int
    what: str
    since: float


@dataclass(frozen=True, slots=True)
class Untold:
    """How often `what` happened (`log lines were not written`), and the last reason."""

    what: str
    count: int
    reason: str

    def __str__(self) -> str:
        """Return it as a line."""
        what = self.what.replace("s were ", " was ", 1) if self.count == 1 else self.what
        return f"{self.count:,} {what}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """A live node as the cluster sees it: its chips by number and by what is free."""

    name: str
    devices: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatus:
    """A pool as the cluster sees it: live nodes, and chips by number and by what is free."""

    name: str
    state: PoolState
    nodes: int = 0
    devices: int = 0
    free: int = 0
    members: tuple[NodeStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class HeadNode:
    """A live node of a cluster: its name, and the address that it has there."""

    name: str
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFacts:
    """What the head at `address` says of its cluster: versions, and the nodes that live.

    `dashboard` is HOST:PORT of its job server; empty where there is none.
    """

    address: str
    ray: str
    python: str
    dashboard: str
    nodes: tuple[HeadNode, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What a node is like. `silent` is why it could not be asked; all else is empty then.

    `versions` and digests of `code` are by name. Its clock is `ahead` by so many seconds, folders
    have so many bytes `free`; it does not see what is `lacking`, nor open what is `untried`: why.
    """

    node: str
    pool: str
    host: str
    silent: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    ahead: float = 0.0
    free: Mapping[str, int] = field(default_factory=dict)
    interface: str = ""
    lacking: Mapping[str, str] = field(default_factory=dict)
    untried: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaWeights:
    """What a replica says of its weights, by the names of versions.

    `version` serves, `pending` is on its way, and `refused` is what it did not take last, with the
    `reason`; each may be empty.
    """

    version: str
    pending: str = ""
    refused: str = ""
    reason: str = ""


class Replacement(StrEnum):
    """How far replicas are that take the place of others of their revision."""

    STARTING = "starting"
    READY = "ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionStatus:
    """A deployed revision: its pool, and the base URL of each replica that answers.

    `state` is `up`, `busy` (replicas are starting or being replaced) or `down`.
    `starting` counts replicas that have a place on a node, and do not answer yet. `misplaced` are
    nodes of those that answer which are not to be used. `replacement` is set while others take the
    place of its replicas; once they are ready `urls` are theirs, and the others may go.
    """

    pool: str
    state: PoolState
    urls: tuple[str, ...]
    starting: int = 0
    misplaced: tuple[str, ...] = ()
    replacement: Replacement | None = None
