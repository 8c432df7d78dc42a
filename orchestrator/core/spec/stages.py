"""The work that a user declares: stages, pipelines, endpoints, and who does it. Frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from orchestrator.core.failures.kinds import Action, FailureKind
from orchestrator.core.spec.engines import EngineSpec
from orchestrator.core.spec.hardware import Format, Role
from orchestrator.core.spec.policy import Gate, Limits, Recovery, Rollout, Watch

Json: TypeAlias = object
SLOTS = 32  # of an engine class that has no option of this name


LONGEST_ANSWER = 900.0  # seconds, where the gateway's limits say nothing else


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one attempt asks of its pool: `workers` processes with so much each.

    With `min_workers` the gang is elastic: it goes on with fewer, but not less than those, where
    the pool has no room for more. A config writes both as `workers: {min: 1, max: 4}`.
    `devices` is the number of chips a worker; 0 for work that needs only the host's cores.
    `memory_gb` is the chip memory a worker needs, where the user knows it.
    """

    workers: int = 1
    devices: int = 1
    cpus: float = 1.0
    memory_gb: float | None = None
    min_workers: int | None = None

    @property
    def least(self) -> int:
        """The fewest workers that will do."""
        return self.workers if self.min_workers is None else self.min_workers


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A model of the same storage that is served in the place of the one that a run has made.

    `uri` and `digest` are its artifact's, `version` is its name in answers.
    """

    uri: str
    digest: str
    version: str
    format: Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Bounds of an endpoint's replicas on one pool; `None`: as on any other."""

    replicas: int | None = None
    max_replicas: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A model served at a stable address.

    Attributes:
        name: Name of the endpoint, and of the model in the OpenAI API.
        engine: Dotted name of the engine class, under the allow-list of job packages, or the
            name of an engine server.
        server: That server, where `engine` names one.
        model: Name of the stage input that holds the model folder.
        replicas: Number of engine processes; the least of them where it scales.
        max_replicas: The most of them; with it they follow the load.
        scale: Other bounds of both on some pools, by their names.
        target_requests: Requests that a replica works on at once, for which scaling aims.
        target_tokens: Tokens of prompts and answers that a replica holds at once, likewise; what
            asks for more replicas counts. Tokens don't count where `None`.
        ready: Seconds within which its replicas must answer once they have their places.
        idle: Seconds without a request after which the replicas end; the next request has them
            started again, and waits for that. Never where `None`.
        concurrency: Requests that a replica works on at once, at most; as many as its engine
            does where `None`.
        queue: Requests that wait at the gateway, at most; more are answered by 429.
        sticky: What keeps a client on its revision while shares stand: its API `key`, its
            `session` (header `x-session-id`), or nothing.
        overflow: Pools that may help out while requests find no room, in order: a revision of
            the same model is deployed there when some wait, and goes when it isn't needed. The
            pool that serves may be among them, and is passed over.
        rollout: How a new revision takes over.
        probe: What a rollout posts to `/v1/predict` of an engine that predicts; such an engine is
            only asked whether it is ready where there is none.
        drain: Seconds that the answers of a revision have to end once it is retired; by default as
            long as the gateway lets one take (`gateway.limits.request_seconds`).
        formats: Weight formats that the model is exported in, best first.
        engine_options: Keyword arguments of the engine class; options of the server, by the
            names that it has for them.
        updates: Whether an engine server may take new weights while it runs. It then opens its
            own control paths to whoever reaches its port.
        weights: What was put in the place of the model by a live update, and is to be served on
            wherever the endpoint goes; set by whatever moves it.
    """

    name: str
    engine: str
    server: EngineSpec | None = None
    model: str = "model"
    replicas: int = 1
    max_replicas: int | None = None
    scale: Mapping[str, Scale] = field(default_factory=dict)
    target_requests: float = 8.0
    target_tokens: float | None = None
    ready: float = 1800.0
    idle: float | None = None
    concurrency: int | None = None
    queue: int = 1024
    sticky: Literal["", "key", "session"] = ""
    formats: tuple[Format, ...] = ("bf16",)
    overflow: tuple[str, ...] = ()
    rollout: Rollout = field(default_factory=Rollout)
    probe: Json = None
    drain: float | None = None
    engine_options: Mapping[str, Json] = field(default_factory=dict)
    updates: bool = False
    weights: Weights | None = None

    @property
    def drain_seconds(self) -> float:
        """Seconds that its answers have to end once a revision is retired."""
        return LONGEST_ANSWER if self.drain is None else self.drain

    @property
    def requests_at_once(self) -> int:
        """How many requests a replica works on at once: more of them wait at the gateway."""
        if self.concurrency is not None:
            return self.concurrency
        if self.server is not None:
            return self.server.requests_at_once(self.engine_options)
        slots = self.engine_options.get("slots")
        return slots if isinstance(slots, int) and slots > 0 else SLOTS

    def on(self, pool: str) -> Endpoint:
        """Return it with the bounds that hold on `pool`."""
        scale = self.scale.get(pool, Scale())
        return replace(
            self,
            replicas=self.replicas if scale.replicas is None else scale.replicas,
            max_replicas=self.max_replicas if scale.max_replicas is None else scale.max_replicas,
        )

    def helpers(self, pool: str) -> tuple[str, ...]:
        """Return the pools that may help it out while it is served by `pool`."""
        return tuple(name for name in self.overflow if name != pool)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPool:
    """What differs of a stage on one pool: `needs` and `watch` whole, `params` over its own.

    A config writes of each what differs alone.
    """

    needs: Needs | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    watch: Watch | None = None


AS_EVERYWHERE = OnPool()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A job or an endpoint, the role it needs, what it reads, and its limits.

    Exactly one of `job` (dotted name of a function) and `endpoint` is set. `inputs` names, for
    each input of the job, the stage whose artifact it reads; `after` lists further stages that
    must be done before. `hours` is the expected wall time, for the cost in the plan. What follows
    a failure is `on_failure`, by its kind, else the default of that kind. `pool` names its first
    pool, in the place of that of its role; `on` says what differs on some pools, by their names.

    `env` are environment variables of its workers, over those of the pool. `secrets` are variables
    too, each with where its value is read when an attempt starts, on the controller's host: the
    name of a variable there, or a file, whose name has a `/`. No value of them is kept anywhere.
    """

    name: str
    role: Role
    pool: str = ""
    job: str | None = None
    endpoint: Endpoint | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)
    on: Mapping[str, OnPool] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    on_failure: Mapping[FailureKind, Action] = field(default_factory=dict)
    recovery: Recovery = field(default_factory=Recovery)
    watch: Watch = field(default_factory=Watch)
    gate: Gate | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    hours: float | None = None
    cache: bool = True

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the stages that must be done before this one, each once."""
        return tuple(dict.fromkeys((*self.inputs.values(), *self.after)))

    def on_pool(self, pool: str) -> Stage:
        """Return it as it is on `pool`."""
        if self.endpoint is None and pool not in self.on:
            return self
        differs = self.on.get(pool, AS_EVERYWHERE)
        return replace(
            self,
            endpoint=self.endpoint.on(pool) if self.endpoint else None,
            needs=differs.needs or self.needs,
            params={**self.params, **differs.params},
            watch=differs.watch or self.watch,
        )

    @property
    def processes(self) -> int:
        """Processes of one attempt: the workers of a gang, or the replicas of an endpoint."""
        return self.endpoint.replicas if self.endpoint else self.needs.workers

    @property
    def fewest(self) -> int:
        """Processes that will do, where the pool has no room for all."""
        return self.endpoint.replicas if self.endpoint else self.needs.least

    @property
    def devices(self) -> int:
        """Chips that one attempt uses on its pool."""
        return self.processes * self.needs.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """A directed acyclic graph of stages, by the order in which the user wrote them."""

    name: str
    stages: tuple[Stage, ...]

    @property
    def by_name(self) -> dict[str, Stage]:
        """The stages by their names, for who looks up many: made anew each time."""
        return {stage.name: stage for stage in reversed(self.stages)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """Which pool takes each role, and which pools may take over, in order.

    A stage that names its pool has the fallbacks of its role.
    """

    roles: Mapping[Role, str]
    fallbacks: Mapping[Role, tuple[str, ...]] = field(default_factory=dict)

    def order(self, stage: Stage) -> tuple[str, ...]:
        """Return the pools of `stage` in order of preference, each once."""
        first = stage.pool or self.roles.get(stage.role)
        fallbacks = self.fallbacks.get(stage.role, ())
        return tuple(dict.fromkeys((*((first,) if first else ()), *fallbacks)))
