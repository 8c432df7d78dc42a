"""Whether the working folder of a command is there, as far as this host can see that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from orchestrator.core.errors import Problem, shown
from orchestrator.core.settings import Settings
from orchestrator.core.spec.command_stages import is_command, written
from orchestrator.core.storage_uris import local_folder


def problems(settings: Settings, cluster: str) -> Iterator[Problem]:
    """Yield each `workdir` that is no folder; `cluster` is the address of one that is not ours.

    What hosts of such a cluster have to themselves can't be seen here, and is let pass.
    """
    for stage in settings.pipeline.stages:
        for path, params, keys in written(stage) if is_command(stage) else ():
            name = params.get("workdir")
            if "workdir" in keys and isinstance(name, str) and name:
                yield from _problems(f"{path}.workdir", name, settings, cluster)


def _problems(path: str, name: str, settings: Settings, cluster: str) -> Iterator[Problem]:
    folder = Path(name)
    if not folder.is_absolute():
        code = [Path(root) for root in settings.jobs.code]
        here = [Path.cwd()] if settings.cluster.kind == "local" else []
        if not any((root / folder).is_dir() for root in (*code, *here)):
            where = ", ".join(map(repr, settings.jobs.code)) or "none"
            what = f"{shown(name)} is no folder of jobs.code ({where})"
            yield Problem(path, what, "add what holds it to jobs.code, or mend its name")
    elif not folder.is_dir():
        foreign = settings.cluster.kind == "ray" and bool(cluster)
        if not foreign:
            yield Problem(path, f"{shown(name)} is no folder of this host", "mend its path")
        elif _is_shared(folder, settings):
            what = f"{shown(name)} is no folder of the shared storage"
            yield Problem(path, what, "mend its path, or copy it there")


def _is_shared(folder: Path, settings: Settings) -> bool:
    """Whether it lies beside the artifacts, which all hosts of a cluster see as this one does."""
    stored = local_folder(settings.storage.uri) if settings.storage.uri else None
    return bool(settings.storage.shared and stored and folder.is_relative_to(stored.parent))
