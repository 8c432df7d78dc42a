"""The code that a run takes along to the nodes of its pools, and how much of it there is.

That is every folder of `jobs.code`, and each package of `jobs.packages` that is run from its
sources. What is installed is not taken along: the nodes have it installed too.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

from orchestrator.adapters.user_code.code_digest import is_installed, places_of
from orchestrator.adapters.user_code.code_files import CodeFiles
from orchestrator.adapters.user_code.lookup import find_spec
from orchestrator.core.artifact_paths import PACKAGES
from orchestrator.core.errors import Problem
from orchestrator.core.settings import JobSettings

LARGE_MB = 50
_MB = 1_000_000
_NAMED = 3


class Shipment:
    """The files that travel, by their names in an archive; read when they are asked for."""

    def __init__(self, jobs: JobSettings, files: CodeFiles) -> None:
        """Look where the packages are."""
        self._folders = {f"{index:03}": Path(folder) for index, folder in enumerate(jobs.code)}
        self._files = files
        self._beside: dict[str, Path] = {}
        specs = {name: find_spec(name, jobs.code) for name in _top_level(jobs)}
        inside = (name for name, spec in specs.items() if spec and self._takes(spec))
        self.packages = tuple(sorted(inside))

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield all files in a fixed order."""
        for prefix, place in (self._folders | self._beside).items():
            if place.is_file():
                yield prefix, place
                continue
            for name, path in self._files.below(place):
                yield f"{prefix}/{name}", path

    def missing(self) -> Iterator[str]:
        """Yield a line for each module that stays here, since git ignores it, and is imported."""
        ignored = {
            path: path.name.partition(".")[0]
            for place in (self._folders | self._beside).values()
            if place.is_dir()
            for _, path in self._files.ignored_code(place)
        }
        if not ignored:
            return
        imported = set[str]()
        for _, path in self.files():
            if path.suffix == ".py":
                imported.update(_imported(path))
        for path, module in ignored.items():
            name = path.parent.name if module == "__init__" else module
            if name in imported:
                hint = f"write '!{path.name}' into .orchestratorignore to have it travel"
                yield f"{str(path)!r} is imported and stays here, since git ignores it; {hint}"

    def key(self) -> str:
        """Return what changes when a file does; empty where nothing travels."""
        lines = [
            f"{name}\0{os.access(path, os.X_OK)}\0{self._files.of(path)[0]}\n"
            for name, path in self.files()
        ]
        self._files.keep()
        text = "".join(lines).encode("utf-8", "surrogateescape")
        return hashlib.sha256(text).hexdigest() if lines else ""

    def _takes(self, spec: ModuleSpec) -> bool:
        """Whether a package travels; one that is in no folder of `jobs.code` is added."""
        places = places_of(spec)
        if not places or is_installed(places):
            return False
        if any(place.is_relative_to(code) for place in places for code in self._folders.values()):
            return True
        for place in places:
            self._beside.setdefault(f"{PACKAGES}/{place.name}", place)
        return True


def _imported(path: Path) -> Iterator[str]:
    """Yield each part of the names that a module imports; none of what is no Python."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            yield from (part for name in names for part in name.split("."))


def _top_level(jobs: JobSettings) -> list[str]:
    names = {package.partition(".")[0] for package in jobs.packages}
    return sorted(names - sys.stdlib_module_names - {"orchestrator"})


def weigh(shipment: Shipment, most_mb: int) -> tuple[list[Problem], list[str]]:
    """Return what is in the way of a shipment, and a line for each file that is worth one.

    That is one that is large, or that is imported and does not travel.
    """
    total, large = 0, list[tuple[int, str]]()
    for _, path in shipment.files():
        if not os.access(path, os.R_OK):
            hint = "mend its permissions, or name it in .gitignore"
            return [Problem("jobs.code", f"{str(path)!r} can't be read", hint)], []
        size = path.stat().st_size
        total += size
        if size >= LARGE_MB * _MB:
            large.append((size, str(path)))
        if total > most_mb * _MB:
            return [_too_much(path, sorted(large, reverse=True), most_mb)], []
    line = "travels with the code of each run; data is better named in .gitignore"
    notes = [f"{path!r} ({size / _MB:.0f} MB) {line}" for size, path in large]
    return [], [*notes, *shipment.missing()]


def _too_much(last: Path, large: list[tuple[int, str]], most_mb: int) -> Problem:
    named = [f"{path!r} has {size / _MB:.0f} MB" for size, path in large[:_NAMED]]
    why = ", ".join(named) or f"the folder of {str(last)!r} is among them"
    what = f"more than {most_mb} MB of files would travel with each run: {why}"
    return Problem("jobs.code", what, "name data in .gitignore, or raise jobs.most_mb")
