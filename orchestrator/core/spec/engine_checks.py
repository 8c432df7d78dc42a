"""What is wrong with an engine server, its options, or a model that it is to spread over chips."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from string import Formatter

from orchestrator.core.errors import Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec.engines import EngineSpec, Json, Nodes, Split, option_name

PLACES = frozenset({"python", "host", "port", "model", "name", "devices", "chips", "files"})
NODE_PLACES = PLACES | {"nodes", "rank", "leader", "leader_port", "leader_port_2", "interface"}
_FILE_PLACES = PLACES | {"key"}
_UPDATE_PLACES = frozenset({"folder", "version"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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


def refused_options(spec: EngineSpec, options: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    """Yield the options that no user may set, and why; those of its command are ours."""
    commands = (spec.command, *(maker.command for maker in spec.makers.values()))
    nodes = spec.nodes or Nodes()
    ours = {option_name(name) for name in (*nodes.options, *nodes.following)} | {
        option_name(word.partition("=")[0])
        for command in commands
        for word in command
        if word.startswith("--")
    }
    refuses = {option_name(name): why for name, why in spec.refuses.items()}
    for name in options:
        option = option_name(name)
        if option in refuses:
            yield name, refuses[option]
        elif option in ours:
            yield name, "the replica sets it"


# --- what is wrong with one -------------------------------------------------------------------


def problems_of_spec(path: str, spec: EngineSpec) -> Iterator[Problem]:
    """Yield what is wrong with an engine server as it is written in a config."""
    if not spec.makers:
        yield Problem(f"{path}.makers", "names no maker", "say on whose chips it runs")
    written = " ".join(spec.files.values())
    yield from _command_problems(f"{path}.command", spec.command, written)
    for name, maker in spec.makers.items():
        if maker.command:
            yield from _command_problems(f"{path}.makers.{name}.command", maker.command, written)
        yield from _variable_problems(f"{path}.makers.{name}.environment", maker.environment)
    yield from _variable_problems(f"{path}.environment", spec.environment)
    yield from _node_problems(path, spec)
    yield from _file_problems(f"{path}.files", spec.files)
    yield from _options_file_problems(path, spec)
    for number, step in enumerate(spec.update):
        for text in _texts(step.body):
            yield from _template_problems(f"{path}.update.{number}.body", text, _UPDATE_PLACES)
    asked = ("health", "ready", "probe", "embeds", "metrics")
    paths = {name: getattr(spec, name) for name in asked}
    paths |= {f"update.{number}.path": step.path for number, step in enumerate(spec.update)}
    for name, value in paths.items():
        if value and not value.startswith("/"):
            yield Problem(f"{path}.{name}", f"{shown(value)} is no path", "begin it with '/'")


def _file_problems(path: str, files: Mapping[str, str]) -> Iterator[Problem]:
    for name, text in files.items():
        yield from _template_problems(f"{path}.{name}", text, _FILE_PLACES)
        if "/" in name or name in {"", ".", ".."}:
            yield Problem(path, f"{shown(name)} is no name of a file", "rename it")


def _options_file_problems(path: str, spec: EngineSpec) -> Iterator[Problem]:
    name = spec.options_file
    if name and name not in spec.files:
        what = f"{shown(name)} is none of the files"
        yield Problem(f"{path}.options_file", what, choices(name, sorted(spec.files), "files"))
    elif name:
        try:
            text = spec.files[name]
            filled_in = text.format(**dict.fromkeys(_FILE_PLACES, "0"))
        except (ValueError, LookupError):
            return  # told of the template
        try:
            json.loads(filled_in)
        except ValueError as error:
            yield Problem(f"{path}.files.{name}", f"is no JSON: {error}", "mend it")


def _command_problems(path: str, words: tuple[str, ...], written: str) -> Iterator[Problem]:
    if not words:
        yield Problem(path, "is empty", "write the argv that starts the server")
    for word in words:
        yield from _template_problems(path, word, PLACES)
    for needed in ("{model}", "{port}"):
        if words and not any(needed in text for text in (*words, written)):
            yield Problem(path, f"says {needed!r} nowhere", "the server must know it")


def _node_problems(path: str, spec: EngineSpec) -> Iterator[Problem]:
    """Yield what is wrong with how an engine server runs over several nodes."""
    followers = {f"{path}.makers.{name}": maker.follower for name, maker in spec.makers.items()}
    nodes = spec.nodes
    if nodes is None:
        for place, words in followers.items():
            if words:
                hint = f"say under {path}.nodes how it runs over several"
                yield Problem(f"{place}.follower", "follows nobody", hint)
        return
    path = f"{path}.nodes"
    for place, words in {path: nodes.follower, **followers}.items():
        for word in words:
            yield from _template_problems(f"{place}.follower", word, NODE_PLACES)
    texts = [*_texts(nodes.options), *_texts(nodes.following)]
    for text in texts:
        yield from _template_problems(f"{path}.options", text, NODE_PLACES)
    yield from _variable_problems(f"{path}.environment", nodes.environment, NODE_PLACES)
    if not any("{leader}" in text for text in (*texts, *nodes.environment.values())):
        yield Problem(path, "says '{leader}' nowhere", "its processes must find each other")


def _variable_problems(
    path: str, variables: Mapping[str, str], places: frozenset[str] = PLACES
) -> Iterator[Problem]:
    for variable, text in variables.items():
        yield from _template_problems(f"{path}.{variable}", text, places)
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
