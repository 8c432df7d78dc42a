"""How much `${...}` stand for, found without filling them in: OmegaConf does so again and again.

A text that refers twice to one that refers twice, forty levels deep, would take a year.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from orchestrator.adapters.hydra_config.yaml_limits import CHARACTERS, allowed
from orchestrator.core.errors import Problem
from orchestrator.core.spec.stages import Json

_REFERENCE = re.compile(r"\$\{\s*(?:oc\.select:)?\s*(\.*)([^\s${}:,'\"]+)\s*\}")
_ROUNDS = 5  # of names that are put together from others, as in ${a.${b}}
_BEYOND = 10**9

Path = tuple[str, ...]


def written(data: Json) -> int:
    """Return how many values stand in `data`."""
    return 1 + sum(written(part) for _, part in _parts(data))


def explosive(data: Json) -> Iterator[Problem]:
    """Yield the first text of `data`, as written, that stands for more than it should."""
    weigher = _Weigher(data)
    most = allowed(written(data))
    for path, text in _texts(data, ()):
        if weigher.weight(path, text) > most:
            what = f"its ${{...}} stand for more than {most:,} values"
            yield Problem(".".join(path), what, "write out what is needed")
            return


class _Weigher:
    """Weighs each text once, with all that it refers to."""

    def __init__(self, data: Json) -> None:
        self._data = data
        self._sizes: dict[Path, int] = {}

    def weight(self, path: Path, text: str) -> int:
        """Return how often something is looked up, and how long it gets, to fill `text` in."""
        if path not in self._sizes:
            self._sizes[path] = 0  # one in a circle is told of by OmegaConf
            self._sizes[path] = min(self._sum(path, self._with_names(path, text)), _BEYOND)
        return self._sizes[path]

    def _sum(self, path: Path, text: str) -> int:
        literal = len(_REFERENCE.sub("", text)) // CHARACTERS
        targets = (self._target(path, match) for match in _REFERENCE.finditer(text))
        return 1 + literal + sum(self._of(target) for target in targets)

    def _of(self, path: Path) -> int:
        value = self._value_of(path)
        if isinstance(value, str):
            return self.weight(path, value)
        if path not in self._sizes:
            parts = [self._of((*path, name)) for name, _ in _parts(value)]
            self._sizes[path] = min(1 + sum(parts), _BEYOND)
        return self._sizes[path]

    def _with_names(self, path: Path, text: str) -> str:
        """Return `text` with plain names in place of references to them."""

        def name(match: re.Match[str]) -> str:
            value = self._value_of(self._target(path, match))
            plain = isinstance(value, str | int) and "${" not in str(value)
            return str(value) if plain else match[0]

        for _ in range(_ROUNDS if "${" in text.replace("${", "", 1) else 0):
            text = _REFERENCE.sub(name, text)
        return text

    def _target(self, path: Path, match: re.Match[str]) -> Path:
        levels, dotted = len(match[1]), match[2].replace("[", ".").replace("]", "")
        base = path[:-levels] if levels else ()
        return (*base, *(part for part in dotted.split(".") if part))

    def _value_of(self, path: Path) -> Json:
        node = self._data
        for part in path:
            if isinstance(node, list):
                node = node[int(part)] if part.isdecimal() and int(part) < len(node) else None
            else:
                node = node.get(part) if isinstance(node, dict) else None
        return node


def _texts(data: Json, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(data, str) and "${" in data:
        yield path, data
    for name, part in _parts(data):
        yield from _texts(part, (*path, name))


def _parts(data: Json) -> Iterator[tuple[str, Json]]:
    if isinstance(data, dict):
        yield from ((str(name), part) for name, part in data.items())
    elif isinstance(data, list):
        yield from ((str(number), part) for number, part in enumerate(data))
