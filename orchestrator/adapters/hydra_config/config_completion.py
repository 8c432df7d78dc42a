"""What may stand for the last word of a command line: groups, their options, keys, pool names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.errors import ConfigError

if TYPE_CHECKING:
    from hydra._internal.config_repository import IConfigRepository
    from omegaconf import DictConfig

BINDINGS = ("roles.", "fallbacks.")


def complete(words: Sequence[str], *, config_dir: Path | None = None) -> list[str]:
    """Return what may stand for the last of `words`, which are the overrides typed so far."""
    from orchestrator.adapters.hydra_config.composer import Composer

    word = words[-1] if words else ""
    before = _overrides(words[:-1])
    prefix = word[: len(word) - len(word.lstrip("+~"))]
    bare = word.removeprefix(prefix)
    try:
        composer = Composer(config_dir or _folder(words[:-1]))
        repository = composer.repository(composer.parse(before)[0])
        config, _ = composer.compose(before)
    except ConfigError:
        return []
    offers = {*_groups(repository, bare), *_values(config, bare)}
    return sorted(prefix + text for text in offers if text.startswith(bare))


def pools(words: Sequence[str]) -> list[str]:
    """Return the pools of the fleet that the overrides among `words` choose."""
    from orchestrator.adapters.hydra_config.composer import Composer

    try:
        config, _ = Composer(_folder(words)).compose(_overrides(words))
    except ConfigError:
        return []
    return sorted(config.fleet.pools) if config is not None else []


def _overrides(words: Sequence[str]) -> list[str]:
    return [word for word in words if "=" in word and not word.startswith("-")]


def _folder(words: Sequence[str]) -> Path | None:
    """Return the folder that `--config-dir` names among `words`."""
    for option, value in pairwise([*words, ""]):
        name, given, inline = option.partition("=")
        if name == "--config-dir":
            return Path(inline if given else value)
    return None


def _groups(repository: IConfigRepository, word: str) -> Iterator[str]:
    from hydra.core.object_type import ObjectType

    key, given, _ = word.partition("=")
    group = key.partition("@")[0]
    if given:
        yield from (f"{key}={name}" for name in repository.get_group_options(group))
        return
    parent = key.rpartition("/")[0]
    for name in repository.get_group_options(parent, ObjectType.GROUP):
        full = f"{parent}/{name}" if parent else name
        if full != "hydra":
            yield f"{full}="


def _values(config: DictConfig | None, word: str) -> Iterable[str]:
    if config is None:
        return ()
    key, given, value = word.partition("=")
    if key.startswith(BINDINGS) and given:
        return _pools(config, key, value)
    return _constants(config, key) if given else _keys(config, key)


def _pools(config: DictConfig, key: str, value: str) -> Iterator[str]:
    """Yield pool names; within a list, after what is written of it."""
    head = value[: value.rfind(",") + 1]
    if key.startswith("fallbacks.") and not head:
        head = "["
    for name in config.fleet.pools:
        yield f"{key}={head}{name}"


def _keys(config: DictConfig, key: str) -> Iterator[str]:
    """Yield the keys under the last dot: those of the config, and those of the schema."""
    from omegaconf import DictConfig, OmegaConf

    from orchestrator.adapters.hydra_config.document import names_at

    parent = key.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else config
    inside = node if isinstance(node, DictConfig) else {}
    known = names_at(parent.split(".") if parent else ()) or ()
    for name in dict.fromkeys((*(str(k) for k in inside if k != "hydra"), *known)):
        holds = isinstance(inside.get(name), DictConfig)
        yield f"{parent}.{name}{'.' if holds else '='}".removeprefix(".")


def _constants(config: DictConfig, key: str) -> Iterator[str]:
    """Yield the values that a key may have, where they are few, else the one it has."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from orchestrator.adapters.hydra_config.document import values_at

    few = values_at(key.split("."))
    try:
        now = OmegaConf.select(config, key)
    except OmegaConfBaseException:
        now = None
    plain = () if now is None or OmegaConf.is_config(now) else (str(now),)
    yield from (f"{key}={value}" for value in few or plain)
