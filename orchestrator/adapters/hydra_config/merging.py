"""Hydra's loader, with work that grows with the defaults of a config and not with their square.

Hydra merges each entry of a defaults list into the whole config, and then walks through all of it;
and for each entry it copies all choices made so far, in case one is written as `${...}`. Here what
lies apart is merged with its like before it is merged into the whole, and choices are copied where
a defaults list asks for them. What comes out is the same.
"""

from __future__ import annotations

import copy
import pickle
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import Overrides
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import InputDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from orchestrator.adapters.hydra_config.unreadable import ConfigFiles

REMEMBERED = 100


class _Wave(ResultDefault):  # type: ignore[misc]  # Hydra has no types
    """Entries that lie apart: none is written where another is, above it or below it."""

    def __init__(self, entries: Sequence[ResultDefault]) -> None:
        super().__init__()
        self.entries = entries


class _NewestFiles(CachingConfigRepository):  # type: ignore[misc]  # as above
    """Config files, with the names of those that were asked for last."""

    def __init__(self, files: IConfigRepository) -> None:
        super().__init__(files)
        self.newest: deque[str] = deque(maxlen=REMEMBERED)

    def load_config(self, config_path: str) -> ConfigResult | None:
        self.newest.append(config_path)
        return super().load_config(config_path)


class Loader(ConfigLoaderImpl):  # type: ignore[misc]  # as above
    """Loads a config of any number of files in a time that grows with their number.

    `newest` are the names of the files that it looked at last.
    """

    def __init__(self, path: ConfigSearchPath) -> None:
        """Take the folders to look in."""
        super().__init__(path)
        self.repository = ConfigFiles(path)
        self.newest: Sequence[str] = ()

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], IConfigRepository]:
        parsed = OverridesParser.create().parse_overrides(overrides=overrides)
        repo = _NewestFiles(self.repository)
        self.newest = repo.newest
        self._process_config_searchpath(config_name, parsed, repo)
        return parsed, repo

    @staticmethod
    def _embed_result_config(ret: ConfigResult, package_override: str | None) -> ConfigResult:
        """Return a config below the keys of its package, as Hydra does, by a faster copy."""
        package = ret.header["package"] if package_override is None else package_override
        if not package:
            return ret
        embedded = copy.copy(ret)
        embedded.config = OmegaConf.create(flags={"no_deepcopy_set_nodes": True})
        own = pickle.loads(pickle.dumps(ret.config))  # noqa: S301 - of this process
        OmegaConf.update(embedded.config, package, own, merge=False)
        embedded.config._set_flag("no_deepcopy_set_nodes", None)  # noqa: SLF001 - as `flag_override`
        return embedded

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        compose = super()._compose_config_from_defaults_list
        try:
            return compose([_Wave(entries) for entries in _waves(defaults)], repo)
        except (ConfigCompositionException, OmegaConfBaseException):
            return compose(defaults, repo)  # one by one: it is told which file is to blame

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        if not isinstance(default, _Wave):
            return super()._load_single_config(default, repo)
        results = [
            super(Loader, self)._load_single_config(entry, repo) for entry in default.entries
        ]
        while len(results) > 1:  # by halves: each is walked through a few times
            for left, right in zip(results[::2], results[1::2], strict=False):
                with flag_override(left.config, "no_deepcopy_set_nodes", True):  # noqa: FBT003 - OmegaConf's
                    left.config.merge_with(right.config)
            results = results[::2]
        return results[0]


def _waves(defaults: Sequence[ResultDefault]) -> list[list[ResultDefault]]:
    """Return `defaults` in waves, each entry after all those that it may overwrite.

    Keys come out in the order in which they would one by one: who makes a key first waits only
    for entries above it, and for those every later entry beside it waits too.
    """
    at: dict[tuple[str, ...], int] = {}
    under: dict[tuple[str, ...], int] = {}
    waves: list[list[ResultDefault]] = []
    for default in defaults:
        path = tuple((default.package or "").split(".")) if default.package else ()
        above = [path[:depth] for depth in range(len(path) + 1)]
        wave = 1 + max(under.get(path, -1), *(at.get(place, -1) for place in above))
        at[path] = wave
        under.update({place: max(under.get(place, -1), wave) for place in above})
        waves.extend([] for _ in range(len(waves), wave + 1))
        waves[wave].append(default)
    return waves


@contextmanager
def lean_choices() -> Iterator[None]:
    """Have Hydra copy the choices made so far for a defaults list that refers to them alone."""
    whole = defaults_list._create_interpolation_map  # noqa: SLF001 - a function that Hydra looks up

    def where_needed(
        overrides: Overrides,
        entries: list[InputDefault],
        self_added: bool,  # noqa: FBT001 - Hydra's
    ) -> DictConfig:
        asked = any(not entry.is_self() and entry.is_interpolation() for entry in entries)
        return whole(overrides, entries, self_added) if asked else OmegaConf.create()

    defaults_list._create_interpolation_map = where_needed  # noqa: SLF001 - it has no hook
    try:
        yield
    finally:
        defaults_list._create_interpolation_map = whole  # noqa: SLF001 - as above
