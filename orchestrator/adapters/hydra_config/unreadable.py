"""Which file can't be read, where, and why: one line in place of a traceback.

Hydra says of most errors that it runs into what is wrong, and not in which file. So each file is
looked through before Hydra gets it, and whatever is raised while it reads one gets its name.
"""

from __future__ import annotations

import pickle
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError
from yaml.reader import ReaderError

from orchestrator.adapters.hydra_config import translation, yaml_limits
from orchestrator.core.errors import Problem

# What reading one file raises: Hydra asserts on some defaults lists, numbers can be too long.
FOREIGN = (
    HydraException,
    OmegaConfBaseException,
    YAMLError,
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    RecursionError,
)


# Files as this process has read them, pickled, by who asks, place and text: a sweep composes many
# times, and a config comes out of a pickle in a seventh of the time that a deep copy takes.
_READ: dict[tuple[str, str, str, str], bytes] = {}
MOST_READ = 500
_ON = re.compile(r"(?:^|[\s{,])[oO][nN]\s*:")


class UnreadableError(Exception):
    """A file can't be read; `problems` say why."""

    def __init__(self, *problems: Problem) -> None:
        """Take all that is wrong with one file."""
        self.problems = problems
        super().__init__(*problems)


class ConfigFiles(ConfigRepository):  # type: ignore[misc]  # Hydra has no types
    """The config files on Hydra's search path."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return what a file says.

        Raises:
            UnreadableError: It can't be read, or something in it is not what it seems.
        """
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() != "file":
            return super().load_config(config_path)
        file = Path(source.path) / source._normalize_file_name(config_path)  # noqa: SLF001 - as its own methods do
        try:
            text = file.read_text(encoding="utf-8")
            key = (source.provider, str(file), config_path, text)
            faults = () if key in _READ else _faults(text)
            if not faults:
                return self._read(config_path, key)
        except FOREIGN as error:
            raise UnreadableError(_problem(error, file)) from error
        raise UnreadableError(
            *(
                Problem(f"{file}:{fault.line}:{fault.column}", fault.what, fault.hint)
                for fault in faults
            )
        )

    def _read(self, config_path: str, key: tuple[str, str, str, str]) -> ConfigResult | None:
        """Return what a file says; what it said before is not parsed again."""
        if key not in _READ:
            if len(_READ) >= MOST_READ:
                _READ.clear()
            _READ[key] = pickle.dumps(_with_words(super().load_config(config_path), key[-1]))
        result: ConfigResult | None = pickle.loads(_READ[key])  # noqa: S301 - of this process
        return result


def _faults(text: str) -> list[yaml_limits.YamlFault]:
    faults: list[yaml_limits.YamlFault] = []
    with suppress(YAMLError):  # told by who reads it for good, in the words of OmegaConf's reader
        faults.extend(yaml_limits.faults(text))
    return faults


def _with_words(result: ConfigResult | None, text: str) -> ConfigResult | None:
    """Return a config with the key `on` as it is written: to YAML 1.1 that is a truth value."""
    if result is not None and _ON.search(text):
        result.config = OmegaConf.create(_worded(OmegaConf.to_container(result.config)))
    return result


def _worded(value: Any) -> Any:  # noqa: ANN401 - plain data
    if isinstance(value, list):
        return [_worded(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {"on" if key is True else key: _worded(inside) for key, inside in value.items()}


def _problem(error: BaseException, file: Path) -> Problem:
    """Return what `error`, which was raised while `file` was read, says of it."""
    reason = " ".join(str(error).split())
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        what = " ".join(str(error.problem or error.context).split())
        where = f"{file}:{mark.line + 1}:{mark.column + 1}"
        return Problem(where, f"is not YAML: {what}", "mend the file")
    if isinstance(error, ReaderError):
        what = f"is not YAML: it holds the character {error.character!r}"
        return Problem(str(file), what, "save it as UTF-8 text")
    if isinstance(error, UnicodeDecodeError):
        return Problem(str(file), f"is not YAML: {reason}", "save it as UTF-8 text")
    if isinstance(error, OSError):
        return Problem(str(file), f"can't be read: {error.strerror or reason}", "mend the file")
    if isinstance(
        error, AssertionError | AttributeError | TypeError
    ):  # Hydra takes it for granted
        reason = "bad defaults list"
    elif isinstance(error, OmegaConfBaseException):
        key = getattr(error, "full_key", None)
        reason = (
            f"{key}: {translation.first_line(error)}" if key else translation.first_line(error)
        )
    hint = "mend the defaults list" if "defaults" in reason else "mend the file"
    return Problem(str(file), f"a config can't be composed: {reason}", hint)
