"""Imports a job by its dotted name, from the packages that the config allows and no other."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from orchestrator.core.errors import JobError
from orchestrator.core.spec.stages import Json


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


def load_job(name: str, packages: Sequence[str]) -> Callable[..., object]:
    """Return the job called `name`.

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
        message = f"job {name!r}: no module {error.name!r}; add its folder to jobs.code"
        raise JobError(message) from error
    job = getattr(module, function, None)
    if not callable(job):
        kind = "there is none" if job is None else f"it is a {type(job).__name__}"
        message = f"job {name!r} is no function of {module_name!r}: {kind}; check its name"
        raise JobError(message)
    return job  # type: ignore[no-any-return] # callable() says no more


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
