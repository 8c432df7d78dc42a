"""Imports a job by its dotted name, from the packages that the config allows and no other.

Code that was shipped goes first on the import path, also on that of processes which the job
starts. A process that runs a second attempt, of a run with other code, forgets the first one's.
"""

from __future__ import annotations

import importlib
import inspect
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from orchestrator.core.artifact import ArtifactRef, ShippedCode
from orchestrator.core.artifact_paths import PACKAGES
from orchestrator.core.errors import JobError
from orchestrator.core.spec.stages import Json
from orchestrator.messages import AttemptRequest
from orchestrator.ports import ArtifactStore

_PYTHONPATH = "PYTHONPATH"
_shipped: tuple[str, ...] = ()  # folders of it that are on the import path


def import_path(
    code: Sequence[str], shipped: ShippedCode | None, unpack: Callable[[ArtifactRef], Path]
) -> tuple[str, ...]:
    """Return the folders to put on the import path: of what is `shipped`, else those of `code`.

    `unpack` returns the folder with the files of an archive.
    """
    if shipped is None:
        return tuple(code)
    inside = sorted(unpack(shipped.archive).iterdir())
    return tuple(str(path) for path in inside if path.is_dir())


def code_folders(request: AttemptRequest, store: ArtifactStore) -> tuple[Path, ...]:
    """Return the folders of `jobs.code` on this host; packages that travel beside are none."""
    folders = map(Path, import_path(request.code, request.shipped, store.unpack))
    return tuple(folder for folder in folders if folder.name != PACKAGES)


def use_shipped(folders: Sequence[str]) -> None:
    """Put folders of shipped code at the head of the import path, in the place of other ones."""
    global _shipped  # noqa: PLW0603 - a process has one import path
    stale = [folder for folder in _shipped if folder not in folders]
    _forget(stale)
    extend_path(folders)
    variables = os.environ  # noqa: TID251 - what the job starts finds its code by them
    theirs = variables.get(_PYTHONPATH, "").split(os.pathsep)
    others = [path for path in theirs if path and path not in {*_shipped, *folders}]
    variables[_PYTHONPATH] = os.pathsep.join((*folders, *others))
    _shipped = tuple(folders)


def import_request(request: AttemptRequest, store: ArtifactStore) -> Callable[..., object]:
    """Return the job of `request`, from its code.

    Raises:
        JobError: It is outside of the allowed packages, is not there, or can't be called.
        ArtifactError: What was shipped can't be had.
    """
    folders = import_path(request.code, request.shipped, store.unpack)
    shipped = request.shipped is not None
    (use_shipped if shipped else extend_path)(folders)
    return load_job(request.job, request.packages, folders, shipped=shipped)


def relative(text: str) -> str:
    """Return `text` with files of shipped code as they are called in the folders it is from."""
    for folder in _shipped:
        text = text.replace(f"{folder}{os.sep}", "")
    return text


def _forget(folders: Sequence[str]) -> None:
    """Take folders from the import path, and forget the modules that were imported from them."""
    sys.path[:] = [path for path in sys.path if path not in folders]
    heads = tuple(f"{folder}{os.sep}" for folder in folders)
    for name, module in list(sys.modules.items()):
        facts = vars(module)
        file = facts.get("__file__") or next(iter(facts.get("__path__", ())), "")
        if heads and str(file).startswith(heads):
            del sys.modules[name]


def extend_path(folders: Sequence[str]) -> None:
    """Put `folders` at the head of the import path, once, the first of them first.

    What Python knows of their files is forgotten, for they may be new. `invalidate_caches` does
    that for all of the path, but fails where another thread imports meanwhile.
    """
    for folder in reversed(folders):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    heads = tuple(f"{folder}{os.sep}" for folder in folders)
    for known in sys.path_importer_cache.copy():
        if f"{known}{os.sep}".startswith(heads):
            sys.path_importer_cache.pop(known, None)


def load_job(
    name: str, packages: Sequence[str], looked: Sequence[str] = (), *, shipped: bool = False
) -> Callable[..., object]:
    """Return the job called `name`; `looked` are the folders of its code, which may be `shipped`.

    Raises:
        JobError: It is outside of `packages`, is not there, or can't be called. What the
            module itself raises while it is imported is not translated.
    """
    if not any(name.startswith(f"{package}.") for package in packages):
        allowed = ", ".join(packages) or "none"
        message = (
            f"job {name!r} is in no allowed package ({allowed}); add its own to jobs.packages"
        )
        raise JobError(message)
    if not all(part.isidentifier() for part in name.split(".")):
        message = f"job {name!r} is no dotted name of a function; write it as package.module.name"
        raise JobError(message)
    module_name, _, function = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports something that is not
        raise JobError(_not_there(name, error.name, looked, shipped=shipped)) from error
    job = getattr(module, function, None)
    if not callable(job):
        kind = "there is none" if job is None else f"it is a {type(job).__name__}"
        message = f"job {name!r} is no function of {module_name!r}: {kind}; check its name"
        raise JobError(message)
    return job  # type: ignore[no-any-return] # callable() says no more


def _not_there(job: str, module: str, looked: Sequence[str], *, shipped: bool) -> str:
    where = f"no module {module!r} on host {platform.node()!r}"
    code = "the code that was shipped" if shipped else "jobs.code (nothing was shipped)"
    folders = ", ".join(map(repr, looked)) or "no folder"
    searched = f"looked in {folders} of {code}, then on the path of {sys.executable!r}"
    return f"job {job!r}: {where}; {searched}; add its folder to jobs.code, or install it there"


def check_params(name: str, job: Callable[..., object], params: Mapping[str, Json]) -> None:
    """Refuse parameters that the job does not take.

    Raises:
        JobError: Names the parameter.
    """
    try:
        inspect.signature(job).bind(None, **params)
    except TypeError as error:
        message = f"job {name!r} can't be called: {error}; check params of its stage"
        raise JobError(message) from error
