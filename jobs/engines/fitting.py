"""The engine that fits a model and a pool: vLLM where it computes rightly, else our own."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

from jobs.engines.embedded import EmbeddedEngine
from orchestrator.job import Hardware

logger = logging.getLogger(__name__)


class FittingEngine:
    """Satisfies `orchestrator.engine.Engine`: it is one of ours, chosen when it is made.

    vLLM is chosen where it is installed in the pool's environment, knows the model, can compute
    its format there, and answers a plain prompt as the model's own forward pass does.

    Args:
        model_folder: A Hugging Face folder: config, safetensors, tokenizer.
        hardware: What to run on.
        version: Names the weights; by default the folder's name.
        slots: Answers that are made at once; further ones wait.
        max_context: Limit on prompt and answer together; the model's own where that is less.
        dtype: torch type of the weights, as for the embedded engine.

    Raises:
        ValueError: The folder is no model that either can run.
        OSError: The tokenizer can't be read.
    """

    def __init__(
        self,
        model_folder: Path,
        hardware: Hardware,
        *,
        version: str | None = None,
        slots: int = 32,
        max_context: int = 4096,
        dtype: str = "auto",
    ) -> None:
        options: dict[str, Any] = {"version": version, "slots": slots}
        options |= {"max_context": max_context, "dtype": dtype}
        self.chosen = _vllm(model_folder, hardware, options) or EmbeddedEngine(
            model_folder, hardware, **options
        )

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the chosen engine has
        """Return what the chosen engine has."""
        return getattr(self.chosen, name)


def _vllm(folder: Path, hardware: Hardware, options: dict[str, Any]) -> object | None:
    """Return vLLM's engine, or `None` where it isn't here or does not fit."""
    if importlib.util.find_spec("vllm") is None:
        return None
    from jobs.engines.vllm import VllmEngine

    try:
        return VllmEngine(folder, hardware, **options)
    except (ValueError, RuntimeError) as error:
        logger.warning("the embedded engine serves, not vLLM: %s", " ".join(str(error).split()))
        return None
