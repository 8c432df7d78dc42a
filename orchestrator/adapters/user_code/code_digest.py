"""What a job can import: its digest is equal where all of that is equal.

That is the whole package of the job, wherever it is installed; all folders of `jobs.code`, where
anything in them can come into play; packages that are run from their sources; and the versions of
everything else that is imported, of Python and of the orchestrator.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path

from orchestrator.adapters.user_code.code_files import CodeFiles
from orchestrator.adapters.user_code.lookup import find_spec
from orchestrator.core.errors import JobError
from orchestrator.core.spec.stages import Json, Stage
from orchestrator.node import software

_ALWAYS = ("torch", "transformers")
_INSTALLED = frozenset({"site-packages", "dist-packages"})
_DOTTED = re.compile(r"([A-Za-z_]\w*)(?:\.[A-Za-z_]\w*)+")


class Importable:
    """Digests of what jobs can import, for as long as a command lives.

    `code` are the folders of `jobs.code`, `beside` where packages are looked for after that,
    `kept` and `apart` as `CodeFiles` has them.
    """

    def __init__(
        self,
        code: Sequence[str],
        *,
        beside: Sequence[str] = (),
        kept: Path | None = None,
        apart: Sequence[Path] = (),
    ) -> None:
        """Read nothing yet."""
        self._code = tuple(code)
        self._path = (*self._code, *beside)
        self._files = CodeFiles(kept, apart)
        self._digests: dict[tuple[str, frozenset[str]], str] = {}
        self._read: dict[Path, tuple[str, frozenset[str]]] = {}

    def digest(self, stage: Stage) -> str:
        """Return the SHA-256 over all that the job of `stage` can import.

        Raises:
            JobError: There is no such package.
        """
        job = stage.job or ""
        key = job.partition(".")[0], frozenset(_named(stage.params))
        if key not in self._digests:
            if find_spec(key[0], self._path) is None:
                message = f"{job!r}: there is no package {key[0]!r} on the import path"
                raise JobError(message)
            self._digests[key] = self._digest(*key)
            self._files.keep()
        return self._digests[key]

    def _digest(self, own: str, named: Iterable[str]) -> str:
        parts: dict[str, str] = {
            "python": platform.python_version(),
            "orchestrator": software.package("orchestrator"),
        }
        queue, seen = [own, *sorted(named), *_ALWAYS], {"orchestrator"}
        while queue:
            name = queue.pop()
            if name in seen or name in sys.stdlib_module_names:
                continue
            seen.add(name)
            spec = find_spec(name, self._path)
            if spec is None:
                continue  # what isn't there changes the digest once it is
            for label, digest, imports in self._source(name, spec, own=name == own):
                parts[label] = digest
                queue.extend(imports)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _source(
        self, name: str, spec: ModuleSpec, *, own: bool
    ) -> Iterator[tuple[str, str, Iterable[str]]]:
        """Yield what a module stands for: labels with digests, and what it imports in turn."""
        places = places_of(spec)
        if any(place.is_relative_to(folder) for place in places for folder in self._code):
            for index, folder in enumerate(self._code):
                yield f"code {index}", *self._of(Path(folder))
        elif own or not is_installed(places):
            for index, place in enumerate(places):
                yield f"{name} {index}", *self._of(place)
        elif places:
            yield f"{name} version", _version(name), ()

    def _of(self, place: Path) -> tuple[str, Iterable[str]]:
        if place not in self._read:
            if place.is_dir():
                self._read[place] = self._files.digest(place)
            else:
                digest, imports = self._files.of(place)
                self._read[place] = digest, frozenset(imports)
        return self._read[place]


def places_of(spec: ModuleSpec) -> tuple[Path, ...]:
    """Return the folders of a package, or the file of a module; none of what is built in."""
    if spec.submodule_search_locations is not None:
        return tuple(map(Path, spec.submodule_search_locations))
    return (Path(spec.origin),) if spec.origin and spec.has_location else ()


def is_installed(places: Iterable[Path]) -> bool:
    """Whether what lies there was installed, and is not run from its sources."""
    return all(_INSTALLED & set(place.parts) for place in places)


def _named(params: Json | Mapping[str, Json]) -> Iterator[str]:
    """Yield the packages of all dotted names among parameters: a job may import by name."""
    if isinstance(params, str):
        dotted = _DOTTED.fullmatch(params)
        if dotted:
            yield dotted[1]
    elif isinstance(params, Mapping):
        for value in params.values():
            yield from _named(value)
    elif isinstance(params, Sequence):
        for value in params:
            yield from _named(value)


def _version(module: str) -> str:
    """Return the version of what is installed as `module`."""
    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        names = sorted(set(_distributions().get(module, ())))
        return ", ".join(f"{name} {metadata.version(name)}" for name in names) or "unknown"


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()
