"""Engine servers as data: how one is started, asked, watched and given new weights.

An engine in a config is either a Python class, by its dotted name, or the name of an engine
server (vLLM, SGLang, a maker's own): a process that answers the OpenAI API at a port. A new one is
one YAML file; nothing here knows any by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from orchestrator.core.spec.hardware import Dialect, Format, Pool

Json: TypeAlias = object

USUAL: Dialect = "vllm"  # what every reader of one format takes, and the embedded engine
CPU = "cpu"  # in place of a maker, where the host's cores compute


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What holds for an engine server on the chips of one maker.

    Attributes:
        formats: Weight formats that it reads there; all that the chip serves where empty.
        dialects: Formats that it reads there in another dialect than vLLM's.
        environment: Variables set there beside those of the engine.
        options: Options that it needs there; a user's own go over them.
        command: Its command there, where it differs.
        follower: The command there of what follows on another node, where it differs.
        multiples: Of which the outputs and the inputs of a layer on a chip have to be, by format.
        dense: Formats in which it reads no experts there.
    """

    formats: tuple[Format, ...] = ()
    dialects: Mapping[Format, Dialect] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Json] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    follower: tuple[str, ...] = ()
    multiples: Mapping[Format, tuple[int, int]] = field(default_factory=dict)
    dense: tuple[Format, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """How an engine server runs over several nodes, by a process on each.

    The first leads: it is asked, and the others follow it. In all texts `{nodes}` says how many
    there are, `{rank}` which of them this is, `{leader}` at which address the first is reached,
    `{leader_port}` and `{leader_port_2}` which ports are free there, `{interface}` the network
    interface by which this node reaches it; `{host}` and `{port}` are this node's own.

    Attributes:
        options: Options of each process, beside those of a replica on one node.
        environment: Variables of each, where its node does not set them.
        follower: Command of those that follow, where it differs.
        following: Options of those that follow, beside `options`.
    """

    options: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    follower: tuple[str, ...] = ()
    following: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Names of the options by which a model is spread over chips; empty: it can't be so.

    Where the option `shared` is set, the groups of data parallelism are made of the chips of
    tensor parallelism, not of others beside them.
    """

    tensor: str = ""
    pipeline: str = ""
    data: str = ""
    shared: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNames:
    """Names of the engine's own figures, as Prometheus reads them; empty: it has none.

    `running` and `waiting` count requests, `tokens` are counters that grow while it works,
    `suspect` are counters of answers that the engine itself thinks are wrong: when they grow it is
    asked for a token at once. `cache_used` is a share of the key-value cache, and `cache_size` has
    how many tokens that holds: a figure, or the labels of one, multiplied.
    """

    running: str = ""
    waiting: str = ""
    tokens: tuple[str, ...] = ()
    suspect: tuple[str, ...] = ()
    cache_used: str = ""
    cache_size: str = ""
    cache_labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateStep:
    """One request of those by which an engine takes new weights.

    `{folder}` and `{version}` in the texts of `body` are those of the new weights.
    """

    path: str
    method: Literal["GET", "POST"] = "POST"
    body: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """An engine server.

    Attributes:
        name: What configs call it.
        command: Its argv. `{python}` is the interpreter of the pool, `{model}` the model's
            folder, `{name}` what clients call the model, `{host}` and `{port}` where it is to
            listen, `{devices}` how many chips it has and `{chips}` their numbers (`0, 1`) among
            those that it sees, `{files}` the folder of `files`.
        environment: Variables that are set for it.
        key_variable: Variable from which it reads the key that callers must show.
        files: Files written for it before it starts, to its user alone, by name; `{key}` stands
            for its key: for engines that take one from no variable.
        options_file: Which of `files`, as JSON, takes the options, at the place that their dotted
            names say (`a.0.b`); they stand in its argv where empty.
        health: Path that answers 200 while it is well.
        ready: Path that answers 200 once it can be asked.
        probe: Path at which one token is asked for; empty where it is asked for nothing.
        embeds: Path at which a text is embedded, which is asked for where it generates nothing.
        metrics: Path of its own figures; empty where it has none.
        figures: Names of those that are read.
        options: Options that it always gets; a maker's and a user's own go over them.
        negation: What stands before the name of an option that is false (`no-`); it is left out
            where this is empty.
        refuses: Options that no user may set, beside those of `command`, and why.
        parallel: Options that spread a model over chips.
        nodes: How it runs over several nodes; a replica is on one where this is empty.
        concurrency: Option that says how many requests it works on at once.
        at_once: How many that are where the option is not given.
        update: How it takes new weights while it runs; it is started anew where empty, and where
            the endpoint does not ask for live `updates`.
        update_environment: Variables that are set where it does.
        plain: Types of models (`architecture`) of which it reads plain weights alone.
        makers: What differs by the maker of the chips (`vendor` of the accelerator; `cpu` for
            the host's cores). It runs on no chip of a maker that is not here.
        probe_seconds: Seconds between two tokens that are asked for.
        deadline: Seconds within which one must come, for whoever asked.
        grace: Seconds that it has to end.
        health_seconds: Seconds within which it must say whether it is well, ready, and how busy.
        long_seconds: Seconds that its first answer, the scores of a text and a step of `update`
            may take.
        unwell: Looks in a row at which it says that it is not well, or nothing, until it is ended.
    """

    name: str
    command: tuple[str, ...]
    makers: Mapping[str, Maker]
    environment: Mapping[str, str] = field(default_factory=dict)
    key_variable: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    options_file: str = ""
    health: str = "/health"
    ready: str = "/health"
    probe: str = "/v1/completions"
    embeds: str = "/v1/embeddings"
    metrics: str = "/metrics"
    figures: MetricNames = field(default_factory=MetricNames)
    options: Mapping[str, Json] = field(default_factory=dict)
    negation: str = ""
    refuses: Mapping[str, str] = field(default_factory=dict)
    parallel: Parallel = field(default_factory=Parallel)
    nodes: Nodes | None = None
    concurrency: str = ""
    at_once: int = 256
    update: tuple[UpdateStep, ...] = ()
    update_environment: Mapping[str, str] = field(default_factory=dict)
    plain: tuple[str, ...] = ()
    probe_seconds: float = 15.0
    deadline: float = 60.0
    grace: float = 10.0
    health_seconds: float = 10.0
    long_seconds: float = 600.0
    unwell: int = 3

    def on(self, pool: Pool) -> Maker | None:
        """Return what holds on the chips of `pool`, `None` where it does not run there.

        What stands in for a chip as a torch device of this process is no chip for another one.
        """
        stand_in = pool.emulated and pool.device != CPU
        return None if stand_in else self.makers.get(maker_of(pool))

    def reads(self, form: Format, pool: Pool) -> bool:
        """Return whether it reads a weight format on the chips of `pool`."""
        maker = self.on(pool)
        return maker is not None and (not maker.formats or form in maker.formats)

    def dialect(self, form: Format, pool: Pool) -> Dialect:
        """Return how it wants a folder in a format written on the chips of `pool`."""
        maker = self.on(pool)
        return maker.dialects.get(form, USUAL) if maker else USUAL

    def all_options(self, pool: Pool, options: Mapping[str, Json]) -> dict[str, Json]:
        """Return all its options on `pool`, by name: its own, the maker's, a user's."""
        maker = self.on(pool) or Maker()
        layers = (self.options, maker.options, options)
        return {option_name(name): value for layer in layers for name, value in layer.items()}

    def requests_at_once(self, options: Mapping[str, Json]) -> int:
        """Return how many requests it works on at once."""
        given = {option_name(name): value for name, value in options.items()}
        asked = given.get(option_name(self.concurrency)) if self.concurrency else None
        return asked if isinstance(asked, int) and asked > 0 else self.at_once


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Over how many chips the tensors, the layers and the requests of a replica are spread."""

    tensor: int = 1
    pipeline: int = 1
    data: int = 1

    shared: bool = False

    @property
    def devices(self) -> int:
        """Chips that it takes."""
        return self.tensor * self.pipeline * (1 if self.shared else self.data)

    def torn_by(self, pool: Pool) -> str:
        """Return why a copy of the model can't lie on the nodes of `pool`; empty where it can."""
        copy, node = self.tensor * self.pipeline, pool.devices_per_node
        if not 0 < node < self.devices or not (copy % node and node % copy):
            return ""
        over = f"{copy!r} chips (tensor x pipeline)"
        return f"a copy of the model has {over}, a node of {pool.name!r} has {node!r}"


def is_server(engine: str) -> bool:
    """Return whether an engine's name is that of a server and no dotted name of a class."""
    return "." not in engine


def maker_of(pool: Pool) -> str:
    """Return by which name of `EngineSpec.makers` the chips of `pool` go."""
    return CPU if pool.device == CPU else pool.accelerator.vendor


def option_name(name: str) -> str:
    """Return the name of an option as it is written after `--`: past a dot it is a key of JSON."""
    first, dot, keys = name.lstrip("-").partition(".")
    return first.replace("_", "-") + dot + keys


def split_of(spec: EngineSpec, options: Mapping[str, Json], devices: int) -> Split:
    """Return how a replica is spread: over its chips by tensors, unless options say otherwise.

    `options` are all that the engine gets, as `EngineSpec.all_options` has them.

    Raises:
        ValueError: They say what can't be, or do not make use of each chip.
    """
    devices = max(devices, 1)
    asked: dict[str, int] = {}
    for dimension in ("tensor", "pipeline", "data"):
        option = option_name(getattr(spec.parallel, dimension))
        value = options.get(option) if option else None
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{option}={value!r} is no number of chips")
        asked[dimension] = value
    shared = bool(spec.parallel.shared and options.get(option_name(spec.parallel.shared)))
    rest = math.prod(
        size for dimension, size in asked.items() if not (shared and dimension == "data")
    )
    if "tensor" not in asked and devices % rest == 0 and spec.parallel.tensor:
        asked["tensor"] = devices // rest
    split = Split(**asked, shared=shared)
    if split.devices != devices:
        shape = f"{split.tensor} x {split.pipeline} x {split.data}"
        raise ValueError(
            f"engine {spec.name!r} uses {split.devices} ({shape}: tensor, pipeline, data) of the "
            f"{devices} chips that a replica has"
        )
    return split
