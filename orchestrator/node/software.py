"""What runs in a process: versions, and digests of sources. Controllers and workers compare them.

A worker that runs another orchestrator, Python or Ray than its controller, or another version of a
package of jobs that both have installed, does no work: its result would stand for one that it is
not. So what a worker is sent is opened only after that was compared.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

from orchestrator.core.artifact import ShippedCode
from orchestrator.core.errors import SoftwareError

PRODUCT, PYTHON, RAY, TORCH = "orchestrator", "Python", "Ray", "torch"
_OF_JOBS = "package "
_NOT_THERE = "none"
_DIGITS = 12  # of a digest, as people read it
_INSTALLED = ("site-packages", "dist-packages")

# Versions by name that a process must have, and what it is sent, which is read after that.
Sealed: TypeAlias = tuple[Mapping[str, str], bytes]


def expected(packages: Sequence[str], shipped: ShippedCode | None) -> dict[str, str]:
    """Return what processes must run that work for this one, by name.

    Of `packages` that jobs come from those count that are installed here, and not shipped.
    """
    names = {package.partition(".")[0] for package in packages}
    apart = sorted(names.difference(shipped.packages if shipped else (), {PRODUCT}))
    return {**_ours(), **{_OF_JOBS + name: package(name) for name in apart if _installed(name)}}


def running(
    torch_package: str | None = None, shipped: ShippedCode | None = None
) -> dict[str, str]:
    """Return what this process runs, by name: what people ask for when something is odd."""
    known = {name: _version(name) for name in (TORCH, torch_package) if name}
    code = {"code": shipped.digest} if shipped else {}
    return {**_ours(), **{name: version for name, version in known.items() if version}, **code}


def code_of(packages: Sequence[str]) -> dict[str, str]:
    """Return version and digest of the product, and of those `packages` that are installed."""
    known = expected(packages, None)
    installed = {n.removeprefix(_OF_JOBS): known[n] for n in known if n.startswith(_OF_JOBS)}
    return {PRODUCT: known[PRODUCT], **installed}


def sealed(content: bytes, packages: Sequence[str], shipped: ShippedCode | None) -> Sealed:
    """Return pickled `content` for a process that has to run what this one does."""
    return expected(packages, shipped), content


def opened(parcel: Sealed, node: Callable[[], str]) -> Any:  # noqa: ANN401 - whatever was sent
    """Return what was sent to this process, on the node that `node` returns the name of.

    Raises:
        SoftwareError: It runs something else than its controller does.
    """
    wanted, content = parcel
    difference = _difference(wanted)
    if difference:
        raise SoftwareError(f"node {node()!r} runs {difference}; install the same there")
    return pickle.loads(content)  # noqa: S301 - from the controller, over Ray


def unlike(first: Mapping[str, str], second: Mapping[str, str], torch_package: str | None) -> str:
    """Return how two workers of a gang differ in what computes; empty where they are alike."""
    names = (name for name in (TORCH, torch_package) if name)
    pairs = ((name, first.get(name, _NOT_THERE), second.get(name, _NOT_THERE)) for name in names)
    return ", ".join(f"{name} {a!r} and {b!r}" for name, a, b in pairs if a != b)


def _difference(wanted: Mapping[str, str]) -> str:
    here = {**_ours(), **{n: package(n.removeprefix(_OF_JOBS)) for n in wanted if _OF_JOBS in n}}
    return ", ".join(
        f"{name} {here.get(name, _NOT_THERE)!r} and its controller {version!r}"
        for name, version in wanted.items()
        if _counts(name, version) != _counts(name, here.get(name, _NOT_THERE))
    )


def _counts(name: str, version: str) -> str:
    """Return what of a version counts: of Python's not what mends it alone."""
    return version.rpartition(".")[0] if name == PYTHON else version


def _ours() -> dict[str, str]:
    return {PRODUCT: package(PRODUCT), PYTHON: platform.python_version(), RAY: _version("ray")}


@cache
def package(name: str) -> str:
    """Return version and digest of a package as it would be imported now."""
    places = _places(name)
    if not places:
        return _NOT_THERE
    version = sys.modules[name].__version__ if name == PRODUCT else _version(name)
    hashed = hashlib.sha256()
    for place in places:
        for path, file in _files(place):
            hashed.update(f"{path}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return f"{version} ({hashed.hexdigest()[:_DIGITS]})".strip()


def _places(name: str) -> Sequence[Path]:
    spec = find_spec(name)
    if spec is None:
        return ()
    if spec.submodule_search_locations is not None:
        return tuple(map(Path, spec.submodule_search_locations))
    return (Path(spec.origin),) if spec.origin and spec.has_location else ()


def _installed(name: str) -> bool:
    return any(part in _INSTALLED for place in _places(name) for part in place.parts)


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a package, or a module itself, but what Python and editors add."""
    if place.is_file():
        yield place.name, place
    for parent, folders, names in os.walk(place):
        folders[:] = sorted(n for n in folders if n != "__pycache__" and not n.startswith("."))
        for name in sorted(names):
            file = Path(parent, name)
            if not name.startswith(".") and file.suffix != ".pyc":
                yield file.relative_to(place).as_posix(), file


@cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
