"""The hardware that a user declares: accelerators, pools of them, fleets of pools. Frozen values.

Fields that nobody publishes are `None`, never guessed. Nothing here knows a vendor by name: a new
accelerator is data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from orchestrator.core.spec.emulation import HOST_DEVICE, OWN, STAND_INS, Emulation

Format = Literal["fp32", "bf16", "fp8", "fp8_ue8m0", "fp8_fnuz", "mxfp8", "hif8", "int8"]
# Whose reader a folder in some format is written for.
Dialect = Literal["vllm", "sglang", "ascend-modelslim"]
# Number types, as torch names them.
NumberType = Literal[
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"
]


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
        reduces: Number types that its reductions take; none where that is not published.
        resource: Ray resource that counts the chips; `None` for a host without one.
        visible_devices: Environment variable that limits a process to some chips.
        interface_variable: Environment variable that names the network interface by which its
            collectives find each other; it is set to the one that reaches the rendezvous.
        timeout_variable: Environment variable by which its collectives have a limit of time of
            their own, in whole seconds; it is set to `attempts.collective`.
        joining_variable: The same for how long their workers wait for each other before the first
            one; it is set to `attempts.meet`.
        joining_seconds: The least and the most that it may be set to; anything where not given.
        env: Environment variables of all that runs on it.
        secrets: The same, of which a config has no values: see `Stage.secrets`.
        torch_package: Package that adds the torch device, where it isn't built in.
        vllm_plugin: vLLM plug-in package of the maker.
        diagnostic: The maker's command that tests the chips of a node.
        diagnostic_failed: Regular expression for what it prints where a test failed; where it is
            empty, its exit status tells.
        memory_errors: The maker's command that prints the counters of memory errors of a node's
            chips.
        memory_errors_pattern: Regular expression that reads them, with groups `corrected` and
            `uncorrected`; all matches are added up.
        identity: The maker's command that prints the serial numbers of the chips of a node.
        memory_gb: Memory of a chip, GB.
        bandwidth_tbs: Memory bandwidth, TB/s.
        bf16_tflops: Dense BF16 rate, TFLOP/s.
        fp8_tflops: Dense FP8 rate, TFLOP/s.
        link_gbs: Bandwidth of the links between chips, GB/s.
        formats: Weight formats that it can serve, best first.
        computes: Formats whose numbers it multiplies itself, where those are others.
        price_per_hour: Rental price of one chip, US dollars per hour.
        roles: Roles that the chip may take.
        source: Where the figures are published.
    """

    name: str
    vendor: str
    device: str
    backend: str
    reduces: tuple[NumberType, ...] = ()
    resource: str | None = None
    visible_devices: str | None = None
    interface_variable: str | None = None
    timeout_variable: str | None = None
    joining_variable: str | None = None
    joining_seconds: tuple[float, float] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    torch_package: str | None = None
    vllm_plugin: str | None = None
    diagnostic: tuple[str, ...] = ()
    diagnostic_failed: str = ""
    memory_errors: tuple[str, ...] = ()
    memory_errors_pattern: str = ""
    identity: tuple[str, ...] = ()
    memory_gb: float | None = None
    bandwidth_tbs: float | None = None
    bf16_tflops: float | None = None
    fp8_tflops: float | None = None
    link_gbs: float | None = None
    formats: tuple[Format, ...] = ("bf16",)
    computes: tuple[Format, ...] = ()
    price_per_hour: float | None = None
    roles: tuple[Role, ...] = (Role.PREPARE, Role.TRAIN, Role.SERVE)
    source: str = ""

    def limits(self, *, operation: float, joining: float) -> dict[str, str]:
        """Return the variables that limit its collectives, for limits in seconds."""
        least, most = self.joining_seconds or (joining, joining)
        seconds = {
            self.timeout_variable: operation,
            self.joining_variable: min(max(joining, least), most),
        }
        return {name: str(math.ceil(limit)) for name, limit in seconds.items() if name}


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
        env: Environment variables of its processes, over those of the chip.
        secrets: The same, of which a config has no values: see `Stage.secrets`.
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
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
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
    def excuse(self) -> str:
        """Why it isn't available, in words in any case."""
        return self.reason or "no reason given"

    def nodes_of(self, devices: int) -> int:
        """Return over how many nodes a replica with so many chips is spread."""
        return max(1, math.ceil(devices / max(self.devices_per_node, 1)))

    def shares_chips(self, devices: int) -> bool:
        """Whether workers with so many devices each would all see the same chips of a node."""
        hidden = self.accelerator.resource and not self.accelerator.visible_devices
        return bool(hidden) and not self.emulated and 0 < devices < self.devices_per_node

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
        if asked != OWN:
            return asked
        own = self.accelerator.backend
        return STAND_INS.get(own, own) if self.emulation else own

    @property
    def selector(self) -> dict[str, str]:
        """Label selector that finds the nodes of this pool."""
        return {"pool": self.name, **self.labels}

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of its processes, those of its chip among them."""
        return {**self.accelerator.env, **self.env}

    @property
    def secret_sources(self) -> dict[str, str]:
        """Where its secret variables are read, those of its chip among them."""
        return {**self.accelerator.secrets, **self.secrets}

    def runtime_env(self, variables: Mapping[str, str]) -> dict[str, str | dict[str, str]]:
        """Return the environment of a process with such `variables`, as Ray takes it."""
        python: dict[str, str | dict[str, str]] = (
            {"py_executable": self.python} if self.python else {}
        )
        return {**python, "env_vars": dict(variables)} if variables else python


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The pools that a user has, by name."""

    name: str
    pools: Mapping[str, Pool]


def name_in_fleet(fleet: str, pool: str) -> str:
    """Return the name of a pool among those of all fleets: two may each have one of a name."""
    return f"{fleet}/{pool}"


def pool_of_fleet(fleet: str, name: str) -> str | None:
    """Return the pool that `name_in_fleet` named so; `None` where it is of another fleet.

    A name without a fleet is of every one.
    """
    before, slash, pool = name.rpartition("/")
    return pool if not slash or before == fleet else None
