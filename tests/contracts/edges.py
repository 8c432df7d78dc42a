"""A model that is no language model: it finds edges by one convolution."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.functional import conv2d

from orchestrator.job import Hardware


class Edges:
    """Satisfies `orchestrator.engine.Predictor`."""

    def __init__(self, model_folder: Path, hardware: Hardware) -> None:
        self._pool = hardware.pool
        self._kernel = torch.load(model_folder / "kernel.pt")

    async def predict(self, body: object) -> object:
        """Return the edges of the `pixels` of `body`, by rows."""
        if not isinstance(body, dict) or "pixels" not in body:
            raise ValueError("pixels is missing")
        image = torch.tensor([[body["pixels"]]])
        return {"edges": conv2d(image, self._kernel, padding=1)[0, 0].tolist(), "pool": self._pool}

    def health(self) -> str:
        """Return nothing: it always serves."""
        return ""

    def close(self) -> None:
        """Do nothing: it holds nothing."""
