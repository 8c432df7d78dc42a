"""Engines for the gate: one that tells nothing of its model, and one that reads it wrongly."""

from __future__ import annotations

from typing import Any

import torch

from jobs.engines.embedded import EmbeddedEngine

TELLS = {"norms", "experts", "types"}


class MuteEngine:
    """The embedded engine, behind no more than `Engine` and `Scorer` ask for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._engine = EmbeddedEngine(*args, **options)

    def score(self, *args: Any) -> Any:
        return self._engine.score(*args)

    def __getattr__(self, name: str) -> Any:
        if name in TELLS:
            raise AttributeError(name)
        return getattr(self._engine, name)


class WrongEngine(EmbeddedEngine):
    """Reads one scale wrongly, by itself: what lies in the folder is right."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        with torch.no_grad():
            self._model.model.layers[0].mlp.down_proj.weight.mul_(2.0)
