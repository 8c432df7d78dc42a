"""Hydra's composition, without its global state, and with every problem told and not the first.

Overrides that choose files (`pipeline=r2`) go to Hydra; those that set values are applied here,
one by one, so that each bad one gets its line. A value may be set wherever the schema knows a key:
`+` is needed only for a new stage or pool.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from orchestrator.adapters.hydra_config import moved, overriding, translation, unreadable
from orchestrator.adapters.hydra_config.merging import REMEMBERED, Loader, lean_choices
from orchestrator.adapters.hydra_config.yaml_limits import DEEPEST
from orchestrator.core.errors import ConfigError, Problem, shown

HYDRA_VERSION = "1.3"

# What Hydra raises for what a user wrote. It asserts on some malformed defaults lists, and goes
# round in those that include themselves.
FOREIGN = (*unreadable.FOREIGN, unreadable.UnreadableError)
# What setting one value raises; for items of lists OmegaConf has no error of its own.
UNFIT = (HydraException, OmegaConfBaseException, IndexError, TypeError, ValueError, RecursionError)


def packaged() -> Path:
    """Return the folder of the shipped configs.

    It lies in the package; in a checkout without symbolic links, beside it.
    """
    package = Path(__file__).resolve().parents[2]
    inside = package / "conf"
    folder = inside if (inside / "config.yaml").is_file() else package.parent / "conf"
    return folder.resolve()


class Composer:
    """Composes configs from the shipped folder and, before it, the user's own `config_dir`."""

    def __init__(self, config_dir: Path | None = None, config_name: str = "config") -> None:
        """Raise `ConfigError` when `config_dir` is no folder."""
        if config_dir is not None and not config_dir.is_dir():
            what = f"{shown(str(config_dir))} is not a folder"
            raise ConfigError([Problem("--config-dir", what, "name one that holds YAML files")])
        self.config_name = config_name
        self.folders = [*([config_dir.resolve()] if config_dir else []), packaged()]
        version.setbase(HYDRA_VERSION)
        Plugins.instance()
        path = create_config_search_path(str(packaged()))
        if config_dir is not None:
            folder = f"file://{config_dir.resolve()}"
            path.prepend("--config-dir", folder, SearchPathQuery("main", None))
        self.loader = Loader(path)
        self.hydra = Hydra("orchestrator", self.loader)

    def parse(self, overrides: Iterable[str]) -> tuple[list[Override], list[Problem]]:
        """Return the overrides that can be read, and what is wrong with the others."""
        return overriding.parse(self.loader, overrides)

    def repository(self, overrides: Iterable[Override]) -> IConfigRepository:
        """Return all config files, those of `hydra.searchpath` too."""
        lines = [o.input_line for o in overrides if o.is_hydra_override()]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            try:
                _, repository = self.loader._parse_overrides_and_create_caching_repo(  # noqa: SLF001 - the one place in Hydra that reads `hydra.searchpath`
                    self.config_name, lines
                )
            except FOREIGN:  # told when the files are composed
                return self.loader.repository
        return repository

    def compose(self, overrides: Sequence[str]) -> tuple[DictConfig | None, list[Problem]]:
        """Return the config with its node `hydra`, as far as it goes, and all problems.

        The config is `None` where the files themselves can't be composed.
        """
        parsed, problems = self.parse(moved.overrides_of_today(overrides)[0])
        problems.extend(overriding.sweeps(parsed))
        single = [override for override in parsed if not override.is_sweep_override()]
        repository = self.repository(single)
        choosing, setting = overriding.split(repository, single)
        unknown = list(overriding.unknown_options(repository, choosing))
        problems.extend(problem for _, problem in unknown)
        bad = [override for override, _ in unknown]
        config, choice_problems = self._load([o for o in choosing if o not in bad])
        problems.extend(choice_problems)
        for override in setting:
            override_problems = list(_apply(override, config))
            problems.extend(p for p in override_problems if not _follows_from(p, bad))
        return config, problems

    def _load(self, choosing: Sequence[Override]) -> tuple[DictConfig | None, list[Problem]]:
        """Compose the chosen files; when that fails, find each override that is to blame."""
        try:
            return self._compose(choosing), []
        except FOREIGN as error:
            first = self._problems(error)
            if isinstance(error, unreadable.UnreadableError):
                return None, first
        accepted: list[Override] = []
        problems: dict[Problem, None] = {}
        for override in sorted(choosing, key=lambda o: o.package is not None):
            try:
                self._compose([*accepted, override])
            except FOREIGN as error:
                problems.update(dict.fromkeys(self._problems(error)))
            else:
                accepted.append(override)
        if len(accepted) == len(choosing) or not problems:
            return None, first
        try:
            return self._compose(accepted), list(problems)
        except FOREIGN:
            return None, list(problems)

    def _compose(self, choosing: Iterable[Override]) -> DictConfig:
        with warnings.catch_warnings(), lean_choices():
            warnings.simplefilter("ignore", UserWarning)  # of versions of Hydra, as of `_self_`
            warnings.filterwarnings("error", message=".*is not available", category=UserWarning)
            try:
                config = self.hydra.compose_config(
                    self.config_name, [o.input_line for o in choosing], RunMode.RUN
                )
            except UserWarning as warning:
                raise HydraException(str(warning)) from warning
        OmegaConf.set_struct(config, value=False)
        return config

    def _problems(self, error: BaseException) -> list[Problem]:
        if isinstance(error, unreadable.UnreadableError):
            return [*error.problems]
        if isinstance(error, RecursionError):
            return [self._circle()]
        if isinstance(error, HydraException | OmegaConfBaseException):
            cause = error.__cause__
            return [
                translation.foreign(cause if isinstance(cause, OmegaConfBaseException) else error)
            ]
        what = f"a config can't be composed: {translation.one_line(error)}"
        return [Problem(self._last(), what, "mend the defaults list")]

    def _last(self) -> str:
        """Return the file that was looked at last."""
        name = f"{self.loader.newest[-1]}.yaml" if self.loader.newest else ""
        files = (folder / name for folder in self.folders if (folder / name).is_file())
        return str(next(files, self.folders[0]))

    def _circle(self) -> Problem:
        """Return which files have each other in their defaults lists, as far as that is known."""
        newest = list(self.loader.newest)
        before = newest[:-1]
        if not before or newest[-1] not in before:
            return Problem(self._last(), "it is nested too deep", "write it flatter")
        since = len(before) - 1 - before[::-1].index(newest[-1])
        while since and newest[since] == newest[since - 1]:  # each is asked for several times
            since -= 1
        ring = dict.fromkeys(newest[max(since - REMEMBERED // 2, 0) :])
        names = " -> ".join((*ring, next(iter(ring))))
        what = f"a config can't be composed: it goes in a circle: {names}"
        return Problem(self._last(), what, "mend the defaults list")


def _apply(override: Override, config: DictConfig | None) -> Iterator[Problem]:
    """Set the value that `override` says, or yield why it can't be.

    Without a config, of which the files are to blame, a key is only checked against the schema.
    """
    path = overriding.path_of(override)
    if len(path) > DEEPEST:
        yield Problem(".".join(path), f"it is nested more than {DEEPEST} deep", "write it flatter")
        return
    adding = override.is_add() or override.is_force_add()
    wrong = None
    if not adding and not override.is_delete():
        wrong = translation.unknown_key(
            path, lambda inner: config is None or _exists(config, inner)
        )
    if wrong is not None:
        yield overriding.with_hint(override, wrong, config)
    if wrong is not None or config is None:
        return
    try:
        with open_dict(config):
            ConfigLoaderImpl._apply_overrides_to_config([override], config)  # noqa: SLF001 - Hydra has no public way to apply one
            config.hydra.overrides.task.append(override.input_line)
    except UNFIT as error:
        deep = isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError)
        reason = "it is nested too deep" if deep else translation.first_line(error)
        plain = not isinstance(error, HydraException | OmegaConfBaseException)
        yield Problem(".".join(path), reason, "set the whole of what holds it" if plain else "")


def _exists(config: DictConfig, path: Sequence[str]) -> bool:
    node: object = config
    for part in path:
        if not isinstance(node, DictConfig) or part not in node:
            return False
        node = node[part]
    return True


def _follows_from(problem: Problem, bad: Iterable[Override]) -> bool:
    """Whether `problem` lies in what an unknown option would have brought."""
    return any(problem.path.split(".")[0] == o.key_or_group.split("/")[0] for o in bad)
