"""From OmegaConf to plain data, with every missing value and every bad interpolation found."""

from __future__ import annotations

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.adapters.hydra_config import interpolations, translation
from orchestrator.adapters.hydra_config.yaml_limits import allowed
from orchestrator.core.errors import Problem
from orchestrator.core.spec.stages import Json
from orchestrator.core.text import storable, valid


def to_plain(config: DictConfig) -> tuple[dict[str, Json], list[Problem]]:
    """Return `config` resolved, less what has no value, and a problem for each of those.

    Nothing is returned where its `${...}` stand for more than what is written can mean.
    """
    reading = _Reading()
    try:
        data = OmegaConf.to_container(config, resolve=False)
        own = {key: part for key, part in data.items() if key != "hydra"}
        explosive = [*interpolations.explosive(own)]
        if explosive:
            return {}, explosive
        reading.most = allowed(interpolations.written(own))
        return reading.mapping(config, ()), reading.problems
    except RecursionError:
        return {}, [Problem("", "the config refers to itself", "look for ${...} in a circle")]
    except _TooMuchError as error:
        what = f"its ${{...}} stand for more than {reading.most:,} values"
        return {}, [Problem(str(error), what, "write out what is needed")]


class _TooMuchError(Exception):
    """What stands at a place is more than can be meant."""


class _Reading:
    """A walk through a config, that counts what it comes to by `${...}`: `most` at most."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.most = 0
        self._added = 0

    def mapping(
        self, node: DictConfig, path: tuple[str, ...], *, referred: bool = False
    ) -> dict[str, Json]:
        values: dict[str, Json] = {}
        for key in node:
            if path or key != "hydra":
                self._take(node, key, (*path, str(key)), values, referred=referred)
        return values

    def _take(
        self,
        node: DictConfig | ListConfig,
        key: str | int,
        path: tuple[str, ...],
        values: dict[str, Json],
        *,
        referred: bool,
    ) -> None:
        """Put what `node` has at `key` into `values`, or a problem to the others."""
        where = ".".join(path)
        self._added += referred
        if self._added > self.most:
            raise _TooMuchError(where)
        if OmegaConf.is_missing(node, key):
            self.problems.append(Problem(where, "is missing", f"set {where}=VALUE"))
            return
        refers = OmegaConf.is_interpolation(node, key)
        try:
            value = node[key]
        except OmegaConfBaseException as error:
            self.problems.append(Problem(where, translation.first_line(error), "mend the ${...}"))
            return
        texts = [text for text in (key, value) if isinstance(text, str)]
        if not all(map(storable, texts)):
            what = "has half of a pair of surrogates, which is no text in UTF-8"
            self.problems.append(Problem(valid(where), what, "write the whole sign"))
            return
        values[str(key)] = self._value(value, path, referred=referred or refers)

    def _value(self, value: Json, path: tuple[str, ...], *, referred: bool) -> Json:
        if isinstance(value, DictConfig):
            return self.mapping(value, path, referred=referred)
        if not isinstance(value, ListConfig):
            return value
        items: dict[str, Json] = {}
        for index in range(len(value)):
            self._take(value, index, (*path, str(index)), items, referred=referred)
        return list(items.values())
