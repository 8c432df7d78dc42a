"""What the command line asks of Hydra: compose, sweep, show, explain.

Hydra is imported by the function that needs it: a config that is only parsed does without.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from orchestrator.adapters.hydra_config import absolute_paths, moved
from orchestrator.adapters.hydra_config.parse import try_parse
from orchestrator.core.errors import ConfigError, Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.settings import Settings
from orchestrator.core.spec.stages import Json

NO_SECTIONS: Mapping[str, Json] = MappingProxyType({})
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def compose(
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    config_name: str = "config",
    sections: Mapping[str, Json] = NO_SECTIONS,
) -> Settings:
    """Compose the config that `overrides` choose, and parse it, with `sections` in their places.

    Raises:
        ConfigError: With all problems.
    """
    settings, problems = try_compose(
        overrides, config_dir=config_dir, config_name=config_name, sections=sections
    )
    if problems or settings is None:
        raise ConfigError(problems)
    return settings


def try_compose(
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    config_name: str = "config",
    sections: Mapping[str, Json] = NO_SECTIONS,
) -> tuple[Settings | None, list[Problem]]:
    """Return the settings, `None` where the config has not their shape, and all problems.

    `sections` stand in the place of those that were composed. Settings with problems are good
    for one thing: to find more of them.
    """
    from orchestrator.adapters.hydra_config.composer import Composer
    from orchestrator.adapters.hydra_config.plain import to_plain

    overrides, given = moved.overrides_of_today(overrides)
    config, problems = Composer(config_dir, config_name).compose(overrides)
    if config is None:
        return None, problems
    data, unset = to_plain(config)
    if not data:
        return None, [*problems, *unset]
    data.update(sections)
    absolute_paths.anchor(data)
    resolved, written = moved.with_settings(data, overrides)
    resolved, jobs = moved.with_jobs(resolved)
    settings, wrong = try_parse(resolved)
    paths = [problem.path for problem in (*problems, *unset)]
    problems = [*problems, *unset, *(p for p in wrong if not _reported(p.path, paths))]
    if settings is not None:
        renamed = tuple(dict.fromkeys((*given, *written, *jobs)))
        settings = replace(
            settings, resolved=resolved, overrides=tuple(overrides), renamed=renamed
        )
    return settings, problems


def sweep(
    overrides: Sequence[str], *, config_dir: Path | None = None, config_name: str = "config"
) -> list[tuple[str, ...]]:
    """Return one tuple of overrides for each combination of the values in `overrides`.

    Values are `a,b`, `choice(a,b)`, `range(1,4)` and, for a group, `glob(*)`.

    Raises:
        ConfigError: With all overrides that can't be read.
    """
    from orchestrator.adapters.hydra_config.composer import Composer
    from orchestrator.adapters.hydra_config.overriding import combinations

    parsed, problems = Composer(config_dir, config_name).parse(overrides)
    if problems:
        raise ConfigError(problems)
    return combinations(parsed)


def show(
    kind: Literal["job", "hydra", "all"],
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    config_name: str = "config",
    resolve: bool = False,
    package: str | None = None,
) -> str:
    """Return the composed config as YAML, or the part of it at `package`.

    Raises:
        ConfigError: It does not compose, or has no such part.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from orchestrator.adapters.hydra_config import translation
    from orchestrator.adapters.hydra_config.composer import Composer
    from orchestrator.adapters.hydra_config.plain import to_plain

    composer = Composer(config_dir, config_name)
    config, problems = composer.compose(overrides)
    if config is None or problems:
        raise ConfigError(problems)
    if resolve:
        data, problems = to_plain(config)
        if not data:
            raise ConfigError(problems)
    config = composer.hydra.get_sanitized_cfg(config, kind)
    if package not in {None, "_global_"}:
        part = OmegaConf.select(config, package)
        if part is None:
            raise ConfigError([Problem("--package", f"{shown(package)} is not in the config")])
        if not OmegaConf.is_config(part):
            return f"{part}\n"
        config = part
    try:
        return str(OmegaConf.to_yaml(config, resolve=resolve))
    except OmegaConfBaseException as error:
        raise ConfigError([translation.foreign(error)]) from error


def info(
    kind: str,
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    config_name: str = "config",
) -> str:
    """Return what Hydra tells of a composition: its defaults list, tree, sources, plugins.

    Raises:
        ConfigError: It does not compose, or there is no such information.
    """
    from orchestrator.adapters.hydra_config import overriding
    from orchestrator.adapters.hydra_config.composer import Composer

    if kind not in INFO:
        raise ConfigError(
            [Problem("--info", f"{shown(kind)} is none", choices(kind, INFO, "kinds"))]
        )
    composer = Composer(config_dir, config_name)
    _, problems = composer.compose(overrides)
    if problems:
        raise ConfigError(problems)
    parsed, _ = composer.parse(overrides)
    choosing, setting = overriding.split(composer.repository(parsed), parsed)
    lines = [str(o.input_line) for o in choosing] + [overriding.forced(o) for o in setting]
    with _captured() as out:
        composer.hydra.show_info(kind, composer.config_name, lines)
    return out.getvalue()


@contextmanager
def _captured() -> Iterator[io.StringIO]:
    """Catch what Hydra logs to standard output, and leave logging as it was."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    with redirect_stdout(io.StringIO()) as out:
        try:
            yield out
        finally:
            root.setLevel(level)
            root.handlers[:] = handlers


def _reported(path: str, paths: Sequence[str]) -> bool:
    return any(path == other or path.startswith(f"{other}.") for other in paths if other)
