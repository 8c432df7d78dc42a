"""Budgets and bans that no other tool checks: sizes, names, broad excepts, heavy imports."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "jobs")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 48
MOST_LINES_OF_THE_README = 149
BROAD = {"Exception", "BaseException"}
# What turns whatever user code does, and whatever tells of a run, into a value.
AROUND_USER_CODE = ROOT / "orchestrator/worker/attempt.py"
BORDERS = {
    AROUND_USER_CODE,
    ROOT / "orchestrator/error_boundary.py",
    ROOT / "orchestrator/adapters/user_code/forecast_child.py",  # around a job's own forecast
    ROOT / "jobs/engines/border.py",  # around devices, and foreign code that runs for one request
    ROOT / "jobs/data/tokens/prefetch.py",  # around a thread: raised where it is waited for
}
EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "misc"}
# Names that say nothing of a value.
RIDDLES = {"made", "found", "told", "one", "there", "way", "it"}
# ... nor of what a function returns, or of what plays a part in a run.
RIDDLES_OF_THE_PRODUCT = {"look", "hearing", "wish", "bench", "crew", "Crew", "Reserve", "Story"}
# Names that say nothing of what a function takes or returns, or of what is part of a value.
PARTICIPLES = {"asked", "given", "gone", "held", "known", "left", "said", "taken"}
# What `at` is: a time. A place has a name of its own.
TIMES = {"float", "float | None"}
# Two classes of one name, underscores apart, and why.
CLASSES_OF_ONE_NAME = {
    "Finding": "a job of qualification writes what the core reads; neither imports the other",
    "Line": "one is of a worker's log, one of a command's output, which no other file sees",
}
# Class names of tests that say nothing of what is tried, and how many of the others stand twice.
RIDDLES_OF_TESTS = {"Desk", "Place", "World"}
MOST_TEST_CLASSES_OF_ONE_NAME = 27
# A file stands twice by its name where it is a port and what is behind it, and where it is a verb,
# what that prints and its use case. Of others, why.
ROOMS_OF_A_PORT, ROOMS_OF_A_VERB = {"ports", "adapters"}, {"cli", "display", "service"}
FILES_OF_ONE_NAME = {
    "app": "the application of the gateway, and that of a replica",
    "plan": "the verb, and the value that it prints",
    "reaper": "the process, and what it has go on",
    "reconciler": "the process, and what it has go on",
    "reopening": "the use case, and which stages go on, which it asks",
    "upkeep": "what keeps a home in order: the words that are typed, and the same from Python",
}
LEFT_BEHIND = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|/(root|work|home)/\w|\bunittest\.mock\b")
HEAVY = ("ray", "mlflow", "torch", "transformers", "hydra", "omegaconf", "sqlalchemy", "fastapi")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of its body, without signature and docstring."""
    said = ast.get_docstring(node) is not None
    first = node.body[1 if said and len(node.body) > 1 else 0]
    return (node.end_lineno or node.lineno) - first.lineno + 1


def swallows_all(handler: ast.ExceptHandler) -> bool:
    """Whether it takes every exception, and does not raise it or its translation at its end."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    broad = any(kind is None or getattr(kind, "id", "") in BROAD for kind in kinds)
    last = handler.body[-1]
    raises = isinstance(last, ast.Raise) and (last.exc is None or last.cause is not None)
    return broad and not raises


def test_there_is_something_to_check() -> None:
    assert len(SOURCES) > 20
    assert AROUND_USER_CODE in SOURCES


def test_no_file_is_longer_than_its_budget() -> None:
    long = {name_of(path): lines_of(path) for path in (*SOURCES, *TESTS)}
    assert {name: size for name, size in long.items() if size > MOST_LINES_OF_A_FILE} == {}


def test_no_function_is_longer_than_its_budget() -> None:
    sizes = {
        f"{name_of(path)}:{node.name}": length_of(node)
        for path in SOURCES
        for node in functions(path)
    }
    assert {name: size for name, size in sizes.items() if size > MOST_LINES_OF_A_FUNCTION} == {}


def test_half_of_all_functions_have_eight_lines_or_fewer() -> None:
    sizes = sorted(length_of(node) for path in SOURCES for node in functions(path))
    assert sizes[len(sizes) // 2] <= 8


def test_every_exception_is_caught_only_at_a_border() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in SOURCES
        if path not in BORDERS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and swallows_all(node)
    ]
    assert found == []


@pytest.mark.parametrize("border", sorted(BORDERS), ids=name_of)
def test_one_broad_except_is_enough_at_a_border(border: Path) -> None:
    nodes = ast.walk(tree_of(border))
    assert sum(isinstance(n, ast.ExceptHandler) and swallows_all(n) for n in nodes) <= 1


def test_no_file_has_a_name_that_says_nothing() -> None:
    named = {path.stem for path in (*SOURCES, *TESTS)} | {path.parent.name for path in SOURCES}
    assert named & EMPTY_NAMES == set()


@pytest.mark.parametrize("package", PACKAGES)
def test_a_value_has_a_name_that_says_what_it_is(package: str) -> None:
    riddles = RIDDLES | (RIDDLES_OF_THE_PRODUCT if package == "orchestrator" else set())
    found = [
        f"{name_of(path)}:{node.lineno}: {name}"
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(tree_of(path))
        for name in (getattr(node, field, None) for field in ("arg", "attr", "id", "name"))
        if isinstance(name, str) and name.strip("_") in riddles
    ]
    assert found == []


def signature_of(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield what a function, class or assignment names for others, with its type where given."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, None
    elif isinstance(node, ast.arg):
        yield node.arg, node.annotation
    elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        yield node.attr, None
    elif isinstance(node, ast.ClassDef):
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                yield line.target.id, line.annotation


@pytest.mark.parametrize("package", PACKAGES)
def test_a_signature_names_things_and_no_participles(package: str) -> None:
    found = [
        f"{name_of(path)}:{getattr(node, 'lineno', 0)}: {name}"
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(tree_of(path))
        for name, _ in signature_of(node)
        if name.strip("_") in PARTICIPLES
    ]
    assert found == []


def test_at_is_a_time_in_every_signature_of_the_product() -> None:
    found = [
        f"{name_of(path)}:{getattr(node, 'lineno', 0)}: {name}"
        for path in (ROOT / "orchestrator").rglob("*.py")
        for node in ast.walk(tree_of(path))
        if not isinstance(node, ast.Attribute)  # its type stands elsewhere
        for name, kind in signature_of(node)
        if name.strip("_") == "at" and (kind is None or ast.unparse(kind) not in TIMES)
    ]
    assert found == []


def test_no_two_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name.strip("_")].append(name_of(path))
    twice = {name: paths for name, paths in places.items() if len(paths) > 1}
    assert {name: twice[name] for name in twice.keys() - CLASSES_OF_ONE_NAME.keys()} == {}
    assert CLASSES_OF_ONE_NAME.keys() - twice.keys() == set(), "these stand once"


def test_few_classes_of_tests_share_a_name_and_none_is_a_riddle() -> None:
    places: dict[str, set[str]] = defaultdict(set)
    for path in TESTS:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                places[node.name.strip("_")].add(name_of(path))
    assert places.keys() & RIDDLES_OF_TESTS == set()
    twice = [name for name, paths in places.items() if len(paths) > 1]
    assert len(twice) <= MOST_TEST_CLASSES_OF_ONE_NAME


def are_of_one_subject(rooms: list[str]) -> bool:
    """Whether files in these rooms are a port and its adapter, or a verb and its use case."""
    return (
        len(set(rooms)) == len(rooms)
        and set(rooms) <= ROOMS_OF_A_PORT | ROOMS_OF_A_VERB
        and ("ports" in rooms or "adapters" not in rooms)
    )


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_files_share_a_name_without_need(package: str) -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        if parts[0] == package and parts[-2] != "versions" and not path.stem.startswith("__"):
            places[path.stem].append(parts[1])
    twice = {name: rooms for name, rooms in places.items() if not are_of_one_subject(rooms)}
    twice = {name: rooms for name, rooms in twice.items() if len(rooms) > 1}
    assert {name: twice[name] for name in twice.keys() - FILES_OF_ONE_NAME.keys()} == {}
    if package == "orchestrator":
        assert FILES_OF_ONE_NAME.keys() - twice.keys() == set(), "these stand once"


def test_nothing_is_left_behind_in_the_tree() -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in (*SOURCES, *TESTS)
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if LEFT_BEHIND.search(line)
    ]
    assert found == []


def test_the_readme_stays_short() -> None:
    assert lines_of(ROOT / "README.md") <= MOST_LINES_OF_THE_README


@pytest.mark.parametrize("module", ["orchestrator.cli", "orchestrator.wiring", "jobs"])
def test_what_starts_every_command_imports_nothing_heavy(module: str) -> None:
    script = f"import {module}, sys; print(*({set(HEAVY)!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == []
