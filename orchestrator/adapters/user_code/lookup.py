"""From a dotted name to its definition in a syntax tree, with no import of it or its parents."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import TypeAlias

from orchestrator.core.errors import shown
from orchestrator.core.nearest import choices
from orchestrator.core.settings import JobSettings

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

MAX_REEXPORTS = 8


class LookupProblem(Exception):  # noqa: N818 - it carries a problem, and is no error of its own
    """What is wrong with a name, and the way out."""

    def __init__(self, what: str, hint: str = "") -> None:
        """Take the two halves of a `Problem`."""
        self.what, self.hint = what, hint
        super().__init__(what)


def look_up(dotted: str, jobs: JobSettings) -> Definition | None:
    """Return the definition that `dotted` names, `None` where it is made in another way."""
    module, _, name = dotted.rpartition(".")
    if not module or not all(part.isidentifier() for part in dotted.split(".")):
        raise LookupProblem(f"{shown(dotted)} is no dotted name", "write PACKAGE.MODULE.FUNCTION")
    for _ in range(MAX_REEXPORTS):
        _check_allowed(f"{module}.{name}", jobs)
        spec = _module(module, jobs)
        tree = _parse(module, spec)
        definition = _definition(tree, name)
        if not isinstance(definition, ast.ImportFrom):
            return definition
        module, name = _import_target(definition, name, module, package=_is_package(spec))
    raise LookupProblem(f"{shown(dotted)} is imported in a circle")


def _check_allowed(dotted: str, jobs: JobSettings) -> None:
    if not any(dotted.startswith(f"{package}.") for package in jobs.packages):
        packages = ", ".join(jobs.packages) or "none"
        what = f"{shown(dotted)} is in no package that jobs may come from ({packages})"
        raise LookupProblem(what, "add its package to jobs.packages")


def _module(dotted: str, jobs: JobSettings) -> ModuleSpec:
    """Find a module without importing it, nor the packages that it is in."""
    locations: Sequence[str] | None = None
    spec, so_far = None, ""
    for part in dotted.split("."):
        if so_far and locations is None:
            raise LookupProblem(f"{shown(so_far)} is a module and holds no {shown(part)}")
        name = f"{so_far}.{part}" if so_far else part
        spec = find_spec(name, jobs.code, locations)
        if spec is None:
            known = _children(locations) if locations else ()
            hint = choices(part, known, "modules") if known else "set jobs.code to its folder"
            raise LookupProblem(f"there is no module {shown(name)} on the import path", hint)
        so_far = name
        locations = spec.submodule_search_locations
    assert spec is not None, "a dotted name has a part"  # noqa: S101
    return spec


def find_spec(
    name: str, code: Sequence[str], locations: Sequence[str] | None = None
) -> ModuleSpec | None:
    """Return the spec of a module: in `code` or on the import path, or in its package.

    Within `locations` the path is searched by the last part of the name: by all of it Python asks
    for the packages around a folder without `__init__.py`, which are not imported here.
    """
    if locations is None and code:
        spec = PathFinder.find_spec(name, list(code))
        if spec is not None:
            return spec
    for finder in sys.meta_path:
        whole = locations is None or finder is not PathFinder
        spec = finder.find_spec(name if whole else name.rpartition(".")[2], locations)
        if spec is not None:
            return spec
    return None


def _children(locations: Sequence[str]) -> tuple[str, ...]:
    entries = (entry for folder in locations for entry in Path(folder).glob("*"))
    names = {e.stem for e in entries if e.suffix == ".py" or (e.is_dir() and "." not in e.name)}
    return tuple(name for name in names if not name.startswith("__"))


def _is_package(spec: ModuleSpec) -> bool:
    return spec.submodule_search_locations is not None


def _parse(module: str, spec: ModuleSpec) -> ast.Module:
    if not spec.origin or not spec.origin.endswith(".py"):
        hint = "name a function in a Python file"
        raise LookupProblem(f"{shown(module)} has no Python source", hint)
    try:
        return ast.parse(Path(spec.origin).read_bytes(), filename=spec.origin)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 0
        reason = getattr(error, "msg", None) or str(error)
        raise LookupProblem(f"{spec.origin}:{line} is not Python: {reason}") from error


def _definition(tree: ast.Module, name: str) -> Definition | ast.ImportFrom | None:
    known: list[str] = []
    for node in _statements(tree.body):
        if isinstance(node, Definition):
            known.append(node.name)
            if node.name == name:
                return node
        elif isinstance(node, ast.ImportFrom):
            if any((alias.asname or alias.name) == name for alias in node.names):
                return node
        elif isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node):
            return None
    hint = choices(name, [n for n in known if not n.startswith("_")], "it defines")
    raise LookupProblem(f"the module does not define {shown(name)}", hint)


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, ast.If | ast.Try):
            yield from _statements([*node.body, *node.orelse])


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _import_target(
    node: ast.ImportFrom, name: str, module: str, *, package: bool
) -> tuple[str, str]:
    """Return the module and the name that an import statement brings `name` from."""
    original = next(a.name for a in node.names if (a.asname or a.name) == name)
    if not node.level:
        return str(node.module), original
    parts = module.split(".") if package else module.split(".")[:-1]
    base = parts[: len(parts) - (node.level - 1)]
    return ".".join([*base, *([node.module] if node.module else [])]), original
