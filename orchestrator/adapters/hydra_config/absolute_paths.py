"""Folders of a config are absolute, from the working folder of the command that names them.

Workers, and commands that follow, have other working folders.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.core import storage_uris
from orchestrator.core.spec.stages import Json


def anchor(data: dict[str, Json]) -> None:
    """Make the folders that `data` names absolute."""
    for (section, key), whole in _FOLDERS.items():
        holder = data.get(section)
        if isinstance(holder, dict) and key in holder:
            holder[key] = whole(holder[key])


def anchored(path: str, value: Json) -> Json:
    """Return the `value` at `path` of a config with the folder that it names absolute."""
    section, _, key = path.partition(".")
    whole = _FOLDERS.get((section, key))
    return whole(value) if whole else value


def _code(folders: Json) -> Json:
    return [_folder(folder) for folder in folders] if isinstance(folders, list) else folders


def _folder(folder: Json) -> Json:
    return str(Path(folder).absolute()) if isinstance(folder, str) and folder else folder


def _uri(uri: Json) -> Json:
    return storage_uris.absolute(uri, Path.cwd()) if isinstance(uri, str) else uri


_FOLDERS: Mapping[tuple[str, str], Callable[[Json], Json]] = {
    ("jobs", "code"): _code,
    ("storage", "uri"): _uri,
    ("storage", "cache"): _folder,
}
