"""The engines that the suite of `test_engine.py` holds: each one of `jobs`, and how it is made.

A new engine in Python is one more line of `SHIPPED`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.engines.echo import EchoEngine
from jobs.engines.embedded import EmbeddedEngine
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama

JOBS = Path(__file__).parents[2] / "jobs"
GENERATES = {"encode", "generate", "token_bytes", "statistics", "health", "update", "close"}
PREDICTS = {"predict", "health", "close"}


@dataclass(frozen=True, kw_only=True)
class ShippedEngine:
    """An engine class, its options, and what writes a model of a seed into a folder."""

    kind: type[Any]
    save: Callable[[Path, int], object] = lambda folder, _: folder.mkdir(exist_ok=True)
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def dotted(self) -> str:
        """What an endpoint's `engine` names it by."""
        return f"{self.kind.__module__}.{self.kind.__name__}"

    def make(self, folder: Path, **options: object) -> Any:
        """Return it over the model in `folder`, as a replica makes it."""
        return self.kind(folder, HARDWARE, **{**self.options, **options})


SHIPPED = (
    ShippedEngine(
        kind=EmbeddedEngine,
        save=lambda folder, seed: save_tiny_llama(folder, seed=seed),
        options={"threads": 1},
    ),
    ShippedEngine(kind=EchoEngine),
)


def engines_of_jobs() -> set[str]:
    """Return the dotted names of the classes of `jobs` that generate or predict."""
    return {
        f"{'.'.join(path.relative_to(JOBS.parent).with_suffix('').parts)}.{node.name}"
        for path in JOBS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        and any(needed <= _methods(node) for needed in (GENERATES, PREDICTS))
    }


def _methods(node: ast.ClassDef) -> set[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {inner.name for inner in node.body if isinstance(inner, kinds)}
