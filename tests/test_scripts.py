"""What tests run as a text in another process imports what is there: no tool reads such texts."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("orchestrator", "jobs", "tests")


def scripts() -> Iterator[tuple[str, ast.Module]]:
    """Yield the texts in tests that are programs, by the file and line where they stand."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if not isinstance(text, str) or " import " not in text:
                continue
            try:
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.parse(text)
            except SyntaxError:  # words for people, or a template
                continue


def imports(script: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield what a program imports of ours: the module, and the name in it."""
    for node in ast.walk(script):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


@cache
def defined(module: str) -> frozenset[str] | None:
    """Return the names of a module of ours, with its submodules; `None` where it is not there."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return frozenset(below.stem for below in path.iterdir()) if path.is_dir() else None
    names = {below.stem for below in path.iterdir()} if path.is_dir() else set[str]()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
    return frozenset(names)


PROGRAMS = [
    pytest.param(script, id=where)
    for where, script in scripts()
    if any(module.split(".")[0] in OURS for module, _ in imports(script))
]


@pytest.mark.parametrize("script", PROGRAMS)
def test_what_a_text_imports_of_ours_is_there(script: ast.Module) -> None:
    for module, name in imports(script):
        if module.split(".")[0] not in OURS:
            continue
        names = defined(module)
        assert names is not None, module
        assert not name or name in names, f"{module} has no {name!r}"


def test_there_are_such_texts() -> None:
    assert len(PROGRAMS) > 20
