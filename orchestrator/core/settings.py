"""A parsed config: all that a command needs to know, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from orchestrator.core.artifact import CacheRoom
from orchestrator.core.failures.signatures import Signature
from orchestrator.core.spec.hardware import Fleet
from orchestrator.core.spec.policy import UNBOUNDED, Bounds
from orchestrator.core.spec.stages import Bindings, Json, Pipeline
from orchestrator.core.trust.qualification import Rules


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """Where jobs may come from: an allow-list of packages, and folders for the import path.

    At most `most_mb` MB of them travel to the nodes with a run.
    """

    packages: tuple[str, ...] = ("jobs",)
    code: tuple[str, ...] = ()
    most_mb: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Where artifacts are kept.

    Attributes:
        uri: Base URI of the artifact store; empty for the folder `artifacts` of the home.
        shared: Whether the hosts of a cluster that is not ours share that folder.
        cache: Folder of each node for what it downloads, and for what it is about to send.
        cache_gb: How much of what was downloaded a node keeps at most.
        proof: For how many seconds each node tries to read what this host has written there,
            before the first attempt.
        answer: Seconds within which it must have begun to, and then said whether it can.
    """

    uri: str = ""
    shared: bool = False
    cache: str = ""
    cache_gb: float = 200.0
    proof: float = 20.0
    answer: float = 120.0

    @property
    def room(self) -> CacheRoom:
        """What a node may keep."""
        return CacheRoom(self.cache, self.cache_gb)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingSettings:
    """Where runs are shown. An empty `uri` is a managed MLflow server on this machine.

    `system_seconds` is the time between two samples of system metrics; 0 takes none. A
    managed server may take `start` seconds to answer, the last of a run `finish` to be shown, and
    one request `request`: while it is out, nothing else is shown.
    """

    enabled: bool = True
    uri: str = ""
    experiment: str = "orchestrator"
    system_seconds: float = 5.0
    start: float = 180.0
    finish: float = 60.0
    request: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """Where attempts run.

    `ray` with an empty `address` is a managed cluster on this machine, `local` runs every
    attempt in this process. `patience` is for how many seconds the head of a cluster that is not
    managed may be silent before it counts as gone, and `managed_patience` that of a managed one,
    whose supervisor would start no other; `start` is for how many a managed one may take to be up.
    `hand_over` is for how many a job of the cluster may take to begin; one that runs has as many
    more than it may wait itself, for the cluster, its storage and its nodes, to have the run that
    it is to drive. `take_overs` is how often in a row, without getting on, a run on a
    cluster that is not managed goes on by itself when its controller has died.
    """

    kind: Literal["ray", "local"] = "ray"
    address: str = ""
    object_store_mb: int = 100
    patience: float = 180.0
    managed_patience: float = 4.0
    start: float = 180.0
    hand_over: float = 30.0
    take_overs: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Files in PEM; none is plain HTTP."""

    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorsSettings:
    """Origins whose pages may ask the gateway; `*` is all."""

    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """Where Prometheus asks the gateway; nowhere without a port."""

    host: str = "127.0.0.1"
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilerSettings:
    """When the reconciler beside a gateway acts. Times are in seconds.

    Attributes:
        loss: How long an endpoint is without a replica that answers or starts, until another pool
            takes over.
        between_moves: How long it stays on that pool, at the least.
        crowd: How long requests wait, until a pool of `overflow` is asked to help.
        lull: How long nobody needs that help, until it goes.
        between_helps: How long after help was asked for it is asked for again, and how much longer
            than its `ready` it may take to come.
        after_failed_move: How soon the next pool is tried where a move has failed.
        outside: Seconds between two looks at a server that somebody else runs.
        outside_failures: After how many in a row without an answer it is sent nothing.
    """

    loss: float = 20.0
    between_moves: float = 300.0
    crowd: float = 3.0
    lull: float = 120.0
    between_helps: float = 120.0
    after_failed_move: float = 30.0
    outside: float = 5.0
    outside_failures: int = 3


RECONCILER = ReconcilerSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The server that clients ask.

    Attributes:
        host: Where it listens.
        port: The same; one for all endpoints.
        url: What clients are told; made of `host` and `port` where empty.
        processes: How many serve that port together, each on a core of its own.
        tls: Its certificate.
        cors: Which browsers may ask it.
        metrics: The listener for Prometheus; each process has its own, at the next port.
        access_log: A file that gets a line for each request; `-` is the service's own log.
        limits: Those of its connections, requests and waiting that differ from the defaults.
        start: Seconds that it may take to answer once it is started.
        reconciler: When the reconciler that is started with it acts.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    url: str = ""
    processes: int = 1
    tls: TlsSettings = field(default_factory=TlsSettings)
    cors: CorsSettings = field(default_factory=CorsSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    access_log: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    start: float = 60.0
    reconciler: ReconcilerSettings = RECONCILER

    @property
    def scheme(self) -> str:
        """How it is spoken to."""
        return "https" if self.tls.certificate else "http"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSettings:
    """How a run uses the database: `patience` seconds may it be away before the run stops."""

    patience: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSettings:
    """What an attempt waits for, and how long. Times are in seconds.

    Attributes:
        retry: How long a call that follows a commit is tried again: the start of an attempt, its
            end.
        unanswered: How long an attempt may be asked in vain until it counts as failed.
        avoid: How long it waits for another node than those where its stage failed.
        quarantine: How long no run uses a node on which a chip broke, where others can do; 0 has
            each stage avoid it by itself alone.
        shrink: How long an elastic gang waits for the place of all its workers, until it goes on
            with as many as have one.
        grow: How long there must be room for the rest of an elastic gang that began with fewer,
            until it leaves at its next checkpoint to begin whole; with `None` it stays as it is.
        meet: How long the workers of a gang may take to meet once all have their places. What each
            reads it fetches after that; the others wait for it however long that is.
        collective: How long one operation of `torch.distributed` may take.
        storage: How long an answer of the artifact store that may pass is asked for again.
        checkpoint: How long nothing may move of a checkpoint that others save or verify.
        fence: How often a worker looks whether a newer attempt has claimed its checkpoints.
        hang: The least silence that is a hang where `watch.hang` is `auto`.
        hang_steps: A silence of so many steps of the job, where that is longer.
        busy_factor: How many times as long a job may be silent whose process works.
        margin: How much longer than a hang a whole process may be silent, which else shows every
            second that it lives.
        begin: How long a task for which there is room may take to begin, until it counts as one
            that waits for others.
        settle: How long a failure that may be an effect waits for that of the worker which is the
            cause.
        remains: How long the node of a process that died is asked for what is left of it.
        last_save: How long a job that has failed may finish its last checkpoint.
        skipped_saves: How many saves in a row the storage may refuse, until the attempt fails.
    """

    retry: float = 30.0
    unanswered: float = 60.0
    avoid: float = 60.0
    quarantine: float = 86_400.0
    shrink: float = 3.0
    grow: float | None = 600.0
    meet: float = 600.0
    collective: float = 600.0
    storage: float = 180.0
    checkpoint: float = 600.0
    fence: float = 60.0
    hang: float = 600.0
    hang_steps: int = 20
    busy_factor: float = 3.0
    margin: float = 5.0
    begin: float = 10.0
    settle: float = 3.0
    remains: float = 10.0
    last_save: float = 10.0
    skipped_saves: int = 3


PATIENT = AttemptSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """What is written in a config as it is used."""

    seed: int = 0
    priority: int = 0
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    jobs: JobSettings = field(default_factory=JobSettings)
    attempts: AttemptSettings = PATIENT
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    qualification: Rules = field(default_factory=Rules)
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(CommonSettings):
    """A whole config. `resolved` is what Hydra composed, interpolations filled in.

    `adapters/hydra_config/parse.py` makes it, again from `resolved` when a run is gone on with;
    plans, wiring and what drives a run read it. A worker has what it needs of it by its request.
    `renamed` says in lines which of its settings and jobs have another name than it gives them.
    """

    pipeline: Pipeline
    fleet: Fleet
    bindings: Bindings
    bounds: Bounds = UNBOUNDED
    resolved: Mapping[str, Json] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
