"""How an engine server is started: its argv, its variables, its files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from orchestrator.core.spec.engines import EngineSpec, Json, Maker, Nodes, option_name, split_of
from orchestrator.core.spec.hardware import Pool

MEETING_PORTS = 2  # free ones on the leading node, at which the processes of a replica meet


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPart:
    """Which of the processes of a replica one is; the first leads, and is asked.

    Attributes:
        rank: Number of its node among those of the replica.
        nodes: How many there are.
        leader: Address of the first.
        ports: `MEETING_PORTS` free ports there.
    """

    rank: int = 0
    nodes: int = 1
    leader: str = ""
    ports: tuple[int, ...] = ()

    @property
    def follows(self) -> bool:
        """Whether another one is asked."""
        return self.rank > 0

    def places(self, interface: str) -> dict[str, str]:
        """Return what fills in the templates; by `interface` it reaches the first."""
        if self.nodes == 1:
            return {}
        ports = {
            f"leader_port{'' if number == 1 else f'_{number}'}": str(port)
            for number, port in enumerate(self.ports, start=1)
        }
        me = {"nodes": str(self.nodes), "rank": str(self.rank)}
        return {**me, "leader": self.leader, "interface": interface, **ports}


ALONE = ReplicaPart()


def flags(options: Mapping[str, Json], negation: str = "") -> list[str]:
    """Return options as they are written in an argv.

    Those that are null or empty are left out; those that are false too, unless `negation` says it.
    """
    words: list[str] = []
    for name, value in options.items():
        if value is False and negation:
            words.append(f"--{negation}{name}")
        if value is None or value is False or value == []:
            continue
        texts = [] if value is True else [_text(item) for item in _listed(value)]
        if len(texts) == 1 and texts[0].startswith("-"):  # else it is taken for an option
            words.append(f"--{name}={texts[0]}")
        else:
            words += [f"--{name}", *texts]
    return words


def _listed(value: Json) -> list[Json]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def options_of(
    spec: EngineSpec,
    pool: Pool,
    options: Mapping[str, Json],
    places: Mapping[str, str],
    part: ReplicaPart = ALONE,
) -> dict[str, Json]:
    """Return all options with which the engine is started on `pool`, by name.

    Raises:
        ValueError: They do not make use of each chip.
    """
    given = spec.all_options(pool, options)
    split = split_of(spec, given, int(places["devices"]))
    for dimension in ("tensor", "pipeline", "data"):
        option, size = option_name(getattr(spec.parallel, dimension)), getattr(split, dimension)
        if option and size > 1:
            given[option] = size
    if part.nodes > 1:
        nodes = spec.nodes or Nodes()
        joins = {**nodes.options, **(nodes.following if part.follows else {})}
        given |= {option_name(name): filled(value, places) for name, value in joins.items()}
    return given


def argv_of(
    spec: EngineSpec,
    pool: Pool,
    options: Mapping[str, Json],
    places: Mapping[str, str],
    part: ReplicaPart = ALONE,
) -> list[str]:
    """Return the command that starts the engine on `pool`; `places` fill in its templates."""
    maker = spec.on(pool) or Maker()
    command = maker.command or spec.command
    if part.follows and spec.nodes is not None:
        command = maker.follower or spec.nodes.follower or command
    words = [word.format(**places) for word in command]
    if spec.options_file:
        return words
    given = options_of(spec, pool, options, places, part)
    return [*words, *flags(given, spec.negation)]


def joining_of(spec: EngineSpec, places: Mapping[str, str], part: ReplicaPart) -> dict[str, str]:
    """Return the variables by which processes on several nodes meet, but for unknown ones.

    Those that a node sets itself go over them.
    """
    if part.nodes == 1 or spec.nodes is None:
        return {}
    variables = {name: text.format(**places) for name, text in spec.nodes.environment.items()}
    return {name: text for name, text in variables.items() if text}


def environment_of(spec: EngineSpec, pool: Pool, places: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are set for the engine on `pool`, without its key."""
    maker = spec.on(pool) or Maker()
    merged = {**spec.environment, **maker.environment}
    return {name: text.format(**places) for name, text in merged.items()}


def files_of(
    spec: EngineSpec,
    pool: Pool,
    options: Mapping[str, Json],
    places: Mapping[str, str],
    part: ReplicaPart = ALONE,
) -> dict[str, str]:
    """Return the files that are written for the engine, by name; `places` have its `key` too.

    Raises:
        ValueError: An option goes where the file has no place for it.
    """
    files = {name: text.format(**places) for name, text in spec.files.items()}
    if spec.options_file:
        quoted = {name: json.dumps(text)[1:-1] for name, text in places.items()}
        tree = json.loads(spec.files[spec.options_file].format(**quoted))
        given = options_of(spec, pool, options, places, part)
        files[spec.options_file] = json.dumps(_with(tree, given), indent=2)
    return files


def _with(tree: Json, options: Mapping[str, Json]) -> Json:
    changed = deepcopy(tree)
    for name, value in options.items():
        *parents, last = name.split(".")
        place: Any = changed
        try:
            for key in parents:
                place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
            place[int(last) if isinstance(place, list) else last] = value
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"option {name!r} has no place in the engine's file") from error
    return changed


def chips_of(devices: int, nodes: int = 1) -> dict[str, str]:
    """Return the places that tell of an engine's chips: all of them, and those of a node."""
    return {"devices": str(devices), "chips": ", ".join(map(str, range(devices // nodes)))}


def filled(value: Json, places: Mapping[str, str]) -> Json:
    """Return the body of an update step with its texts filled in."""
    if isinstance(value, str):
        return value.format(**places)
    if isinstance(value, Mapping):
        return {name: filled(part, places) for name, part in value.items()}
    return [filled(part, places) for part in value] if isinstance(value, list | tuple) else value
