"""An engine in this process: continuous batching over any causal language model of transformers.

Weights are safetensors only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from jobs.engines import fast_forward, probe
from jobs.engines.batch import Answer, Batch, Weights
from jobs.engines.cache import SlotCache, fitting_context
from jobs.engines.forward import Forward, ModelForward
from jobs.engines.scoring import check_text, follow
from jobs.engines.stepping import Stepper
from jobs.engines.tokenizer import Tokenizer
from jobs.engines.undone import check_done
from jobs.engines.weights import check_alike, check_tokenizer, load, shape
from orchestrator.engine import Piece, Prompt, Sampling, Score
from orchestrator.job import Hardware

_SMALL = 20_000_000
DONE = ("max_tokens", "temperature", "top_p", "stop", "seed", "logprobs")


class EmbeddedEngine:
    """Satisfies `orchestrator.engine.Engine`.

    Args:
        model_folder: A Hugging Face folder: config, safetensors, tokenizer.
        hardware: What to run on.
        version: Names the weights; by default the folder's name.
        slots: Answers that are made at once; further ones wait.
        max_context: Limit on prompt and answer together; the model's own where that is less.
        dtype: torch type of the weights; `auto` takes the type in which they were saved, or
            float32 on a CPU that has no arithmetic for that.
        threads: torch threads on a CPU; by default 1 for a small model, else one a core.
        fast_forward: Whether to use our own forward pass where there is one for the architecture.

    Raises:
        ValueError: The folder is no model that this engine can run, or answers wrongly.
        OSError: The tokenizer can't be read.
    """

    def __init__(  # noqa: PLR0913 - the options of an endpoint's config
        self,
        model_folder: Path,
        hardware: Hardware,
        *,
        version: str | None = None,
        slots: int = 32,
        max_context: int = 4096,
        dtype: str = "auto",
        threads: int | None = None,
        fast_forward: bool = True,
    ) -> None:
        self._folder, self._device, self._fast = model_folder, hardware.device, fast_forward
        model = load(model_folder, dtype, self._device)
        self._tokenizer = Tokenizer(model_folder)
        own = getattr(model.config, "max_position_embeddings", max_context)
        self._layers, self.max_context = fitting_context(model.config, min(own, max_context))
        self.vocabulary = int(model.config.vocab_size)
        self._model = model
        weights = self._proven(model, model_folder.name if version is None else version)
        self._batch = Batch(weights, self._cache())
        self._slots = slots
        self._updating = threading.Lock()
        torch_threads = threads or _threads_for(model)
        self._stepper = Stepper(self._batch, slots, lambda: torch.set_num_threads(torch_threads))

    @property
    def active(self) -> int:
        """Number of slots that are taken."""
        return len(self._batch.answers)

    @property
    def version(self) -> str:
        """Name of the weights that serve now."""
        return self._batch.weights.version

    @property
    def defaults(self) -> Mapping[str, float]:
        """Nothing: requests that say nothing else get the protocol's own."""
        return {}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Return the token ids of a prompt, with the special tokens that the model expects."""
        return self._tokenizer.encode(text, special=special)

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, object]],
        variables: Mapping[str, object] | None = None,
    ) -> list[int]:
        """Return the token ids of a chat, up to where the answer begins."""
        return self._tokenizer.encode_chat(messages, variables)

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of `tokens`, special ones included."""
        return self._tokenizer.decode(tokens, special=True)

    def token_bytes(self, token: int) -> bytes:
        """Return what a token stands for; it may be a part of a character."""
        return self._tokenizer.bytes[token]

    def generate(
        self, prompt: Sequence[int], sampling: Sampling
    ) -> AsyncGenerator[Prompt | Piece, None]:
        """Yield the answer, token by token. Closing it frees its slot at the next step."""
        check_done(sampling, DONE)
        return self._stepper.generate(Answer(prompt, sampling, self._tokenizer.decode))

    def score(self, tokens: Sequence[int], begin: int, top: int) -> Sequence[Score]:
        """Return a score for each token from place `begin` on, as `Scorer` says."""
        check_text(tokens, begin, self.max_context)
        found: list[Score] = []

        def act() -> None:
            found.extend(follow(self._batch.weights.run, self._cache(), tokens, begin, top))

        self._stepper.between_steps(act)
        return found

    def statistics(self) -> Mapping[str, float]:
        """Return how busy the engine is; the cache counts as what all slots could hold."""
        held = sum(answer.held for answer in list(self._batch.answers))
        used = held / (self._slots * self.max_context)
        return {**self._stepper.statistics(), "cache_used": used}

    def health(self) -> str:
        """Return why it can't serve; nothing while its thread lives."""
        return self._stepper.health()

    def update(self, folder: Path, version: str, base: str | None = None) -> None:
        """Serve the weights of another folder from now on; its tokenizer stays the first one.

        They are loaded and proven beside those that serve: for a moment two are in memory.
        """
        if base is not None:
            raise ValueError(f"{type(self).__name__} takes whole models, not what changed")
        with self._updating:
            check_tokenizer(folder, self._folder)
            model = load(folder, self._model.dtype, self._device)
            check_alike(folder, shape(model), shape(self._model))
            weights = self._proven(model, version)
            self._stepper.between_steps(lambda: self._batch.exchange(weights))
            self._model = model

    def close(self) -> None:
        """End the thread; answers that are being made end by an error. Safe to call twice."""
        self._stepper.close()

    def _proven(self, model: Any, version: str) -> Weights:  # noqa: ANN401 - foreign and untyped
        """Return the weights of `model`, when they answer as its own forward pass does."""
        fast = self._fast and fast_forward.fits(model)
        run: Forward = (
            fast_forward.FastForward(model, self.max_context) if fast else ModelForward(model)
        )
        probe.check(model, run, self._cache())
        return Weights(version, self._tokenizer.ends(model.generation_config), run)

    def _cache(self) -> SlotCache:
        return SlotCache(self._layers, self.max_context, torch.device(self._device))


def _threads_for(model: Any) -> int:  # noqa: ANN401 - foreign and untyped
    if sum(weight.numel() for weight in model.parameters()) <= _SMALL:
        return 1
    return os.cpu_count() or 1
