"""Engine servers as data: how one is started, asked, watched and given new weights.

An engine in a config is either a Python class, by its dotted name, or the name of an engine
server (vLLM, SGLang, a maker's own): a process that answers the OpenAI API at a port. A new one is
one YAML file; nothing here knows any by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal, TypeAlias

from orchestrator.core.errors import Problem, shown
from orchestrator.core.hardware import Format, Pool
from orchestrator.core.nearest import choices

Json: TypeAlias = object

CPU = "cpu"  # in place of a maker, where the host's cores compute
PLACES = frozenset({"python", "host", "port", "model", "name", "devices", "files"})
_FILE_PLACES = PLACES | {"key"}
_UPDATE_PLACES = frozenset({"folder", "version"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Maker:
    """What holds for an engine server on the chips of one maker.

    Attributes:
        formats: Weight formats that it reads there; all that the chip serves where empty.
        environment: Variables set there beside those of the engine.
        options: Options that it needs there; a user's own go over them.
        command: Its command there, where it differs.
    """

    formats: tuple[Format, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Json] = field(default_factory=dict)
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parallel:
    """Names of the options by which a model is spread over chips; empty: it can't be so."""

    tensor: str = ""
    pipeline: str = ""
    data: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNames:
    """Names of the engine's own figures, as Prometheus reads them; empty: it has none.

    `running` and `waiting` count requests, `tokens` are counters that grow while it works,
    `cache_used` is a share of the key-value cache, and `cache_size` has how many tokens that
    holds: a figure, or the labels of one, multiplied.
    """

    running: str = ""
    waiting: str = ""
    tokens: tuple[str, ...] = ()
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
            listen, `{devices}` how many chips it has, `{files}` the folder of `files`.
        environment: Variables that are set for it.
        key_variable: Variable from which it reads the key that callers must show.
        files: Files written for it before it starts, to its user alone, by name; `{key}` stands
            for its key: for engines that take one from no variable.
        health: Path that answers 200 while it is well.
        ready: Path that answers 200 once it can be asked.
        probe: Path at which one token is asked for; empty where it generates none.
        metrics: Path of its own figures; empty where it has none.
        figures: Names of those that are read.
        options: Options that it always gets; a maker's and a user's own go over them.
        parallel: Options that spread a model over chips.
        concurrency: Option that says how many requests it works on at once.
        at_once: How many that are where the option is not given.
        update: How it takes new weights while it runs; it is started anew where empty, and where
            the endpoint does not ask for live `updates`.
        update_environment: Variables that are set where it does.
        makers: What differs by the maker of the chips (`vendor` of the accelerator; `cpu` for
            the host's cores). It runs on no chip of a maker that is not here.
        probe_seconds: How long it may make no progress before a token is asked for.
        deadline: Seconds within which that must come.
        grace: Seconds that it has to end.
    """

    name: str
    command: tuple[str, ...]
    makers: Mapping[str, Maker]
    environment: Mapping[str, str] = field(default_factory=dict)
    key_variable: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    health: str = "/health"
    ready: str = "/health"
    probe: str = "/v1/completions"
    metrics: str = "/metrics"
    figures: MetricNames = field(default_factory=MetricNames)
    options: Mapping[str, Json] = field(default_factory=dict)
    parallel: Parallel = field(default_factory=Parallel)
    concurrency: str = ""
    at_once: int = 256
    update: tuple[UpdateStep, ...] = ()
    update_environment: Mapping[str, str] = field(default_factory=dict)
    probe_seconds: float = 15.0
    deadline: float = 60.0
    grace: float = 10.0

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

    def given(self, pool: Pool, options: Mapping[str, Json]) -> dict[str, Json]:
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

    @property
    def devices(self) -> int:
        """Chips that it takes."""
        return self.tensor * self.pipeline * self.data


def is_server(engine: str) -> bool:
    """Return whether an engine's name is that of a server and no dotted name of a class."""
    return "." not in engine


def maker_of(pool: Pool) -> str:
    """Return by which name of `EngineSpec.makers` the chips of `pool` go."""
    return CPU if pool.device == CPU else pool.accelerator.vendor


def option_name(name: str) -> str:
    """Return the name of an option as it is written after `--`."""
    return name.lstrip("-").replace("_", "-")


def split_of(spec: EngineSpec, options: Mapping[str, Json], devices: int) -> Split:
    """Return how a replica is spread: over its chips by tensors, unless options say otherwise.

    `options` are all that the engine gets, as `EngineSpec.given` has them.

    Raises:
        ValueError: They say what can't be, or do not make use of each chip.
    """
    devices = max(devices, 1)
    asked: dict[str, int] = {}
    for way in ("tensor", "pipeline", "data"):
        option = option_name(getattr(spec.parallel, way))
        value = options.get(option) if option else None
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{option}={value!r} is no number of chips")
        asked[way] = value
    rest = math.prod(asked.values())
    if "tensor" not in asked and devices % rest == 0 and spec.parallel.tensor:
        asked["tensor"] = devices // rest
    split = Split(**asked)
    if split.devices != devices:
        said = f"{split.tensor} x {split.pipeline} x {split.data}"
        raise ValueError(
            f"engine {spec.name!r} uses {split.devices} ({said}: tensor, pipeline, data) of the "
            f"{devices} chips that a replica has"
        )
    return split


def flags(options: Mapping[str, Json]) -> list[str]:
    """Return options as they are written in an argv; those that are null or false are left out."""
    words: list[str] = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words.append(f"--{name}")
        if isinstance(value, Mapping):
            words.append(json.dumps(value))
        elif isinstance(value, list | tuple):
            words += [str(item) for item in value]
        elif value is not True:
            words.append(str(value))
    return words


def argv_of(
    spec: EngineSpec,
    pool: Pool,
    options: Mapping[str, Json],
    places: Mapping[str, str],
) -> list[str]:
    """Return the command that starts the engine on `pool`; `places` fill in its templates."""
    maker = spec.on(pool) or Maker()
    given = spec.given(pool, options)
    split = split_of(spec, given, int(places["devices"]))
    for way in ("tensor", "pipeline", "data"):
        option, size = option_name(getattr(spec.parallel, way)), getattr(split, way)
        if option and size > 1:
            given[option] = size
    words = [word.format(**places) for word in maker.command or spec.command]
    return [*words, *flags(given)]


def environment_of(spec: EngineSpec, pool: Pool, places: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set for the engine on `pool`, without its key."""
    maker = spec.on(pool) or Maker()
    merged = {**spec.environment, **maker.environment}
    return {name: text.format(**places) for name, text in merged.items()}


def filled(value: Json, places: Mapping[str, str]) -> Json:
    """Return the body of an update step with its texts filled in."""
    if isinstance(value, str):
        return value.format(**places)
    if isinstance(value, Mapping):
        return {name: filled(part, places) for name, part in value.items()}
    return [filled(part, places) for part in value] if isinstance(value, list | tuple) else value


def indivisible(config: Mapping[str, Json], split: Split) -> Iterator[str]:
    """Yield why a model can't be spread so, as far as its `config.json` tells."""
    text = config.get("text_config")
    inner = {**config, **text} if isinstance(text, Mapping) else config
    heads = inner.get("num_attention_heads")
    keys = inner.get("num_key_value_heads", heads)
    layers = inner.get("num_hidden_layers")
    tensor = split.tensor
    if isinstance(heads, int) and heads % tensor:
        yield f"its {heads} attention heads can't be spread over {tensor} chips"
    elif isinstance(keys, int) and keys % tensor and (keys > tensor or tensor % max(keys, 1)):
        yield f"its {keys} key-value heads can't be spread over {tensor} chips"
    if isinstance(layers, int) and layers < split.pipeline:
        yield f"its {layers} layers can't be spread over {split.pipeline} chips"
    quantized = config.get("quantization_config")
    block = quantized.get("weight_block_size") if isinstance(quantized, Mapping) else None
    width = inner.get("moe_intermediate_size", inner.get("intermediate_size"))
    if tensor > 1 and isinstance(block, list) and block and isinstance(width, int):
        rows = block[0]
        if isinstance(rows, int) and rows > 0 and width % (rows * tensor):
            yield (
                f"its layers of {width} can't be spread over {tensor} chips in blocks of {rows}"
            )


# --- what is wrong with one -------------------------------------------------------------------


def problems_of_spec(path: str, spec: EngineSpec) -> Iterator[Problem]:
    """Yield what is wrong with an engine server as it is written in a config."""
    if not spec.makers:
        yield Problem(f"{path}.makers", "names no maker", "say on whose chips it runs")
    yield from _command_problems(f"{path}.command", spec.command)
    for name, maker in spec.makers.items():
        if maker.command:
            yield from _command_problems(f"{path}.makers.{name}.command", maker.command)
        yield from _variable_problems(f"{path}.makers.{name}.environment", maker.environment)
    yield from _variable_problems(f"{path}.environment", spec.environment)
    yield from _file_problems(f"{path}.files", spec.files)
    for number, step in enumerate(spec.update):
        for text in _texts(step.body):
            yield from _template_problems(f"{path}.update.{number}.body", text, _UPDATE_PLACES)
    paths = {name: getattr(spec, name) for name in ("health", "ready", "probe", "metrics")}
    paths |= {f"update.{number}.path": step.path for number, step in enumerate(spec.update)}
    for name, said in paths.items():
        if said and not said.startswith("/"):
            yield Problem(f"{path}.{name}", f"{shown(said)} is no path", "begin it with '/'")


def _file_problems(path: str, files: Mapping[str, str]) -> Iterator[Problem]:
    for name, text in files.items():
        yield from _template_problems(f"{path}.{name}", text, _FILE_PLACES)
        if "/" in name or name in {"", ".", ".."}:
            yield Problem(path, f"{shown(name)} is no name of a file", "rename it")


def _command_problems(path: str, words: tuple[str, ...]) -> Iterator[Problem]:
    if not words:
        yield Problem(path, "is empty", "write the argv that starts the server")
    for word in words:
        yield from _template_problems(path, word, PLACES)
    for needed in ("{model}", "{port}"):
        if words and not any(needed in word for word in words):
            yield Problem(path, f"says {needed!r} nowhere", "the server must know it")


def _variable_problems(path: str, variables: Mapping[str, str]) -> Iterator[Problem]:
    for variable, text in variables.items():
        yield from _template_problems(f"{path}.{variable}", text, PLACES)
        if not _VARIABLE.fullmatch(variable):
            yield Problem(path, f"{shown(variable)} is no variable", "rename it")


def _template_problems(path: str, text: str, places: frozenset[str]) -> Iterator[Problem]:
    try:
        names = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    except ValueError as error:
        yield Problem(path, f"{shown(text)} is no template: {error}", "write '{{' for '{'")
        return
    for name in names:
        if name not in places:
            what = f"{shown(text)} names {shown(name)}"
            yield Problem(path, what, choices(name, sorted(places), "places"))


def _texts(value: Json) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
