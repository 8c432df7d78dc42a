"""What a user declares: accelerators, pools, fleets, stages, pipelines, endpoints. Frozen values.

Fields that nobody publishes are `None`, never guessed. Nothing here knows a vendor by name: a new
accelerator is data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from orchestrator.core.emulation import HOST_DEVICE, OWN, Emulation
from orchestrator.core.failure import Action, FailureKind
from orchestrator.core.policy import Gate, Limits, Recovery, Rollout, Watch

Json: TypeAlias = object
Format = Literal["fp32", "bf16", "fp8", "fp8_ue8m0", "fp8_fnuz", "mxfp8", "hif8", "int8"]


class Role(StrEnum):
    """What a stage needs a pool for."""

    PREPARE = "prepare"
    TRAIN = "train"
    SERVE = "serve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """Facts of one chip.

    Attributes:
        name: Name of the chip, as its maker writes it.
        vendor: The maker. Several makers share a torch device: never infer one from the other.
        device: torch device type (`cuda`, `npu`, `mlu`, ...; `cpu` for a host without a chip).
        backend: `torch.distributed` backend for collectives (`nccl`, `hccl`, ..., `gloo`).
        resource: Ray resource that counts the chips; `None` for a host without one.
        visible_devices: Environment variable that limits a process to some chips.
        torch_package: Package that adds the torch device, where it isn't built in.
        vllm_plugin: vLLM plug-in package of the maker.
        memory_gb: Memory of a chip, GB.
        bandwidth_tbs: Memory bandwidth, TB/s.
        bf16_tflops: Dense BF16 rate, TFLOP/s.
        fp8_tflops: Dense FP8 rate, TFLOP/s.
        link_gbs: Bandwidth of the links between chips, GB/s.
        formats: Weight formats that it can serve, best first.
        price_per_hour: Rental price of one chip, US dollars per hour.
        roles: Roles that the chip may take.
        source: Where the figures are published.
    """

    name: str
    vendor: str
    device: str
    backend: str
    resource: str | None = None
    visible_devices: str | None = None
    torch_package: str | None = None
    vllm_plugin: str | None = None
    memory_gb: float | None = None
    bandwidth_tbs: float | None = None
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    link_gbs: float | None = None
    formats: tuple[Format, ...] = ("bf16",)
    price_per_hour: float | None = None
    roles: tuple[Role, ...] = (Role.PREPARE, Role.TRAIN, Role.SERVE)
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A named group of like accelerators.

    Attributes:
        name: Name of the pool; the value of the Ray node label `pool`.
        accelerator: The chip.
        nodes: Number of nodes.
        devices_per_node: Chips a node.
        cpus_per_node: CPU cores that a node offers to the scheduler.
        labels: Node labels, beside `pool`, that a node must carry to belong to the pool.
        python: Interpreter of the environment in which work on this pool runs, a path on its
            nodes: that with the maker's torch or vLLM plug-in. The cluster's own where empty; it
            must have the same versions of Python and Ray.
        roles: Roles that the owner allows here; the chip's own where empty.
        price_per_hour: Price of one chip and hour in US dollars; the chip's own where `None`.
        emulation: Set where the chips are emulated.
        available: False for a pool that can't be used at present.
        reason: Why it isn't available.
    """

    name: str
    accelerator: Accelerator
    nodes: int = 1
    devices_per_node: int = 1
    cpus_per_node: int = 2
    labels: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    roles: tuple[Role, ...] = ()
    price_per_hour: float | None = None
    emulation: Emulation | None = None
    available: bool = True
    reason: str = ""

    @property
    def devices(self) -> int:
        """Chips of the whole pool."""
        return self.nodes * self.devices_per_node

    @property
    def emulated(self) -> bool:
        """Whether the chips are emulated."""
        return self.emulation is not None

    @property
    def emulation_mode(self) -> str:
        """What stands in for the chips, in a few words; empty where they are real."""
        if self.emulation is None:
            return ""
        plain = self.device == HOST_DEVICE
        stand_in = "plain CPU" if plain else f"{self.device} on CPU"
        return f"{stand_in} with faults" if self.emulation.faults else stand_in

    @property
    def allowed_roles(self) -> tuple[Role, ...]:
        """Roles that this pool may take."""
        return self.roles or self.accelerator.roles

    @property
    def price(self) -> float | None:
        """Price of one chip, US dollars per hour, or `None` where unknown."""
        known = self.price_per_hour
        return self.accelerator.price_per_hour if known is None else known

    @property
    def device(self) -> str:
        """torch device type that work on this pool really uses."""
        asked = self.emulation.device if self.emulation else OWN
        return self.accelerator.device if asked == OWN else asked

    @property
    def backend(self) -> str:
        """Backend for collectives that work on this pool really uses."""
        asked = self.emulation.backend if self.emulation else OWN
        return self.accelerator.backend if asked == OWN else asked

    @property
    def selector(self) -> dict[str, str]:
        """Label selector that finds the nodes of this pool."""
        return {"pool": self.name, **self.labels}

    @property
    def runtime_env(self) -> dict[str, str]:
        """The environment of its processes, as Ray takes it."""
        return {"py_executable": self.python} if self.python else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The pools that a user has, by name."""

    name: str
    pools: Mapping[str, Pool]


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
class Endpoint:
    """A model served at a stable address.

    Attributes:
        name: Name of the endpoint, and of the model in the OpenAI API.
        engine: Dotted name of the engine class, under the allow-list of job packages.
        model: Name of the stage input that holds the model folder.
        replicas: Number of engine processes; the least of them where it scales.
        max_replicas: The most of them; with it they follow the load.
        target_requests: Requests that a replica works on at once, for which scaling aims.
        idle: Seconds without a request after which the replicas end; the next request has them
            started again, and waits for that. Never where `None`.
        concurrency: Requests that a replica works on at once, at most.
        queue: Requests that wait at the gateway, at most; more are answered by 429.
        sticky: What keeps a client on its revision while shares stand: its API `key`, its
            `session` (header `x-session-id`), or nothing.
        rollout: How a new revision takes over.
        formats: Weight formats that the model is exported in, best first.
        engine_options: Keyword arguments of the engine.
    """

    name: str
    engine: str
    model: str = "model"
    replicas: int = 1
    max_replicas: int | None = None
    target_requests: float = 8.0
    idle: float | None = None
    concurrency: int = 256
    queue: int = 1024
    sticky: Literal["", "key", "session"] = ""
    formats: tuple[Format, ...] = ("bf16",)
    rollout: Rollout = field(default_factory=Rollout)
    engine_options: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A job or an endpoint, the role it needs, what it reads, and its limits.

    Exactly one of `job` (dotted name of a function) and `endpoint` is set. `inputs` names, for
    each input of the job, the stage whose artifact it reads; `after` lists further stages that
    must be done before. `hours` is the expected wall time, for the cost in the plan. What follows
    a failure is `on_failure`, by its kind, else the default of that kind.
    """

    name: str
    role: Role
    job: str | None = None
    endpoint: Endpoint | None = None
    params: Mapping[str, Json] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    needs: Needs = field(default_factory=Needs)
    limits: Limits = field(default_factory=Limits)
    on_failure: Mapping[FailureKind, Action] = field(default_factory=dict)
    recovery: Recovery = field(default_factory=Recovery)
    watch: Watch = field(default_factory=Watch)
    gate: Gate | None = None
    hours: float | None = None
    cache: bool = True

    @property
    def upstream(self) -> tuple[str, ...]:
        """Names of the stages that must be done before this one, each once."""
        return tuple(dict.fromkeys((*self.inputs.values(), *self.after)))

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bindings:
    """Which pool takes each role, and which pools may take over, in order."""

    roles: Mapping[Role, str]
    fallbacks: Mapping[Role, tuple[str, ...]] = field(default_factory=dict)

    def order(self, role: Role) -> tuple[str, ...]:
        """Return the pools of `role` in order of preference, each once."""
        first = (self.roles[role],) if role in self.roles else ()
        return tuple(dict.fromkeys((*first, *self.fallbacks.get(role, ()))))
