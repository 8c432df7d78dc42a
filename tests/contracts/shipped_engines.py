"""The engines that `test_engine.py` and `test_predictor.py` hold, and how each is made.

A new engine in Python is one more line of `GENERATORS`, or of `PREDICTORS`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jobs.engines.echo import EchoEngine
from jobs.engines.embedded import EmbeddedEngine
from tests.contracts.edges import Edges
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama

JOBS = Path(__file__).parents[2] / "jobs"
GENERATES = frozenset({"encode", "generate", "token_bytes", "statistics", "update", "close"})
PREDICTS = frozenset({"predict", "health", "close"})


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


@dataclass(frozen=True, kw_only=True)
class ShippedPredictor(ShippedEngine):
    """One that predicts: a body that it takes, and those that it refuses."""

    good: object
    bad: Sequence[object]


def save_kernel(folder: Path, seed: int) -> None:
    """Write a convolution that finds edges."""
    kernel = torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])
    torch.save(kernel + seed, folder / "kernel.pt")


GENERATORS = (
    ShippedEngine(
        kind=EmbeddedEngine,
        save=lambda folder, seed: save_tiny_llama(folder, seed=seed),
        options={"threads": 1},
    ),
    ShippedEngine(kind=EchoEngine),
)
PREDICTORS = (
    ShippedPredictor(
        kind=Edges,
        save=save_kernel,
        good={"pixels": [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]},
        bad=({}, [], None, "pixels"),
    ),
)


def engines_of_jobs(needed: frozenset[str]) -> set[str]:
    """Return the dotted names of the classes of `jobs` that have the methods `needed`."""
    return {
        f"{'.'.join(path.relative_to(JOBS.parent).with_suffix('').parts)}.{node.name}"
        for path in JOBS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and needed <= _methods(node)
    }


def _methods(node: ast.ClassDef) -> set[str]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {inner.name for inner in node.body if isinstance(inner, kinds)}
