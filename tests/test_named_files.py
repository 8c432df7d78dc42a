"""A file of Python that a page or the docstring of a module names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
OURS = sorted(path for name in ("orchestrator", "jobs") for path in (ROOT / name).rglob("*.py"))
FILES = [f"/{path.relative_to(ROOT)}" for path in (*OURS, *(ROOT / "tests").rglob("*.py"))]
NAMED = re.compile(r"`((?:\w+/)*\w+\.py)`")
OF_A_READER = {"mypackage/words.py"}


def named() -> Iterator[tuple[Path, str]]:
    """Yield each file that is named, after the file that names it; `NAME.py` is any."""
    for path in (*PAGES, *OURS):
        text = path.read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(text)) if path.suffix == ".py" else text
        for name in NAMED.findall(said or ""):
            if name not in OF_A_READER and not Path(name).stem.isupper():
                yield path, name


def is_there(by: Path, name: str) -> bool:
    """Whether there is such a file; a package names its own files without their folder."""
    if by.name == "__init__.py" and "/" not in name:
        return by.with_name(name).is_file()
    return any(file.endswith(f"/{name}") for file in FILES)


def test_a_file_that_is_named_is_there() -> None:
    lost = [f"{by.relative_to(ROOT)}: {name}" for by, name in named() if not is_there(by, name)]
    assert lost == []


def test_many_are_named() -> None:
    assert len({name for _, name in named()}) > 100
